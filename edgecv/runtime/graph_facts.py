"""What can be said about a graph without running it: element types, shapes, small constants, memory at its peak."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecv.runtime.element_types import integer, output_types
from edgecv.runtime.onnx_reader import Graph, Node, Tensor, Value
from edgecv.runtime.shape_values import Shape
from edgecv.runtime.shapes import output_shapes
from edgecv.runtime.tensor_values import element_bytes, small_values

MAX_FOLDED = 4096
"""Numbers of a constant that is followed through the graph: shapes, sizes, indices."""

_MAX_SIDE = 1 << 62  # no dimension is larger; products of products would become numbers of a million digits
_OPEN_SIZES = (1, 3, 224, 224)
_OPEN_SIZES_LAST = (1, 224, 224, 3)


@dataclass(slots=True)
class Facts:
    """What is known of every tensor by name.

    Attributes:
        types: ``TensorProto.DataType``; 0 or absent when not known.
        shapes: None or absent when not known.
        constants: Initializers and Constant nodes.
        values: Small constants, and what is computed from them and from shapes.
        varying: Names in ``values`` that another input size would change.
        peak_bytes: Largest sum of the tensors alive at one time, constants left out.
        peak_node: The node at which that is.
    """

    types: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)
    peak_bytes: float = 0.0
    peak_node: str = ""


def graph_facts(graph: Graph, image_size: tuple[int, int] | None = None) -> Facts:
    """Walk a graph once.

    Args:
        graph: In topological order, as ONNX asks; what is used before it is computed counts as unknown.
        image_size: (height, width) of open dimensions of four-dimensional inputs; 224x224 when None. An open batch is
            one image.

    Raises:
        WireError: A small constant has fewer or more numbers than its shape says.
    """
    facts = Facts()
    for name, tensor in graph.initializers.items():
        _add_constant(facts, name, tensor)
    is_open = False
    for value in graph.inputs:
        if value.name not in graph.initializers:
            facts.types[value.name] = value.type
            facts.shapes[value.name] = _bound(value, image_size)
            is_open = is_open or value.shape is None or min(value.shape, default=0) < 0
    for node in graph.nodes:
        _visit(node, facts, is_open)
    _find_peak(graph, facts)
    return facts


def _bound(value: Value, image_size: tuple[int, int] | None) -> Shape:
    if value.shape is None:
        return None
    sizes: Sequence[int] = (1,)
    if len(value.shape) == 4:
        sizes = _OPEN_SIZES_LAST if value.shape[3] in (1, 3, 4) else _OPEN_SIZES
        if image_size is not None:
            sizes = [1, *image_size, 3] if sizes is _OPEN_SIZES_LAST else [1, 3, *image_size]
    return tuple(d if d >= 0 else sizes[min(i, len(sizes) - 1)] for i, d in enumerate(value.shape))


def _add_constant(facts: Facts, name: str, tensor: Tensor) -> None:
    facts.constants[name] = tensor
    facts.types[name] = tensor.type
    facts.shapes[name] = tensor.dims
    values = small_values(tensor, MAX_FOLDED)
    if values is not None:
        facts.values[name] = values


def _visit(node: Node, facts: Facts, is_open: bool) -> None:
    if node.op == "Constant" and node.outputs:
        attribute = node.attributes.get("value")
        if attribute is not None and attribute.tensors:
            _add_constant(facts, node.outputs[0], attribute.tensors[0])
            return
    for name, kind in zip(node.outputs, output_types(node, facts.types), strict=False):
        facts.types[name] = kind
    values = [facts.values.get(name) for name in node.inputs]
    shapes = output_shapes(node, [facts.shapes.get(name) for name in node.inputs], values)
    folded = _fold(node, facts, values, shapes[0] if shapes else None)
    if folded is not None:
        name = node.outputs[0]
        facts.values[name], facts.shapes[name] = folded, folded.shape
        if (node.op in ("Shape", "Size") and is_open) or any(n in facts.varying for n in node.inputs):
            facts.varying.add(name)
        return
    for name, shape in zip(node.outputs, shapes, strict=True):
        facts.shapes[name] = None if shape is None else tuple(min(max(0, d), _MAX_SIDE) for d in shape)


def _fold(node: Node, facts: Facts, values: list[np.ndarray | None], expected: Shape) -> np.ndarray | None:
    """Return the first output's numbers where they are few and follow from constants and shapes."""
    rule = _FOLDS.get(node.op)
    if rule is None or not node.outputs or (expected is not None and math.prod(expected) > MAX_FOLDED):
        return None
    if expected is None and node.op not in ("Constant", "Shape", "Size"):
        return None
    if node.op in ("Shape", "Size"):
        shape = facts.shapes.get(node.inputs[0]) if node.inputs else None
        values = [None if shape is None else np.array(shape, np.int64)]
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


def _find_peak(graph: Graph, facts: Facts) -> None:
    """Add up what is alive while each node runs: an output from its node to its last reader."""
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last.update({value.name: len(graph.nodes) for value in graph.outputs})
    ends: dict[int, float] = {}
    live = 0.0
    for name in (v.name for v in graph.inputs if v.name not in facts.constants):
        size = _bytes(name, facts)
        live += size
        ends[last.get(name, 0)] = ends.get(last.get(name, 0), 0.0) + size
    for i, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name in facts.constants:
                continue
            size = _bytes(name, facts)
            live += size
            end = last.get(name, i)
            ends[end] = ends.get(end, 0.0) + size
        if live > facts.peak_bytes:
            facts.peak_bytes, facts.peak_node = live, node.title
        live -= ends.pop(i, 0.0)


def _bytes(name: str, facts: Facts) -> float:
    shape = facts.shapes.get(name)
    return 0.0 if shape is None else math.prod(shape) * element_bytes(facts.types.get(name, 0))
