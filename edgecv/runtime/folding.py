"""Computing the small constants of a graph, shapes above all, as ONNX Runtime would; in numpy."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from edgecv.runtime.element_types import integer
from edgecv.runtime.onnx_records import Node
from edgecv.runtime.shape_values import Shape
from edgecv.runtime.tensor_values import small_values

MAX_FOLDED = 4096
"""Numbers of a constant that is followed through the graph: shapes, sizes, indices."""


def fold(node: Node, values: list[np.ndarray | None], first_shape: Shape, expected: Shape) -> np.ndarray | None:
    """Return the first output's numbers where they are few and follow from constants and shapes; else None.

    Args:
        node: The operator.
        values: Of its inputs, where they are known.
        first_shape: Shape of its first input.
        expected: Shape of its first output.
    """
    rule = _FOLDS.get(node.op)
    if rule is None or not node.outputs or (expected is not None and math.prod(expected) > MAX_FOLDED):
        return None
    if expected is None and node.op not in ("Constant", "Shape", "Size"):
        return None
    if node.op in ("Shape", "Size"):
        if first_shape is None:
            return None
        values = [np.array(first_shape, np.int64)]
    elif any(v is None for name, v in zip(node.inputs, values, strict=True) if name):
        return None
    given = [v for v in values if v is not None]
    try:
        with np.errstate(all="ignore"):
            out = np.asarray(rule(node, given))
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, MemoryError):
        return None  # inputs that do not fit the operator: ONNX Runtime refuses them itself
    return out if out.size <= MAX_FOLDED and out.dtype.kind in "iufb" else None


def _slice(node: Node, values: list[np.ndarray]) -> np.ndarray:
    x, starts, ends = values[:3]
    axes = values[3] if len(values) > 3 else np.arange(len(starts))
    steps = values[4] if len(values) > 4 else np.ones(len(starts), int)
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[axis] = slice(int(start), int(end), int(step))
    return np.asarray(x[tuple(cut)])


def _shape_slice(node: Node, values: list[np.ndarray]) -> np.ndarray:
    last = integer(node, "end", len(values[0]))
    return np.asarray(values[0][integer(node, "start", 0) : last])


def _constant(node: Node, values: list[np.ndarray]) -> np.ndarray:
    for key, of in (("value_int", "i"), ("value_float", "f"), ("value_ints", "ints"), ("value_floats", "floats")):
        if key in node.attributes:
            return np.array(getattr(node.attributes[key], of), np.int64 if "int" in key else np.float32)
    raise ValueError("no number")


def _squeeze(node: Node, values: list[np.ndarray]) -> np.ndarray:
    attribute = node.attributes.get("axes")
    axes = attribute.ints if attribute is not None else None if len(values) < 2 else tuple(int(a) for a in values[1])
    return np.squeeze(values[0], axes)


def _unsqueeze(node: Node, values: list[np.ndarray]) -> np.ndarray:
    attribute = node.attributes.get("axes")
    axes = attribute.ints if attribute is not None else tuple(int(a) for a in np.ravel(values[1]))
    return np.expand_dims(values[0], axes)


def _cast(node: Node, values: list[np.ndarray]) -> np.ndarray:
    kind = {1: np.float32, 11: np.float64, 6: np.int32, 7: np.int64, 9: np.bool_}.get(integer(node, "to", 0))
    if kind is None:
        raise ValueError("not followed")
    return np.asarray(values[0].astype(kind))


def _divide(node: Node, values: list[np.ndarray]) -> np.ndarray:
    a, b = values
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if np.any(b == 0):
        raise ZeroDivisionError
    return np.asarray(np.trunc(a / b).astype(a.dtype))


def _resized(shape: np.ndarray) -> tuple[int, ...]:
    size = tuple(int(d) for d in np.ravel(shape))
    if math.prod(size) > MAX_FOLDED or min(size, default=0) < -1:
        raise ValueError("not followed")
    return size


def _filled(node: Node, values: list[np.ndarray]) -> np.ndarray:
    attribute = node.attributes.get("value")
    value = None if attribute is None else small_values(attribute.tensors[0], 1)
    return np.full(_resized(values[0]), np.float32(0) if value is None else value.ravel()[0])


def _expanded(node: Node, values: list[np.ndarray]) -> np.ndarray:
    _resized(values[1])
    return np.broadcast_to(values[0], np.broadcast_shapes(values[0].shape, _resized(values[1])))


def _range(node: Node, values: list[np.ndarray]) -> np.ndarray:
    start, limit, step = (v.ravel()[0] for v in values)
    if not abs(float(limit) - float(start)) <= MAX_FOLDED * abs(float(step)):
        raise ValueError("not followed")
    return np.arange(start, limit, step)


_FOLDS: Mapping[str, Callable[[Node, list[np.ndarray]], np.ndarray]] = {
    "Shape": _shape_slice,
    "Size": lambda node, v: np.array(math.prod(int(d) for d in v[0])),
    "Constant": _constant,
    "Identity": lambda node, v: v[0],
    "Gather": lambda node, v: np.take(v[0], v[1], axis=integer(node, "axis", 0)),
    "Concat": lambda node, v: np.concatenate(v, axis=integer(node, "axis", 0)),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": lambda node, v: v[0].reshape(_resized(v[1])),
    "Cast": _cast,
    "Add": lambda node, v: v[0] + v[1],
    "Sub": lambda node, v: v[0] - v[1],
    "Mul": lambda node, v: v[0] * v[1],
    "Div": _divide,
    "Pow": lambda node, v: np.power(v[0], v[1].astype(v[0].dtype)),
    "Sqrt": lambda node, v: np.sqrt(v[0]),
    "Abs": lambda node, v: np.abs(v[0]),
    "Round": lambda node, v: np.round(v[0]),
    "Not": lambda node, v: np.logical_not(v[0]),
    "Greater": lambda node, v: v[0] > v[1],
    "Less": lambda node, v: v[0] < v[1],
    "Neg": lambda node, v: -v[0],
    "Max": lambda node, v: np.maximum.reduce(v),
    "Min": lambda node, v: np.minimum.reduce(v),
    "Floor": lambda node, v: np.floor(v[0]),
    "Ceil": lambda node, v: np.ceil(v[0]),
    "Equal": lambda node, v: v[0] == v[1],
    "Where": lambda node, v: np.where(v[0], v[1], v[2]),
    "ReduceProd": lambda node, v: np.prod(v[0], keepdims=bool(integer(node, "keepdims", 1))),
    "Range": _range,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
}
"""Operators that exporters compute shapes with, in numpy."""
