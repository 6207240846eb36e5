"""Weights whose products cannot saturate on x86 without VNNI.

There ONNX Runtime multiplies uint8 activations by int8 weights with VPMADDUBSW, which adds two neighbouring products in
16 bits and clips the sum (Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 2). Two weights of one
sign whose codes add up to more than 128 can exceed 32,767 with activations of 255; then the file answers otherwise than
on a CPU that adds in 32 bits. 7-bit weights everywhere cannot, and lose 6 dB. Here a channel that holds such a pair
gets the scale and codes of least squared error among those whose pairs stay within the limit.

Which weights are neighbours was found by setting single pairs and running them on an emulated Haswell (ONNX Runtime
1.31): positions 2j and 2j + 1 of a channel's weights in the order (kernel positions, input channels), for convolutions
of any kernel and number of groups and for every matrix product; depthwise convolutions and uint8 weights are exact.
"""

from dataclasses import replace

import numpy as np

from edgecv.quantize.weights import WEIGHT_LIMIT, QuantizedWeight

LARGEST_SUM = 32767
"""What 16 bits hold; on the negative side one more, which no pair of int8 codes uses."""

HIGHEST_CODE = 255
"""The largest uint8 activation."""

_SCALES = 65
"""Scales tried for a channel; where it has few weights a dense search finds one that happens to fit them."""

_WIDEST = 1.3
"""The largest scale tried, in terms of the one at which no pair needs clipping."""

_BLOCK_ELEMENTS = 1 << 18  # weights handled at a time: the temporaries stay small


def pair_limit(highest_code: int = HIGHEST_CODE) -> int:
    """Return the largest sum in magnitude of two weight codes of one sign, given the largest activation code.

    >>> pair_limit()
    128
    """
    return LARGEST_SUM // max(highest_code, 1)


def adds_in_pairs(weight_shape: tuple[int, ...], groups: int = 1) -> bool:
    """Tell whether the kernel for a weight adds products in pairs: all but depthwise convolutions.

    Args:
        weight_shape: Shape of a Conv's weight, (outputs, inputs of a group, kernel...), or of a matrix.
        groups: The Conv's groups.
    """
    return not (len(weight_shape) > 2 and weight_shape[1] == 1 and weight_shape[0] == groups)


def kernel_rows(weight: np.ndarray, axis: int) -> np.ndarray:
    """Return the weights of each output channel in the order the kernel reads them, as (channels, weights)."""
    rows = np.moveaxis(weight, axis, 0)
    if weight.ndim > 2:
        rows = np.moveaxis(rows, 1, -1)
    return rows.reshape(len(rows), -1)


def from_kernel_rows(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Undo :func:`kernel_rows` for a weight of the given shape."""
    if len(shape) > 2:
        outputs, inputs, *kernel = shape
        return np.ascontiguousarray(np.moveaxis(rows.reshape(outputs, *kernel, inputs), -1, 1))
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[axis], -1), 0, axis))


def pair_sums(rows: np.ndarray) -> np.ndarray:
    """Return the sums of neighbouring codes, int32 (channels, pairs); an odd last weight makes a pair of its own.

    Only codes of one sign can add up to more than one of them alone, so the sum tells how far both products go.
    """
    codes = np.pad(rows.astype(np.int32), ((0, 0), (0, rows.shape[1] % 2)))
    return np.asarray(codes[:, ::2] + codes[:, 1::2])


def limit_pairs(values: np.ndarray, limit: int) -> np.ndarray:
    """Round ``values`` (channels, weights), in units of the scale, to the nearest codes whose pairs keep the limit.

    A pair beyond it goes to the nearest whole point on the line where its codes add up to the limit.
    """
    codes = np.clip(np.rint(values), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return _onto_limit(codes, values, limit)


def limit_channels(
    weight: np.ndarray, quantized: QuantizedWeight, *, limit: int | None = None, rescale: bool = True
) -> QuantizedWeight:
    """Return ``quantized`` with no pair of codes beyond the limit; equal to it where none was.

    Args:
        weight: The float weight the codes stand for.
        quantized: Its codes, rounded to nearest or otherwise. Do not pass depthwise weights, which need no limit.
        limit: See :func:`pair_limit`; None for activations up to 255.
        rescale: Choose each such channel's scale anew, its own or a larger one, by least squared error. Else scales
            stay, and codes outside the pairs beyond the limit: for codes that were chosen with care and are a step too
            far at most.
    """
    bound = pair_limit() if limit is None else limit
    codes, values = kernel_rows(quantized.codes, quantized.axis), kernel_rows(weight, quantized.axis)
    worst = np.abs(pair_sums(codes)).max(axis=1)
    chosen = np.flatnonzero(worst > bound)
    if not len(chosen):
        return quantized
    limited, scale = codes.copy(), quantized.scale.copy()
    step = max(1, _BLOCK_ELEMENTS // codes.shape[1])
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        rows = values[part].astype(np.float32)
        if rescale:
            widest = scale[part] * worst[part] * np.float32(_WIDEST / bound)
            scale[part] = _least_error_scales(rows, scale[part], widest, bound)
            limited[part] = limit_pairs(rows / scale[part][:, None], bound)
        else:
            limited[part] = _onto_limit(codes[part].astype(np.float32), rows / scale[part][:, None], bound)
    new = from_kernel_rows(limited, quantized.codes.shape, quantized.axis).astype(np.int8)
    return replace(quantized, codes=new, scale=scale, limited_channels=quantized.limited_channels + len(chosen))


def _onto_limit(codes: np.ndarray, values: np.ndarray, limit: int) -> np.ndarray:
    """Move the pairs of ``codes`` whose sum is beyond the limit to the point on it that is nearest to ``values``."""
    even = codes.shape[1] // 2 * 2
    moved = codes.copy()
    left, right = moved[:, :even:2], moved[:, 1:even:2]
    difference = values[:, :even:2] - values[:, 1:even:2]
    sums = left + right
    for sign in (1, -1):
        beyond = sign * sums > limit
        nearest = np.rint((sign * difference[beyond] + limit) / 2)
        nearest = np.clip(nearest, limit - WEIGHT_LIMIT, WEIGHT_LIMIT)
        left[beyond], right[beyond] = sign * nearest, sign * (limit - nearest)
    return moved


def _least_error_scales(rows: np.ndarray, scale: np.ndarray, widest: np.ndarray, limit: int) -> np.ndarray:
    """Return the scale of least squared error per row, from ``scale`` to ``widest``."""
    best, best_error = scale, np.full(len(rows), np.inf, np.float32)
    for share in np.linspace(0, 1, _SCALES, dtype=np.float32):
        tried = (scale + share * (widest - scale)).astype(np.float32)
        error = limit_pairs(rows / tried[:, None], limit) * tried[:, None] - rows
        square = np.einsum("ij,ij->i", error, error)
        better = square < best_error
        best, best_error = np.where(better, tried, best), np.where(better, square, best_error)
    return np.asarray(best)
