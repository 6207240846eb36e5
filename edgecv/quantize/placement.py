"""Which nodes run in int8 and which tensors get a quantizer, so that ONNX Runtime fuses all of it.

ONNX Runtime replaces a node by its int8 kernel only when every data input comes from a DequantizeLinear and its output
goes to one QuantizeLinear and nowhere else (``onnxruntime/core/optimizer/qdq_transformer/selectors_actions``). A stray
pair costs more than it saves, so what has no int8 kernel, or would need tensors converted for its sake alone, stays in
float.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import constant_array, int_attribute
from edgecv.quantize.int8_nodes import (
    FLOAT_OUTPUT_OPS,
    PASSING_OPS,
    WEIGHT_OPS,
    data_inputs,
    is_elementwise,
    is_passing,
    output_tensor,
    weight_axis,
)

_PIXEL_OPS = ("Cast", "Transpose", "Reshape", "Pad", "Mul", "Add", "Sub", "Div", "Identity")


@dataclass(frozen=True, slots=True)
class Placement:
    """Names of the nodes and tensors to quantize, in the order of the graph.

    Attributes:
        layers: Conv, Gemm and MatMul nodes whose weights become int8.
        others: Nodes without weights that run in int8.
        tensors: Every tensor with a quantizer.
        written: Those of ``tensors`` that an int8 node writes; whoever reads one reads it dequantized.
        shared: Tensor to the earlier tensor whose scale and zero point it takes.
        from_input: Those of ``tensors`` that are the input image itself, normalised.
        kept_float: Weight-holding node to the reason why it stays float.
    """

    layers: tuple[str, ...]
    others: tuple[str, ...]
    tensors: tuple[str, ...]
    written: frozenset[str]
    shared: Mapping[str, str]
    from_input: tuple[str, ...]
    kept_float: Mapping[str, str]

    @property
    def observed(self) -> tuple[str, ...]:
        """Tensors whose range must come from calibration images."""
        return tuple(t for t in self.tensors if t not in self.shared and t not in self.from_input)


def place_quantizers(model: ir.Model, exclude: Collection[str] = ()) -> Placement:
    """Choose the nodes that run in int8; nodes named in ``exclude`` stay float.

    Every node must have a unique name and constants must be initializers.
    """
    graph = model.graph
    layers, kept_float = _layers(graph, exclude)
    others = _useful(graph, layers, _others(graph, layers, exclude))
    wanted, written, shared = _tensors(graph, layers, others)
    ordered = [*graph.inputs, *(o for node in graph for o in node.outputs)]
    pixels = _pixel_values(graph)
    return Placement(
        layers=tuple(_name(n) for n in layers),
        others=tuple(_name(n) for n in others),
        tensors=tuple(_name(v) for v in ordered if v in wanted),
        written=frozenset(_name(v) for v in written & wanted),
        shared={_name(v): _name(shared[v]) for v in ordered if v in shared},
        from_input=tuple(_name(v) for v in ordered if v in wanted and v in pixels),
        kept_float=kept_float,
    )


def token_tensors(model: ir.Model, placement: Placement) -> frozenset[str]:
    """Return the tensors with a scale of their own that a MatMul layer reads: a transformer's tokens."""
    layers = set(placement.layers)
    read = {str(n.inputs[0].name) for n in model.graph if n.op_type == "MatMul" and n.name in layers}  # type: ignore[union-attr]
    return frozenset(placement.shared.get(name, name) for name in read)


def _layers(graph: ir.Graph, exclude: Collection[str]) -> tuple[dict[ir.Node, None], dict[str, str]]:
    layers: dict[ir.Node, None] = {}
    kept: dict[str, str] = {}
    for node in graph:
        if node.op_type not in WEIGHT_OPS or node.domain or constant_array(node.inputs[1]) is None:
            continue
        if reason := _refusal(node, exclude):
            kept[_name(node)] = reason
        else:
            layers[node] = None
    return layers, kept


def _refusal(node: ir.Node, exclude: Collection[str]) -> str:
    weight, bias = constant_array(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None  # checked by the caller
    if node.name in exclude:
        return "excluded by the user"
    if node.op_type == "ConvTranspose":
        return "ONNX Runtime has no int8 kernel for ConvTranspose"
    if weight.dtype != np.float32 or weight.ndim < 2 or (node.op_type == "MatMul" and weight.ndim != 2):
        return f"its weight is {weight.dtype} with {weight.ndim} dimensions"
    if not data_inputs(node):
        return "its input is constant"
    if bias is not None and (constant_array(bias) is None or bias.const_value.size != weight.shape[weight_axis(node)]):  # type: ignore[union-attr]
        return "its bias is not a constant with one value per channel"
    if node.op_type == "Gemm" and (
        _float(node, "alpha") != 1 or _float(node, "beta") != 1 or int_attribute(node, "transA", 0)
    ):
        return "its alpha, beta or transA is not the default"
    if node.op_type not in FLOAT_OUTPUT_OPS and _reaches_output(output_tensor(node)):
        return "it writes the network's output"
    return ""


def _others(graph: ir.Graph, layers: Collection[ir.Node], exclude: Collection[str]) -> dict[ir.Node, None]:
    """Find nodes without weights whose inputs are all at hand in int8 anyway, in one walk down the graph."""
    chosen: dict[ir.Node, None] = {}
    int8 = {output_tensor(n) for n in layers if n.op_type not in FLOAT_OUTPUT_OPS}
    at_hand = int8 | {v for n in layers for v in data_inputs(n)}
    for node in graph:
        if node.domain or node.name in exclude:
            continue
        if is_passing(node) and node.inputs[0] in int8:
            chosen[node] = None
            int8.update(node.outputs)
            at_hand.update(node.outputs)
        elif is_elementwise(node) and all(v in at_hand or _is_gate(v, node, int8) for v in data_inputs(node)):
            tensor = output_tensor(node)
            if not _reaches_output(tensor):
                chosen[node] = None
                int8.add(tensor)
                at_hand.add(tensor)
    return chosen


def _is_gate(value: ir.Value, reader: ir.Node, int8: Collection[ir.Value]) -> bool:
    """Tell whether ``value`` is a squeeze-and-excitation gate: HardSigmoid has no int8 kernel, but its result is small.

    In ``x * HardSigmoid(x)`` it is not: there the product in float costs nothing more and rounds once less.
    """
    producer = value.producer()
    if producer is None or producer.op_type != "HardSigmoid" or reader.op_type != "Mul":
        return False
    return producer.inputs[0] in int8 and producer.inputs[0] not in reader.inputs


def _useful(graph: ir.Graph, layers: Collection[ir.Node], others: Collection[ir.Node]) -> dict[ir.Node, None]:
    """Drop nodes, from the end backwards, that no int8 node reads: they would only be converted back to float."""
    kept: set[ir.Node] = set(layers)
    for node in reversed(list(graph)):
        if node not in others:
            continue
        outputs = node.outputs if node.op_type in PASSING_OPS else [output_tensor(node)]
        if any(use.node in kept for v in outputs for use in v.uses()) and not any(v.is_graph_output() for v in outputs):
            kept.add(node)
    return {n: None for n in others if n in kept}


def _tensors(
    graph: ir.Graph, layers: Collection[ir.Node], others: Collection[ir.Node]
) -> tuple[set[ir.Value], set[ir.Value], dict[ir.Value, ir.Value]]:
    """Return the tensors to quantize, the tensors int8 nodes write, and who shares whose scale."""
    wanted: set[ir.Value] = set()
    written: set[ir.Value] = set()
    shared: dict[ir.Value, ir.Value] = {}
    for node in graph:
        if node not in layers and node not in others:
            continue
        wanted.update(data_inputs(node))
        if node.op_type in PASSING_OPS:
            root = shared.get(node.inputs[0], node.inputs[0])  # type: ignore[arg-type]
            shared.update(dict.fromkeys(node.outputs, root))  # type: ignore[arg-type]
            wanted.update(node.outputs)
            written.update(node.outputs)
            continue
        tensor = output_tensor(node)
        if not tensor.is_graph_output():
            written.add(tensor)
        if node.op_type not in FLOAT_OUTPUT_OPS:
            wanted.add(tensor)
    return wanted, written, shared


def _reaches_output(value: ir.Value) -> bool:
    """Tell whether a value is a network output, or becomes one without any arithmetic."""
    if value.is_graph_output():
        return True
    movers = [u.node for u in value.uses() if u.node.op_type in PASSING_OPS]
    return any(_reaches_output(o) for node in movers for o in node.outputs)


def _pixel_values(graph: ir.Graph) -> set[ir.Value]:
    """Return the graph input and everything computed from it by per-channel scaling and reordering alone."""
    pixels = {v for v in graph.inputs if not v.is_initializer()}
    for node in graph:
        computed = [v for v in node.inputs if v is not None and constant_array(v) is None]
        divides = node.op_type == "Div" and node.inputs[0] not in pixels
        if node.op_type in _PIXEL_OPS and not divides and len(computed) == 1 and computed[0] in pixels:
            pixels.update(node.outputs)
    return pixels


def _float(node: ir.Node, key: str) -> float:
    attribute = node.attributes.get(key)
    return 1.0 if attribute is None else attribute.as_float()


def _name(item: ir.Node | ir.Value) -> str:
    assert item.name is not None  # name_nodes and onnx_ir's reader give every node and value a name
    return item.name
