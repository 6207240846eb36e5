"""Small questions every rewrite asks of a graph: constants, shapes, fresh values."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of an initializer or ``Constant`` node, or None when the value is computed."""
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or ``Constant`` node, unread; None when the value is computed."""
    return None if value is None else ir.convenience.get_const_tensor(value)


def int_attribute(node: ir.Node, key: str, default: int) -> int:
    """Return an integer attribute of ``node``, or ``default`` where it is not written."""
    attribute = node.attributes.get(key)
    return default if attribute is None else attribute.as_int()


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register ``array`` as an initializer under ``name``, or a numbered variant when that is taken."""
    unique = unique_name(graph, name)
    value = ir.Value(
        name=unique,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=unique),
    )
    graph.register_initializer(value)
    return value


def unique_name(graph: ir.Graph, name: str) -> str:
    """Return ``name``, numbered when a value of the graph bears it already."""
    taken = set(graph.initializers) | {v.name for v in graph.inputs}
    taken.update(o.name for node in graph for o in node.outputs)
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def make_node(
    op_type: str,
    inputs: Sequence[ir.Value],
    output: str,
    *,
    dtype: ir.DataType | None = None,
    shape: Sequence[int | str | ir.SymbolicDim] | None = None,
    **attributes: object,
) -> ir.Node:
    """Build a node of the default domain with one named output; the node bears the output's name."""
    value = ir.Value(
        name=output,
        type=None if dtype is None else ir.TensorType(dtype),
        shape=None if shape is None else ir.Shape(shape),
    )
    converted = ir.convenience.convert_attributes(attributes)  # type: ignore[arg-type]
    return ir.Node("", op_type, inputs=inputs, attributes=converted, outputs=[value], name=output)


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put ``new`` in the place of ``old``; the single output keeps its name, type and shape, the node its name."""
    before, after = old.outputs[0], new.outputs[0]
    new.name = old.name
    after.name, after.type, after.shape = before.name, before.type, before.shape
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    graph.remove(old, safe=True)
