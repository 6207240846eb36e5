"""A graph layer by layer and in total: parameters, multiply-accumulates, memory, receptive field."""

from dataclasses import dataclass

import onnx_ir as ir

from edgecv.graph.cost import count_macs, uncounted
from edgecv.graph.liveness import measure_liveness
from edgecv.graph.parameters import Parameters, count_parameters, stored_weight
from edgecv.graph.receptive_field import ReceptiveField, receptive_fields
from edgecv.graph.shapes import dims, fixed_shapes, value_bytes


@dataclass(frozen=True, slots=True)
class Layer:
    """One node.

    Attributes:
        name: The node's, or its first output's where it has none.
        operator: ``Conv``, …; ``domain::name`` outside ONNX's own.
        output_shape: Of its first output; None where it cannot be told.
        parameters: Numbers learned; a weight that several nodes share counts at the first.
        formula: The shapes they come from.
        weight_bytes: What they take in the file.
        macs: Multiply-accumulates; 0 for what does not multiply and sum.
        activation_bytes: What it writes.
        held_bytes: What all values in memory take while it runs.
        receptive_field: Of its first output; None when that does not depend on the image.
    """

    name: str
    operator: str
    output_shape: tuple[int, ...] | None
    parameters: int
    formula: str
    weight_bytes: int
    macs: int
    activation_bytes: int
    held_bytes: int
    receptive_field: ReceptiveField | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole graph for one batch.

    Attributes:
        batch: Images.
        layers: Nodes in the order of the graph, without those that only unpack weights.
        parameters: Sum over the layers.
        macs: Sum over the layers.
        activation_bytes: Sum over the layers.
        peak_activation_bytes: Most that is held at once, see :mod:`edgecv.graph.liveness`.
        peak_layer: Where.
        field: The largest receptive field that is less than the whole image, and the last layer that has it.
        field_layer: See ``field``; empty when there is none.
        uncounted: Nodes that multiply and sum but whose cost cannot be told.
        complete: Whether all shapes are known; if not, bytes and MACs are lower bounds.
    """

    batch: int
    layers: tuple[Layer, ...]
    parameters: int
    macs: int
    activation_bytes: int
    peak_activation_bytes: int
    peak_layer: str
    field: ReceptiveField | None
    field_layer: str
    uncounted: tuple[str, ...]
    complete: bool


def summarise(model: ir.Model, batch: int = 1) -> Summary:
    """Analyse a graph for a batch of one size; the model is left as it is."""
    fixed = fixed_shapes(model, batch)
    parameters, macs, fields = count_parameters(fixed), count_macs(fixed), receptive_fields(fixed)
    liveness = measure_liveness(fixed)
    layers = tuple(
        _layer(node, parameters.get(node, Parameters()), macs.get(node, 0), liveness.held_bytes[node], fields)
        for node in fixed.graph
        if node.outputs and stored_weight(node.outputs[0]) is None
    )
    widest = _widest(layers)
    return Summary(
        batch=batch,
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        peak_activation_bytes=liveness.peak_bytes,
        peak_layer="" if liveness.peak_node is None else node_name(liveness.peak_node),
        field=None if widest is None else widest.receptive_field,
        field_layer="" if widest is None else widest.name,
        uncounted=tuple(f"{node_name(n)} ({n.op_type})" for n in uncounted(fixed)),
        complete=liveness.complete,
    )


def node_name(node: ir.Node) -> str:
    """Return a node's name, or its first output's where it has none."""
    return str(node.name or (node.outputs[0].name if node.outputs else "") or node.op_type)


def operator_name(node: ir.Node) -> str:
    """Return ``Conv``, or ``domain::name`` outside ONNX's own domain."""
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _layer(node: ir.Node, learned: Parameters, macs: int, held: int, fields: dict[ir.Value, ReceptiveField]) -> Layer:
    return Layer(
        name=node_name(node),
        operator=operator_name(node),
        output_shape=dims(node.outputs[0]),
        parameters=learned.count,
        formula=learned.formula,
        weight_bytes=learned.bytes,
        macs=macs,
        activation_bytes=sum(value_bytes(o) or 0 for o in node.outputs),
        held_bytes=held,
        receptive_field=fields.get(node.outputs[0]),
    )


def _widest(layers: tuple[Layer, ...]) -> Layer | None:
    local = [x for x in layers if x.receptive_field is not None and None not in x.receptive_field.size]
    return max(local, key=lambda x: (max(s or 0 for s in x.receptive_field.size), x.macs > 0), default=None)  # type: ignore[union-attr]
