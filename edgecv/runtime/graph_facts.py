"""What can be said about a graph without running it: element types, shapes, small constants, memory at its peak."""

import math
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecv.runtime.element_types import output_types
from edgecv.runtime.folding import MAX_FOLDED, fold
from edgecv.runtime.onnx_records import Graph, Node, Tensor, Value
from edgecv.runtime.operators import words
from edgecv.runtime.shape_values import Shape
from edgecv.runtime.shapes import output_shapes
from edgecv.runtime.tensor_values import element_bytes, small_values

_MAX_SIDE = 1 << 62  # no dimension is larger; products of products would become numbers of a million digits
_MAKES_MUCH = words(
    """AffineGrid BlackmanWindow CenterCropPad Col2Im ConstantOfShape Expand EyeLike HammingWindow HannWindow MaxUnpool
    OneHot Pad Range Resize Tile Upsample"""
)
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
        unordered: The first node that takes what no node before it gives.
        unsized: The first node of those that can make much of little whose output's shape is not known.
    """

    types: ChainMap[str, int] = field(default_factory=ChainMap)
    shapes: ChainMap[str, Shape] = field(default_factory=ChainMap)
    constants: ChainMap[str, Tensor] = field(default_factory=ChainMap)
    values: ChainMap[str, np.ndarray] = field(default_factory=ChainMap)
    varying: ChainMap[str, bool] = field(default_factory=ChainMap)
    peak_bytes: float = 0.0
    peak_node: str = ""
    unordered: str = ""
    unsized: str = ""

    def inside(self) -> "Facts":
        """Return the facts that a subgraph starts from: names of the graph around it can be used in it."""
        return Facts(
            self.types.new_child(),
            self.shapes.new_child(),
            self.constants.new_child(),
            self.values.new_child(),
            self.varying.new_child(),
        )


def graph_facts(graph: Graph, image_size: tuple[int, int] | None = None, outer: Facts | None = None) -> Facts:
    """Walk a graph once.

    Args:
        graph: In topological order, as ONNX asks; what is used before it is computed counts as unknown.
        image_size: (height, width) of open dimensions of four-dimensional inputs; 224x224 when None. An open batch is
            one image.
        outer: Of the graph around a subgraph.

    Raises:
        WireError: A small constant has fewer or more numbers than its shape says.
    """
    facts = Facts() if outer is None else outer.inside()
    for name, tensor in graph.initializers.items():
        _add_constant(facts, name, tensor)
    is_open = False
    for value in graph.inputs:
        if value.name not in graph.initializers:
            facts.types[value.name] = value.type
            facts.shapes[value.name] = _bound(value, image_size)
            is_open = is_open or value.shape is None or min(value.shape, default=0) < 0
    for node in graph.nodes:
        if not facts.unordered and any(name and name not in facts.types for name in node.inputs):
            facts.unordered = node.title
        _visit(node, facts, is_open)
        if not facts.unsized and node.op in _MAKES_MUCH and node.outputs and facts.shapes.get(node.outputs[0]) is None:
            facts.unsized = node.title
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
    first = facts.shapes.get(node.inputs[0]) if node.inputs else None
    folded = fold(node, values, first, shapes[0] if shapes else None)
    if folded is not None:
        name = node.outputs[0]
        facts.values[name], facts.shapes[name] = folded, folded.shape
        if (node.op in ("Shape", "Size") and is_open) or any(n in facts.varying for n in node.inputs):
            facts.varying[name] = True
        return
    for name, shape in zip(node.outputs, shapes, strict=True):
        facts.shapes[name] = None if shape is None else tuple(min(max(0, d), _MAX_SIDE) for d in shape)


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
