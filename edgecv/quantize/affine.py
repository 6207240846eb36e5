"""The arithmetic of uint8 (or uint16) activations: a range of real numbers, its scale and zero point, and rounding."""

from dataclasses import dataclass

import numpy as np

LEVELS = 255
"""Steps between the lowest and the highest uint8 code."""

WIDE_LEVELS = 65535
"""The same of uint16."""


@dataclass(frozen=True, slots=True)
class Range:
    """The real numbers an activation is allowed to take; values outside are clipped. Unit of the tensor itself."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Affine:
    """``real = scale * (code - zero_point)`` with codes 0..levels, as QuantizeLinear of ONNX defines it."""

    scale: np.float32
    zero_point: int
    levels: int = LEVELS


def affine_of(span: Range, levels: int = LEVELS) -> Affine:
    """Return the scale and zero point of a range, which is first widened to hold zero exactly.

    Zero must have a code of its own, since padding and ReLU produce it. Where one end is zero the scale is rounded down
    so that the other end is never passed: ONNX Runtime removes a Relu or Clip only when the codes cannot leave its
    bounds (``onnxruntime/core/optimizer/qdq_transformer/clip_quantizelinear.cc``).

    >>> affine_of(Range(-0.9921875, 1.0))  # (pixel - 127) / 128 falls on the codes exactly
    Affine(scale=np.float32(0.0078125), zero_point=127, levels=255)
    """
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    width = high - low
    if width < float(np.finfo(np.float32).tiny) * levels:  # a tensor that is always zero: any scale represents it
        return Affine(np.float32(1 / levels), 0, levels)
    scale = np.float32(width / levels)
    if low == 0.0 or high == 0.0:
        while scale * np.float32(levels) > np.float32(width):
            scale = np.nextafter(scale, np.float32(0))
    zero_point = int(np.clip(np.rint(-low / float(scale)), 0, levels))
    return Affine(scale, zero_point, levels)


def round_through(values: np.ndarray, affine: Affine) -> np.ndarray:
    """Return ``values`` as they look after QuantizeLinear and DequantizeLinear; same shape and dtype.

    Rounds half to even, as ONNX does.
    """
    scale, zero = float(affine.scale), affine.zero_point
    codes = np.clip(np.rint(values / scale), -zero, affine.levels - zero)
    return codes * scale
