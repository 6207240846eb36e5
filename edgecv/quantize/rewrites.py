"""Rewrites that make the int8 graph faster, each checked by itself on images and undone when it moves the answer."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.errors import UsageError, nearest
from edgecv.graph.agreement import MAX_RELATIVE_DIFF
from edgecv.graph.hard_activations import hard_activations_by_clip
from edgecv.graph.interface import only_image_input
from edgecv.graph.pad_depthwise import pad_depthwise_channels
from edgecv.graph.pixel_input import normalize_in_first_conv
from edgecv.quantize.activations import Batches
from edgecv.quantize.code_shortcuts import scale_codes_once, use_pixels_as_codes
from edgecv.quantize.order_channels import order_channels
from edgecv.quantize.sessions import open_graph
from edgecv.quantize.smooth_norms import smooth_norms

ORDER_CHANNELS = "order_channels"
"""The rewrite that only a portable file needs; see :mod:`edgecv.quantize.order_channels`."""

FLOAT_REWRITES: dict[str, Callable[[ir.Model], int]] = {
    "normalize_in_first_conv": normalize_in_first_conv,
    "hard_activations_by_clip": hard_activations_by_clip,
    "pad_depthwise_channels": pad_depthwise_channels,
    ORDER_CHANNELS: order_channels,
}
"""Rewrites of the float model before it is quantized, in order; exact up to float32 rounding."""

IMAGE_REWRITES: dict[str, Callable[[ir.Model, np.ndarray], int]] = {"smooth_norms": smooth_norms}
"""Rewrites of the float model that look at a few images, applied after the others; as exact as they."""

CODE_REWRITES: dict[str, Callable[[ir.Model], int]] = {
    "scale_codes_once": scale_codes_once,
    "use_pixels_as_codes": use_pixels_as_codes,
}
"""Rewrites of the quantized model, in order."""

CODE_BOUNDS = {"scale_codes_once": 0.05, "use_pixels_as_codes": 0.0}
"""Largest change of an output, in standard deviations of the outputs. A factor in a scale takes one rounding out, which
the layers behind may turn into a few codes; the same codes give the same bits."""

CHECK_IMAGES = 4
"""A wrong rewrite shows on one image; more cost time."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What came of one rewrite.

    Attributes:
        name: Key of :data:`FLOAT_REWRITES`, :data:`IMAGE_REWRITES` or :data:`CODE_REWRITES`.
        places: Places of the graph it changed.
        relative_diff: Largest change of an output on the checked images, in standard deviations of the outputs.
        kept: False when that is over the bound, and the graph was left as it was.
    """

    name: str
    places: int
    relative_diff: float
    kept: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return asdict(self)


def check_rewrites(names: Collection[str] | None) -> tuple[str, ...]:
    """Return the rewrites meant by ``names``, in order; None means all.

    Raises:
        UsageError: A name is unknown.
    """
    known = (*FLOAT_REWRITES, *IMAGE_REWRITES, *CODE_REWRITES)
    for name in names or ():
        if name not in known:
            raise UsageError(f"rewrite '{name}' is not one of {', '.join(known)}.{nearest(name, known)}")
    return tuple(n for n in known if names is None or n in names)


def images_to_check(batches: Batches) -> np.ndarray:
    """Return the first few calibration images.

    Raises:
        UsageError: There is none.
    """
    for batch in batches():
        if len(batch):
            return batch[:CHECK_IMAGES]
    raise UsageError("there is no image to calibrate with; name a folder of images with --data.")


def rewrite_float(
    model: ir.Model, images: np.ndarray, names: Collection[str], exclude: Collection[str] = ()
) -> tuple[ir.Model, list[Rewrite]]:
    """Apply the named float rewrites to ``model`` and return it with what came of each.

    Args:
        model: A float model; changed in place, or replaced where a rewrite is undone.
        images: A batch of the graph's own input.
        names: Which of :data:`FLOAT_REWRITES` and :data:`IMAGE_REWRITES`.
        exclude: Nodes that stay float; the first convolution then keeps its weights.
    """
    first = next((n for n in model.graph if n.op_type == "Conv"), None)
    wanted = [n for n in FLOAT_REWRITES if n in names]
    if first is not None and first.name in exclude:
        wanted = [n for n in wanted if n != "normalize_in_first_conv"]
    rewrites: dict[str, Callable[[ir.Model], int]] = {n: FLOAT_REWRITES[n] for n in wanted}
    rewrites |= {n: _looking_at(images, rewrite) for n, rewrite in IMAGE_REWRITES.items() if n in names}
    return _apply(model, images, [(n, rewrite, MAX_RELATIVE_DIFF) for n, rewrite in rewrites.items()])


def _looking_at(images: np.ndarray, rewrite: Callable[[ir.Model, np.ndarray], int]) -> Callable[[ir.Model], int]:
    return lambda model: rewrite(model, images)


def rewrite_codes(model: ir.Model, images: np.ndarray, names: Collection[str]) -> tuple[ir.Model, list[Rewrite]]:
    """Apply the named rewrites of :data:`CODE_REWRITES` to a quantized model; as :func:`rewrite_float`."""
    return _apply(model, images, [(n, CODE_REWRITES[n], CODE_BOUNDS[n]) for n in CODE_REWRITES if n in names])


def _apply(
    model: ir.Model, images: np.ndarray, rewrites: Sequence[tuple[str, Callable[[ir.Model], int], float]]
) -> tuple[ir.Model, list[Rewrite]]:
    done: list[Rewrite] = []
    before: np.ndarray | None = None
    for name, rewrite, bound in rewrites:
        changed = model.clone()
        places = rewrite(changed)
        if not places:
            continue
        common.RemoveUnusedNodesPass()(changed)
        if before is None:
            before = _outputs(model, images)
        after = _outputs(changed, images)
        diff = relative_diff(before, after)
        kept = diff <= bound
        done.append(Rewrite(name, places, diff, kept))
        if kept:
            model, before = changed, after
    return model, done


def relative_diff(before: np.ndarray, after: np.ndarray) -> float:
    """Return the largest change in standard deviations of ``before``; infinite when a value is not finite."""
    if before.shape != after.shape or not np.isfinite(after).all():
        return float("inf")
    diff = float(np.abs(before.astype(np.float64) - after).max())
    spread = float(before.std(dtype=np.float64))
    return 0.0 if diff == 0 else diff / spread if spread else float("inf")


def _outputs(model: ir.Model, images: np.ndarray) -> np.ndarray:
    """Run the images and return the first output."""
    feed = only_image_input(model)
    fixed = feed.shape[0] if feed.shape is not None and isinstance(feed.shape[0], int) else 0
    session = open_graph(model)
    rows = [images] if not fixed else [np.resize(images, (fixed, *images.shape[1:]))]
    return np.concatenate([session.run(None, {feed.name: r})[0] for r in rows])
