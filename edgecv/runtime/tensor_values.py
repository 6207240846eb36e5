"""Numbers inside an ONNX tensor: of small ones an array, of large ones whether all are finite."""

import math

import numpy as np

from edgecv.runtime.onnx_reader import Tensor
from edgecv.runtime.wire import Packed, WireError, numbers

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
    if tensor.raw is not None:
        array = _raw(tensor)
    else:
        found = numbers(tensor.lists.get(_LISTS.get(tensor.type, "int32_data"), []), limit)
        if len(found) != count:
            raise WireError(f"tensor '{tensor.name[:60]}' has {len(found)} numbers, its shape says {count}")
        mask = (1 << 16) - 1
        words = tensor.type in (10, 16)
        array = (
            np.array([int(n) & mask for n in found], np.uint16).view(_NUMPY[tensor.type])
            if words
            else _converted(found, tensor)
        )
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
    if tensor.type in (FLOAT, DOUBLE):
        pieces = tensor.lists.get(_LISTS[tensor.type], [])
        packed = [np.frombuffer(p.data, _NUMPY[tensor.type]) for p in pieces if isinstance(p, Packed)]
        loose = np.array([p for p in pieces if not isinstance(p, Packed)], _NUMPY[tensor.type])
        count = loose.size + sum(p.size for p in packed)
        if count != math.prod(tensor.dims):
            raise WireError(f"tensor '{tensor.name[:60]}' has {count} numbers, its shape says {math.prod(tensor.dims)}")
        found = {_flaw(p, tensor.type) for p in (*packed, loose)}
        return "nan" if "nan" in found else "inf" if "inf" in found else ""
    codes = [_varints(p.data) if isinstance(p, Packed) else np.array([p]) for p in tensor.lists.get("int32_data", [])]
    joined = np.concatenate(codes) if codes else np.zeros(0, np.int64)
    return _flaw((joined & 0xFFFF).astype(np.uint16 if tensor.type in (10, 16) else np.uint8), tensor.type)


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


def _converted(found: list[int | float], tensor: Tensor) -> np.ndarray:
    try:
        return np.array(found).astype(_NUMPY[tensor.type])
    except OverflowError as e:
        raise WireError(f"tensor '{tensor.name[:60]}' has numbers too large for its type") from e


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
    """Decode packed varints all at once; of each the lowest 21 bits, which hold any 16-bit pattern."""
    octets = np.frombuffer(data, np.uint8).astype(np.int64)
    ends = np.flatnonzero(octets < 0x80)
    if not octets.size or ends.size == 0 or ends[-1] != octets.size - 1:
        if octets.size:
            raise WireError("it ends in the middle of a number")
        return octets
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts + 1
    out: np.ndarray = octets[starts] & 0x7F
    for place in (1, 2):
        longer = length > place
        out[longer] |= (octets[starts[longer] + place] & 0x7F) << (7 * place)
    return out
