"""Where two versions of one network part: every tensor they share, compared layer by layer.

A float network and its quantized version, or the same network before and after a rewrite, keep most tensor names. Of a
quantized tensor ``t`` the dequantized copy is compared, for that is what the next layer reads.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecv.data.batches import iter_batches
from edgecv.data.dataset import Dataset
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.evaluate.classifier import open_classifiers
from edgecv.manifest import InputSpec
from edgecv.progress import Progress, no_progress
from edgecv.runtime.preprocess import to_model_input
from edgecv.runtime.session import Session, open_session

if TYPE_CHECKING:
    import onnx_ir as ir

THRESHOLD_DB = 20.0
"""Noise of 1 % of a tensor's power; int8 layers that do well are at 25 to 45 dB, float rewrites beyond 100."""

_INT8_BEST_DB = 45.0
_SILENCE_DB = -100.0  # NaN, or noise where there should be nothing
_FLOAT_BEST_DB = 150.0  # where the rounding of float32 ends

_TWINS = ("{}_dequantized", "{}_DequantizeLinear_Output", "{}")
"""What a quantized graph calls tensor ``t`` for its readers: this project's quantizer, ONNX Runtime's, or the same."""

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The tensors two models share, in the reference's order of computation.

    Attributes:
        layers: ``{"tensor", "op_type", "sqnr_db", "step_db"}``: signal to noise of the candidate's tensor (None when
            equal), and how much of it was lost since the compared tensors it is computed from. What the number
            format itself costs is not counted as lost: with any tensor under 60 dB, losses start at 45 dB.
        first_below: First tensor under ``threshold_db``; empty when there is none.
        largest_step: Tensor with the largest loss at one step; empty when nothing was lost.
        threshold_db: See :data:`THRESHOLD_DB`.
        n: Images.
        not_compared: Tensors of the reference without a twin of the same shape in the candidate.
    """

    layers: list[dict[str, object]]
    first_below: str
    largest_step: str
    threshold_db: float
    n: int
    not_compared: int


def first_departing_layer(
    reference: Path,
    candidate: Path,
    dataset: Dataset,
    *,
    images: int = 8,
    threshold_db: float = THRESHOLD_DB,
    threads: int | str = "auto",
    progress: Progress = no_progress,
) -> LayerReport:
    """Run a few images through both graphs with every shared tensor made an output, and compare.

    Graph optimizations are off, so that each tensor exists; on the CPU. One image at a time: memory holds the
    activations of one.

    Args:
        reference: ONNX file.
        candidate: ONNX file; one of the two may lack a manifest, as in :func:`edgecv.evaluate.parity.verify_models`.
        dataset: Where to take images from, evenly spaced.
        images: How many.
        threshold_db: Below it a tensor counts as departed.
        threads: Intra-op threads.
        progress: Told after each image.

    Raises:
        EnvironmentRefusedError: ``onnx_ir`` is not installed.
        UsageError: The graphs share no tensor name, or one cannot be read or run.
    """
    check_tools()
    from edgecv.graph.model_file import load_model

    graphs = load_model(reference), load_model(candidate)
    first, second = (model.spec for model in open_classifiers([reference, candidate], threads=threads))
    specs = first, second
    pairs = match_tensors(*graphs)
    if not pairs:
        raise UsageError(
            f"'{reference}' and '{candidate}' share no tensor name, so no layer can be compared; compare models of one "
            "export, before later steps rename tensors."
        )
    order = _order(graphs[0])
    sessions = (
        _exposed(graphs[0], list(pairs), threads),
        _exposed(graphs[1], list(pairs.values()), threads),
    )
    sums = {name: np.zeros(2) for name in pairs}
    mismatched: set[str] = set()
    count = 0
    chosen = dataset.limited(images)
    with (
        closing(iter_batches(chosen, specs[0], 1, progress=progress, label="layers")) as ours,
        closing(iter_batches(chosen, specs[1], 1)) as theirs,
    ):
        for a, b in zip(ours, theirs, strict=True):
            left = _run(sessions[0], specs[0], a.images, list(pairs))
            right = _run(sessions[1], specs[1], b.images, list(pairs.values()))
            _add(sums, mismatched, left, right, pairs)
            count += 1
    for name in mismatched:
        del sums[name]
    return _summarise(order, sums, threshold_db, count, len(order) - len(sums))


def check_tools() -> None:
    """Raise EnvironmentRefusedError when the package that edits graphs is not installed."""
    if find_spec("onnx_ir") is None:
        raise EnvironmentRefusedError("--layers needs onnx_ir; install it with: pip install 'edgecv[tools]'")


def match_tensors(reference: "ir.Model", candidate: "ir.Model") -> dict[str, str]:
    """Return the name in ``candidate`` of each float tensor of ``reference`` that has a twin there."""
    theirs = {value.name for node in candidate.graph for value in node.outputs}
    pairs = {}
    for name in _order(reference):
        for twin in _TWINS:
            if twin.format(name) in theirs:
                pairs[name] = twin.format(name)
                break
    return pairs


def _order(model: "ir.Model") -> dict[str, tuple[str, list[str]]]:
    """Return computed float tensors in order of computation: name -> (op type, names of the node's inputs)."""
    import onnx_ir as ir

    floats = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16, None}
    return {
        value.name: (node.op_type, [x.name for x in node.inputs if x is not None and x.name])
        for node in model.graph
        for value in node.outputs
        if value.name and value.dtype in floats and node.op_type != "Constant"
    }


def _exposed(model: "ir.Model", names: Sequence[str], threads: int | str) -> Session:
    import onnx_ir as ir

    outputs = model.graph.outputs
    present = {value.name for value in outputs}
    wanted = set(names) - present
    outputs.extend(v for node in model.graph for v in node.outputs if v.name in wanted)
    return open_session(ir.to_proto(model).SerializeToString(), threads=threads, optimize=False, policy="relaxed")


def _run(session: Session, spec: InputSpec, images: npt.NDArray[np.uint8], names: list[str]) -> Arrays:
    shape = session.session.get_inputs()[0].shape
    if isinstance(shape[0], int) and shape[0] > 1:  # a graph of fixed batch: the same image all along
        images = np.repeat(images, shape[0], axis=0)
    values = session.session.run(names, {spec.name: to_model_input(images, spec)})
    return dict(zip(names, values, strict=True))


def _add(
    sums: dict[str, npt.NDArray[np.float64]],
    mismatched: set[str],
    left: Arrays,
    right: Arrays,
    pairs: Mapping[str, str],
) -> None:
    for name, twin in pairs.items():
        a, b = left[name], right[twin]
        if a.shape != b.shape or a.dtype.kind != "f" or b.dtype.kind != "f":
            mismatched.add(name)
            continue
        wide = a.astype(np.float64)
        sums[name] += np.square(wide).sum(), np.square(wide - b.astype(np.float64)).sum()


def _summarise(
    order: Mapping[str, tuple[str, list[str]]],
    sums: Mapping[str, npt.NDArray[np.float64]],
    threshold_db: float,
    images: int,
    not_compared: int,
) -> LayerReport:
    reach: dict[str, float] = {}  # the worst signal to noise of the compared tensors a tensor is computed from
    layers: list[dict[str, object]] = []
    first, largest, largest_loss = "", "", 0.0
    levels = {name: _decibels(*values.tolist()) for name, values in sums.items()}
    best = _INT8_BEST_DB if any(level < 60 for level in levels.values()) else _FLOAT_BEST_DB
    for name, (op_type, inputs) in order.items():
        before = min((reach[x] for x in inputs if x in reach), default=math.inf)
        reach[name] = before
        if name not in sums:
            continue
        reach[name] = own = levels[name]
        step = max(min(before, best) - min(own, best), 0.0)
        layers.append(
            {"tensor": name, "op_type": op_type, "sqnr_db": own if math.isfinite(own) else None, "step_db": step}
        )
        if own < threshold_db and not first:
            first = name
        if step > largest_loss:
            largest, largest_loss = name, step
    return LayerReport(layers, first, largest, threshold_db, images, not_compared)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    if not math.isfinite(noise) or signal == 0:
        return _SILENCE_DB
    return max(10 * math.log10(signal / noise), _SILENCE_DB)
