"""The range of the normalised input image, from what a pixel can be and not from what the calibration images show."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecv.graph.interface import only_image_input
from edgecv.manifest import InputSpec
from edgecv.quantize.activations import Activation, stream_activations
from edgecv.quantize.affine import Range


def input_ranges(model: ir.Model, tensors: Sequence[str], spec: InputSpec) -> dict[str, Range]:
    """Return the exact range of tensors that are the image itself, scaled, shifted or reordered.

    Such a tensor is an affine function of one pixel, so a black and a white image reach its ends. With equal scales in
    all channels the 256 pixel values then fall on the 256 codes, and quantizing the input loses nothing.

    Args:
        model: The float model.
        tensors: Names of such tensors (``Placement.from_input``).
        spec: The model's input; its mean and std are used for a float32 input.
    """
    if not tensors:
        return {}
    images = black_and_white(only_image_input(model), spec)
    ranges: dict[str, Range] = {}
    for seen in stream_activations(model, tensors, lambda: iter([images])):
        ranges[seen.name] = _union(ranges.get(seen.name), seen)
    return ranges


def black_and_white(feed: ir.Value, spec: InputSpec) -> np.ndarray:
    """Return one black and one white image, shape (2, …) and dtype of the graph input."""
    nchw = spec.layout == "NCHW"
    wanted = (3, *spec.input_size[1:]) if nchw else (*spec.input_size[1:], 3)
    known = zip(list(feed.shape or ())[1:], wanted, strict=False)
    shape = [d if isinstance(d, int) else w for d, w in known]
    images = np.stack([np.zeros(shape, np.float32), np.ones(shape, np.float32)])
    if spec.dtype == "uint8":
        return (images * 255).astype(np.uint8)
    per_channel = (3, 1, 1) if nchw else (3,)
    mean = np.array(spec.mean, np.float32).reshape(per_channel)
    std = np.array(spec.std, np.float32).reshape(per_channel)
    return ((images - mean) / std).astype(np.float32)


def _union(before: Range | None, seen: Activation) -> Range:
    low, high = float(seen.values.min()), float(seen.values.max())
    return Range(low, high) if before is None else Range(min(before.low, low), max(before.high, high))
