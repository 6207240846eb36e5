"""How much memory the values between layers take, and when it is most."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgecv.graph.parameters import stored_weight
from edgecv.graph.shapes import value_bytes

_FUSED_ACTIVATIONS = ("Relu", "Clip")
"""ONNX Runtime drops them where the limits of the codes do their work."""

_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
"""ONNX Runtime gives their output the memory of their input."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """The memory of values while a graph runs in the order of its nodes.

    Attributes:
        peak_bytes: Most that is held at once: what a node reads, what it writes, and what later nodes still need.
        peak_node: Where that is; None for a graph without nodes.
        held_bytes: What is held while each node runs.
        complete: Whether every value's size is known; if not, the figures are lower bounds.
    """

    peak_bytes: int
    peak_node: ir.Node | None
    held_bytes: Mapping[ir.Node, int]
    complete: bool


def measure_liveness(model: ir.Model) -> Liveness:
    """Follow values from the node that writes them to the last that reads them.

    Weights are not counted, inputs and outputs of the graph are. A view shares its input's memory. A quantized value
    exists in codes alone: ONNX Runtime fuses a layer with the DequantizeLinear in front of, and the activation and
    QuantizeLinear behind it. Nothing is taken to be computed in place, so an arena may get by with less.

    Args:
        model: With shapes, see :func:`edgecv.graph.shapes.fixed_shapes`.
    """
    nodes = list(model.graph)
    place: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        for output in node.outputs:
            place[output] = _memory_of(node, output, place)
    last = {place.get(v, v): len(nodes) for v in (*model.graph.outputs, *model.graph.inputs)}
    for index, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None and stored_weight(value) is None:
                root = place.get(value, value)
                last[root] = max(last.get(root, 0), index)
    return _walk(model, nodes, place, last)


def _walk(
    model: ir.Model, nodes: list[ir.Node], place: Mapping[ir.Value, ir.Value], last: Mapping[ir.Value, int]
) -> Liveness:
    live = {value: value_bytes(value) or 0 for value in model.graph.inputs}
    complete = all(value_bytes(value) is not None for value in model.graph.inputs)
    held: dict[ir.Node, int] = {}
    for index, node in enumerate(nodes):
        for output in node.outputs:
            root = place[output]
            if root not in live and (output.uses() or output.is_graph_output()) and stored_weight(output) is None:
                size = value_bytes(root)
                complete &= size is not None
                live[root] = size or 0
        held[node] = sum(live.values())
        live = {value: size for value, size in live.items() if last.get(value, -1) > index}
    peak = max(held, key=lambda n: held[n], default=None)
    return Liveness(held[peak] if peak else sum(live.values()), peak, held, complete)


def _memory_of(node: ir.Node, output: ir.Value, place: Mapping[ir.Value, ir.Value]) -> ir.Value:
    """Return the value whose memory ``output`` lies in: itself, or another it is a view of or is fused with."""
    source = node.inputs[0] if node.inputs else None
    if source is not None and stored_weight(source) is None and node.op_type in (*_VIEWS, "DequantizeLinear"):
        return place.get(source, source)
    return _codes_of(output) or output


def _codes_of(value: ir.Value) -> ir.Value | None:
    """Return the codes a value is at once turned into, perhaps behind an activation that is fused as well."""
    users = [use.node for use in value.uses()]
    if len(users) != 1 or value.is_graph_output():
        return None
    if users[0].op_type == "QuantizeLinear":
        return users[0].outputs[0]
    return _codes_of(users[0].outputs[0]) if users[0].op_type in _FUSED_ACTIVATIONS else None
