"""Ranges of activations chosen by what they do to the network's answer, not to the tensor itself.

The error that a range makes inside a tensor says little: MobileNetV2's last residual stream spans -34..34 and is worth
quantizing to -5..6, for what is cut there the next layers do not read. So each tensor alone is quantized with several
ranges, the float rest of the network is run on, and the range with the least error of the outputs is kept.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx_ir as ir

from edgecv.progress import Progress, no_progress
from edgecv.quantize.affine import LEVELS, Range, affine_of
from edgecv.quantize.calibrate import Observations
from edgecv.quantize.draft import output_error
from edgecv.quantize.histogram import METHODS
from edgecv.quantize.walk import Live, open_part, walk

SEARCH_IMAGES = 16
"""More move the chosen fractions by less than the steps between them."""

FRACTIONS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.22)
"""Shares of the extremes that are tried for both ends together."""

NUDGES = (0.8, 1.25)
"""Factors then tried for each end by itself."""

_HOPELESS = 2.0  # the error grows steeply once too much is cut: at twice the best, smaller shares are not tried


def search_ranges(
    model: ir.Model,
    tensors: Collection[str],
    seen: Observations,
    images: np.ndarray,
    *,
    progress: Progress = no_progress,
) -> dict[str, Range]:
    """Return a range for each of ``tensors`` by the error it alone causes in the outputs of ``model``.

    About eight runs of the rest of the network for each tensor; memory is the widest cut through the graph for the
    images.

    Args:
        model: The float network; not changed.
        tensors: Names of float32 tensors (``Placement.observed``).
        seen: Their extremes over all calibration images.
        images: A few of them, :data:`SEARCH_IMAGES` say, as the graph takes them.
        progress: See :mod:`edgecv.progress`.
    """
    wanted = set(tensors)
    order = list(model.graph)
    outputs = list(model.graph.outputs)
    found: dict[str, Range] = {}
    reference: list[list[np.ndarray]] = []
    for position, (node, live) in enumerate(walk(model, images)):
        if not position:
            reference = open_part(model, order, outputs, live_input(live)).run(live)
        for output in node.outputs:
            if output.name not in wanted:
                continue
            histogram = seen.histograms[output.name]
            widest = Range(min(histogram.minimum, 0.0), max(histogram.maximum, 0.0))
            judge = _judge(model, order[position + 1 :], outputs, live, output, reference)
            plain = METHODS["mse"](histogram)
            found[output.name] = _least_error(plain, widest, judge) if judge else plain
            progress("ranges", len(found), len(wanted))
    return found


def live_input(live: Live) -> Live:
    """Return only the tensors that no node computes: the image."""
    return {value: parts for value, parts in live.items() if value.producer() is None}


def _judge(
    model: ir.Model,
    rest: Sequence[ir.Node],
    outputs: Sequence[ir.Value],
    live: Live,
    tensor: ir.Value,
    reference: Sequence[Sequence[np.ndarray]],
) -> Callable[[Range], float] | None:
    """Return the function from a range of ``tensor`` to its error; None when no output depends on the tensor."""
    behind = [o for o in outputs if o not in live]
    part = open_part(model, rest, behind, live) if behind else None
    if part is None or tensor not in part.feeds:
        return None
    columns = [i for i, o in enumerate(outputs) if o not in live]
    expected = [[arrays[i] for i in columns] for arrays in reference]

    def judge(span: Range) -> float:
        changed = {**live, tensor: [_round_through(values, span) for values in live[tensor]]}
        results = part.run(changed)
        return sum(output_error(e, r) for e, r in zip(expected, results, strict=True))

    return judge


def _round_through(values: np.ndarray, span: Range) -> np.ndarray:
    """As :func:`edgecv.quantize.affine.round_through`, in float32 and in one array."""
    affine = affine_of(span)
    codes = values * (np.float32(1) / affine.scale)
    np.rint(codes, out=codes)
    np.clip(codes, -affine.zero_point, LEVELS - affine.zero_point, out=codes)
    codes *= affine.scale
    return codes


def _least_error(plain: Range, widest: Range, judge: Callable[[Range], float]) -> Range:
    """Try ``plain``, then smaller and smaller shares of ``widest``, then each end of the best by itself."""
    best, least = plain, judge(plain)
    for share in FRACTIONS:
        span = Range(widest.low * share, widest.high * share)
        error = judge(span)
        if error < least:
            best, least = span, error
        elif error > _HOPELESS * least:
            break
    if not widest.low < 0.0 < widest.high:
        return best
    for end in ("high", "low"):
        for factor in NUDGES:
            span = _nudged(best, widest, end, factor)
            error = judge(span)
            if error < least:
                best, least = span, error
                break
    return best


def _nudged(span: Range, widest: Range, end: str, factor: float) -> Range:
    """Move one end by a factor, never beyond what was seen."""
    if end == "high":
        return Range(span.low, min(span.high * factor, widest.high))
    return Range(max(span.low * factor, widest.low), span.high)
