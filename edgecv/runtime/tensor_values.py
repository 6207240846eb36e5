"""Numbers inside an ONNX tensor: of small ones an array, of large ones whether all are finite."""

import math

import numpy as np

from edgecv.runtime.onnx_records import Tensor
from edgecv.runtime.wire import Packed, WireError

FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, DOUBLE, BFLOAT16 = 1, 2, 3, 6, 7, 9, 10, 11, 16
FLOATS = frozenset({FLOAT, FLOAT16, DOUBLE, BFLOAT16, 14, 15, 17, 18, 19, 20, 23, 24})
"""``TensorProto.DataType`` of floating-point and complex numbers; 14 and 15 are complex, from 17 on 8 and 4 bits."""
INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 12, 13, 21, 22, 25, 26})

_NUMPY = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8", 12: "<u4",
    13: "<u8", 14: "<c8", 15: "<c16", 16: "<u2", 17: "u1", 18: "u1", 19: "u1", 20: "u1", 24: "u1",
}  # fmt: skip
_BITS = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2, 8: 64}
_NOT_FINITE = {10: (0x7C00, 0x03FF), 16: (0x7F80, 0x007F)}  # exponent and fraction bits of 16-bit floats
_NAN_BYTES = {17: (0x7F, 0xFF), 18: (0x80,), 19: (*range(0x7D, 0x80), *range(0xFD, 0x100)), 20: (0x80,), 24: (0xFF,)}
_LISTS = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}
_SIZES = {"float_data": 4, "double_data": 8}
_MAX_VARINT = 10


def element_bytes(kind: int) -> float:
    """Return the size of one element of a ``TensorProto.DataType`` in bytes; 8 where it is not known."""
    if kind in _NUMPY:
        return np.dtype(_NUMPY[kind]).itemsize
    return _BITS.get(kind, 64) / 8


def small_values(tensor: Tensor, limit: int) -> np.ndarray | None:
    """Return a tensor's numbers in its shape; None when they are more than ``limit``, no plain numbers, or not inside.

    float32, float64, integers and bool as such, 16-bit floats as float32.

    Raises:
        WireError: Its numbers are fewer or more than its shape says.
    """
    count = math.prod(tensor.dims)
    if count > limit or tensor.location is not None or tensor.type not in _NUMPY or tensor.type > 16:
        return None
    array = _raw(tensor) if tensor.raw is not None else _listed(tensor, count)
    if tensor.type == BFLOAT16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif tensor.type == FLOAT16:
        array = array.astype(np.float32)
    return array.reshape(tensor.dims)


def flaw(tensor: Tensor) -> str:
    """Return ``"nan"`` or ``"inf"`` when a tensor holds such a number (NaN counts first), else ``""``.

    Raises:
        WireError: Its numbers are fewer or more than its shape says.
    """
    if tensor.location is not None or tensor.type not in FLOATS:
        check_size(tensor)
        return ""
    if tensor.raw is not None:
        return _flaw(_raw(tensor), tensor.type)
    array = _listed(tensor, math.prod(tensor.dims))
    return _flaw(array, tensor.type)


def check_size(tensor: Tensor) -> None:
    """Raise WireError when ``raw_data`` is not as long as the shape says."""
    if tensor.raw is not None and tensor.location is None and (tensor.type in _NUMPY or tensor.type in _BITS):
        expected = math.ceil(math.prod(tensor.dims) * element_bytes(tensor.type))
        if len(tensor.raw) != expected:
            raise WireError(
                f"tensor '{tensor.name[:60]}' has {len(tensor.raw)} bytes, its shape {tensor.dims} says {expected}"
            )


def _raw(tensor: Tensor) -> np.ndarray:
    check_size(tensor)
    return np.frombuffer(tensor.raw or b"", _NUMPY.get(tensor.type, "u1"))


def _listed(tensor: Tensor, count: int) -> np.ndarray:
    """Return the numbers of a typed list such as ``float_data``, flat."""
    key = _LISTS.get(tensor.type, "int32_data")
    dtype = np.dtype(_NUMPY[tensor.type])
    floats = key in _SIZES
    pieces = [p for p in tensor.lists.get(key, []) if isinstance(p, Packed)]
    loose = [p for p in tensor.lists.get(key, []) if not isinstance(p, Packed)]
    try:
        arrays = [np.frombuffer(p.data, f"<f{_SIZES[key]}") if floats else _varints(p.data) for p in pieces]
    except ValueError as e:
        raise WireError(f"tensor '{tensor.name[:60]}' ends in the middle of a number") from e
    array: np.ndarray = np.concatenate([*arrays, np.array(loose, np.float64 if floats else np.int64)])
    if array.size != count:
        raise WireError(f"tensor '{tensor.name[:60]}' has {array.size} numbers, its shape says {count}")
    if not floats and tensor.type in (FLOAT16, BFLOAT16):  # their bits, in the lower half of 32
        return array.astype(np.uint16).view(dtype)
    return array.astype(dtype)


def _flaw(array: np.ndarray, kind: int) -> str:
    if kind in _NOT_FINITE:
        exponent, fraction = (np.uint16(x) for x in _NOT_FINITE[kind])
        bits = array.view(np.uint16)
        bad = bits[(bits & exponent) == exponent]
        return "nan" if (bad & fraction).any() else "inf" if bad.size else ""
    if kind in _NAN_BYTES:
        return "nan" if np.isin(array, _NAN_BYTES[kind]).any() else ""
    if array.dtype.kind not in "fc" or not array.size:
        return ""
    with np.errstate(all="ignore"):
        # Infinity and NaN survive every addition: one pass, and no array of booleans, for the usual case.
        if np.isfinite(array.sum()):
            return ""
    return "nan" if np.isnan(array).any() else "inf" if np.isinf(array).any() else ""


def _varints(data: memoryview) -> np.ndarray:
    """Decode packed varints all at once, as int64."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if not octets.size:
        return np.zeros(0, np.int64)
    if not ends.size or ends[-1] != octets.size - 1:
        raise ValueError("no end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    if length.max() > _MAX_VARINT:
        raise ValueError("no end")
    out: np.ndarray = (octets[starts] & 0x7F).astype(np.uint64)
    for place in range(1, int(length.max())):
        longer = length > place
        out[longer] |= (octets[starts[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return out.view(np.int64)
