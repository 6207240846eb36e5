"""Signed 8-bit weights with one scale per output channel, and the int32 bias that goes with them."""

from dataclasses import dataclass

import numpy as np

WEIGHT_LIMIT = 127
"""Largest code in magnitude: symmetric, so that zero is exact and no zero point costs time in the kernel."""

_RATIOS = np.linspace(1.0, 0.7, 31, dtype=np.float32)
"""Shares of a channel's largest weight that are tried as its clipping point."""

_BIAS_BITS = 29
"""A bias code stays below 2^29, so that it and 2^30 of accumulated products together fit an int32."""

SMALLEST_SCALE = np.float32(2.0**-100)
"""A channel whose weights need less is empty; below it, products with an input's scale would leave float32."""

_BLOCK_ELEMENTS = 1 << 16  # weights handled at a time: the temporaries stay in the cache


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A layer's weights as stored: ``real = scale[channel] * codes``.

    Attributes:
        codes: int8, the shape of the float weight.
        scale: float32 of shape (channels,).
        axis: The dimension of ``codes`` that counts output channels.
        raised_channels: Channels whose scale was raised to keep the bias inside int32.
        limited_channels: Channels changed so that no pair of products leaves 16 bits (``edgecv.quantize.pair_sums``).
    """

    codes: np.ndarray
    scale: np.ndarray
    axis: int
    raised_channels: int = 0
    limited_channels: int = 0


def quantize_weight(
    weight: np.ndarray, axis: int, *, bias: np.ndarray | None = None, input_scale: float = 0.0
) -> QuantizedWeight:
    """Round a float weight to int8, each output channel with the scale of least squared error.

    Args:
        weight: float32, any shape.
        axis: The dimension that counts output channels.
        bias: float32 of shape (channels,), or None.
        input_scale: Scale of the layer's quantized input; needed with ``bias``. The bias is stored in units of
            ``input_scale * scale``, which overflows int32 where folding a BatchNormalization has left a channel with
            tiny weights and an ordinary bias; such a channel's scale is raised.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float32)
    scale = least_error_scales(rows)
    raised = 0
    if bias is not None and input_scale > 0:
        floor = smallest_scales(bias, input_scale)
        raised = int((scale < floor).sum())
        scale = np.maximum(scale, floor)
    scale = np.where(scale > 0, np.maximum(scale, SMALLEST_SCALE), np.float32(1))
    return encode_weight(weight, scale, axis, raised)


def smallest_scales(bias: np.ndarray, input_scale: float) -> np.ndarray:
    """Return the weight scale, float32 of shape (channels,), below which a channel's bias would overflow int32."""
    return np.asarray(np.abs(bias.reshape(-1)) / (input_scale * 2.0**_BIAS_BITS), np.float32)


def encode_weight(weight: np.ndarray, scale: np.ndarray, axis: int, raised_channels: int = 0) -> QuantizedWeight:
    """Round ``weight`` to the nearest codes of the given scales (float32 of shape (channels,))."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    codes = np.rint(weight / scale.reshape(shape))
    codes = np.clip(codes, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return QuantizedWeight(codes, scale.astype(np.float32), axis, raised_channels)


def decode_weight(quantized: QuantizedWeight) -> np.ndarray:
    """Return the float32 weight that the codes stand for."""
    shape = [1] * quantized.codes.ndim
    shape[quantized.axis] = -1
    return np.asarray(quantized.codes.astype(np.float32) * quantized.scale.reshape(shape))


def bias_scale(weight_scale: np.ndarray, input_scale: np.float32) -> np.ndarray:
    """Return the scale of one bias unit, float32 of shape (channels,), computed as ONNX Runtime does."""
    return (np.float32(input_scale) * weight_scale).astype(np.float32)


def quantize_bias(bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return int32 codes of shape (channels,): ``bias / scale`` rounded."""
    limit = float(np.iinfo(np.int32).max)
    codes = np.rint(bias.reshape(-1).astype(np.float64) / scale.astype(np.float64))
    return np.clip(codes, -limit, limit).astype(np.int32)


def least_error_scales(rows: np.ndarray, limit: int = WEIGHT_LIMIT) -> np.ndarray:
    """Return the scale of least squared error for each row of a (channels, weights) array; 0 for an empty row.

    Args:
        rows: float32.
        limit: Largest code in magnitude.
    """
    largest = np.abs(rows).max(axis=1)
    scales = np.empty(len(rows), np.float32)
    step = max(1, _BLOCK_ELEMENTS // rows.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        scales[part] = _search(rows[part], largest[part], limit)
    return np.where(largest >= limit * SMALLEST_SCALE, scales, np.float32(0))


def _search(rows: np.ndarray, largest: np.ndarray, limit: int) -> np.ndarray:
    full = np.maximum(largest / np.float32(limit), SMALLEST_SCALE)
    best_error = np.full(len(rows), np.inf, np.float32)
    best = full
    for ratio in _RATIOS:
        scale = (full * ratio).astype(np.float32)
        codes = rows / scale[:, None]
        np.rint(codes, out=codes)
        np.clip(codes, -limit, limit, out=codes)
        codes *= scale[:, None]
        codes -= rows
        error = np.einsum("ij,ij->i", codes, codes)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best = np.where(better, scale, best)
    return best
