"""Rewriting a float32 graph to float16 or bfloat16, with casts around the nodes that stay in float32.

ONNX Runtime ships a converter (``onnxruntime.transformers.float16``), which is not used: it clips weights beyond 65504
silently, stores the weights of nodes kept in float32 as float16 all the same, and leads what passes between two such
nodes, and the output of the last one, through float16, where it overflows.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.errors import UsageError
from edgecv.graph.values import add_initializer, constant_array, make_node, unique_name
from edgecv.quantize.sessions import open_graph

FLOAT32_OPS = frozenset(
    {"Resize", "Upsample", "Range", "CumSum", "TopK", "NonMaxSuppression", "RoiAlign", "ConstantOfShape", "EyeLike"}
    | {"RandomNormal", "RandomUniform", "DequantizeLinear", "QuantizeLinear"}
)
"""Operators left in float32: an attribute or input must be float32, or sums and indices need its precision."""

_FLOAT = ir.DataType.FLOAT


def rewrite_to_half(model: ir.Model, half: ir.DataType, floats: Collection[str], kept: Collection[str]) -> None:
    """Make every node but those of ``kept`` and :data:`FLOAT32_OPS` compute in ``half``, in place.

    Graph inputs and outputs keep their types.

    Args:
        model: A float32 model without functions; constants are initializers.
        half: ``FLOAT16`` or ``BFLOAT16``.
        floats: Names of all float32 values that nodes compute.
        kept: Names of nodes to leave in float32.

    Raises:
        UsageError: The graph has control flow, whose subgraphs would need rewriting too.
    """
    graph = model.graph
    halves: set[ir.Value] = set()
    copies: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in list(graph):
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            raise UsageError(
                f"node '{node.name}' ({node.op_type}) holds a subgraph; {half.name.lower()} cannot be written for it."
            )
        wanted = _FLOAT if node.name in kept or node.op_type in FLOAT32_OPS else half
        for index, value in enumerate(node.inputs):
            if value is not None and _is_float(value, floats):
                node.replace_input_with(index, _as_type(graph, node, value, (half, wanted), halves, copies))
        if wanted == half:
            _write_half(node, half, floats, halves)
    _restore_outputs(graph, half, halves)
    common.RemoveUnusedNodesPass()(model)


def value_types(model: ir.Model) -> dict[str, ir.DataType]:
    """Return the type of every value that nodes compute, as ONNX Runtime infers it."""
    copy = model.clone()
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(o for node in copy.graph for o in node.outputs if o.name)
    names = {o.name: o.type.removeprefix("tensor(").removesuffix(")").upper() for o in open_graph(copy).get_outputs()}
    return {name: ir.DataType.__members__.get(kind, ir.DataType.UNDEFINED) for name, kind in names.items()}


def _is_float(value: ir.Value, floats: Collection[str]) -> bool:
    if value.is_initializer() or value.is_graph_input():
        return value.dtype == _FLOAT
    return value.name in floats


def _as_type(
    graph: ir.Graph,
    reader: ir.Node,
    value: ir.Value,
    types: tuple[ir.DataType, ir.DataType],
    halves: set[ir.Value],
    copies: dict[tuple[ir.Value, ir.DataType], ir.Value],
) -> ir.Value:
    """Return ``value`` in the second of ``types``: itself, a converted initializer, or a cast before its first reader.

    The first is what the values in ``halves`` have.
    """
    half, wanted = types
    if (half if value in halves else _FLOAT) == wanted:
        return value
    if (value, wanted) not in copies:
        array = constant_array(value)
        name = f"{value.name}_{wanted.name.lower()}"
        if array is not None:
            # what is too large is kept in float32 by the caller, but for the infinite bounds of Clip
            with np.errstate(over="ignore"):
                copies[value, wanted] = add_initializer(graph, name, array.astype(wanted.numpy()))
        else:
            cast = make_node(
                "Cast", [value], unique_name(graph, name), dtype=wanted, shape=_shape(value), to=wanted.value
            )
            graph.insert_before(reader, cast)
            copies[value, wanted] = cast.outputs[0]
    return copies[value, wanted]


def _write_half(node: ir.Node, half: ir.DataType, floats: Collection[str], halves: set[ir.Value]) -> None:
    for output in node.outputs:
        if output.name in floats:
            output.type = ir.TensorType(half)  # a new one: clones of a model share their types
            halves.add(output)
    if node.op_type == "Cast" and node.outputs[0] in halves:
        node.attributes["to"] = ir.AttrInt64("to", half.value)


def _restore_outputs(graph: ir.Graph, half: ir.DataType, halves: set[ir.Value]) -> None:
    """Cast every graph output back to float32; the float32 value takes the output's name."""
    for index, value in enumerate(graph.outputs):
        if value not in halves:
            continue
        name = str(value.name)
        value.name = unique_name(graph, f"{name}_{half.name.lower()}")
        cast = make_node("Cast", [value], name, dtype=_FLOAT, shape=_shape(value), to=_FLOAT.value)
        cast.name = f"{name}_float32"
        graph.append(cast)
        graph.outputs[index] = cast.outputs[0]


def _shape(value: ir.Value) -> list[int | str | ir.SymbolicDim] | None:
    return None if value.shape is None else list(value.shape)
