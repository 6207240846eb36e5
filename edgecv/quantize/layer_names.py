"""What to call a layer, the same in every table, and which layers are meant by the names a user gives.

Node names are made by exporters (``node_Conv_869``); what people know is the name of the weight in PyTorch
(``conv_stem``), which survives quantization and every rewrite in front of what they add to it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable

import onnx_ir as ir

from edgecv.errors import UsageError, nearest
from edgecv.quantize.int8_nodes import WEIGHT_OPS

INTEGER_OPS = {
    "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "MatMulInteger": 1, "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
}  # fmt: skip
"""Operators that multiply codes, to the input that holds the weights. (ConvInteger takes the weights first, which ONNX
Runtime computes exactly.)"""

NAME_PREFIX = "name:"
"""Marks a name that would be read as something else: a layer called ``7`` is ``name:7``."""

_SUGGESTED = 3


def layer_names(graph: ir.Graph) -> dict[ir.Node, str]:
    """Return what to call every node with stored weights, in a float model as in a quantized one.

    It is the weight's name as in PyTorch where that is unique, or the node's own name; a name that ``--keep-float``
    would take for ``auto`` or a number has :data:`NAME_PREFIX`. All are understood by :func:`resolve_excluded`.
    """
    weights = {node: _weight_name(node) for node in graph.all_nodes()}
    held = {node: name.rpartition(".weight")[0] for node, name in weights.items() if name}
    used = Counter([*held.values(), *(str(node.name) for node in weights)])
    names = {}
    for node, stem in held.items():
        others = used[stem] - (stem == node.name)  # whoever else could be meant by it
        names[node] = written_name(stem if stem and others == 1 else str(node.name or node.outputs[0].name))
    return names


def written_name(name: str) -> str:
    """Return how a layer's name must be written among the values of ``--keep-float``."""
    return f"{NAME_PREFIX}{name}" if is_choice(name) else name


def is_choice(value: str) -> bool:
    """Tell whether a value of ``--keep-float`` asks for a choice (``auto``, a number) instead of naming a layer."""
    return value == "auto" or value.isdecimal()


def resolve_excluded(model: ir.Model, exclude: Collection[str]) -> tuple[str, ...]:
    """Return the nodes meant by ``exclude``: node names, or layers by the name of their weight (``conv_stem``).

    Raises:
        UsageError: A name is neither; the nearest ones are shown.
    """
    nodes = {str(node.name): str(node.name) for node in model.graph}
    for node in model.graph:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is not None and weight.name is not None and weight.is_initializer():
            nodes.setdefault(weight.name.removesuffix(".weight"), str(node.name))
    for node, name in layer_names(model.graph).items():
        nodes.setdefault(name.removeprefix(NAME_PREFIX), str(node.name))
    plain = [name if name in nodes else name.removeprefix(NAME_PREFIX) for name in exclude]
    for name in plain:
        if name not in nodes:
            raise UsageError(f"there is no node or layer '{name}' to keep in float.{nearest(name, nodes)}")
    return tuple(nodes[name] for name in plain)


def check_effect(model: ir.Model, exclude: Collection[str], able: Collection[str]) -> None:
    """Refuse to keep a node float where that changes nothing, and say which nodes near it could be.

    Args:
        model: The float network.
        exclude: Names of nodes, from :func:`resolve_excluded`.
        able: Names of the nodes that quantization would change, or that stay float for a reason of their own.

    Raises:
        UsageError: A node is not among them.
    """
    nodes = {str(node.name): node for node in model.graph}
    for name in exclude:
        if name not in able:
            raise UsageError(
                f"keeping '{name}' ({nodes[name].op_type}) in float changes nothing: it is not quantized by itself; "
                f"name what is, such as {' or '.join(_nearby(model.graph, nodes[name], able))}."
            )


def _nearby(graph: ir.Graph, node: ir.Node, able: Collection[str]) -> list[str]:
    """Return the names of the nearest nodes out of ``able``: before ``node`` and behind it, or else of a few layers."""
    names = layer_names(graph)
    ways = (_first(node, _writers, able), _first(node, _readers, able))
    found = [n for n in ways if n is not None] or [n for n in names if n.name in able][:_SUGGESTED]
    return [f"'{names.get(n, str(n.name))}'" for n in found]


def _writers(node: ir.Node) -> Iterable[ir.Node]:
    return (p for v in node.inputs if v is not None and (p := v.producer()) is not None)


def _readers(node: ir.Node) -> Iterable[ir.Node]:
    return (use.node for output in node.outputs for use in output.uses())


def _first(start: ir.Node, following: Callable[[ir.Node], Iterable[ir.Node]], able: Collection[str]) -> ir.Node | None:
    """Return the first node out of ``able`` on the ways that ``following`` gives, breadth first."""
    row, seen = [start], {start}
    while row:
        row = [n for node in row for n in following(node) if n not in seen]
        seen.update(row)
        found = next((n for n in row if n.name in able), None)
        if found is not None:
            return found
    return None


def _weight_name(node: ir.Node) -> str:
    """Return the name of the constant that holds the weights of a layer, also behind a DequantizeLinear; else ""."""
    index = INTEGER_OPS.get(node.op_type, 1 if node.op_type in WEIGHT_OPS and not node.domain else None)
    value = None if index is None or len(node.inputs) <= index else node.inputs[index]
    while value is not None and (producer := value.producer()) is not None and producer.inputs:
        value = producer.inputs[0] if producer.op_type in ("DequantizeLinear", "Cast", "Transpose") else None
    constant = value is not None and (value.is_initializer() or value.producer() is not None)
    return str(value.name) if constant and value is not None else ""
