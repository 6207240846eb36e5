"""Which layers stand behind the nodes ONNX Runtime runs: it fuses what follows a layer into it and names it anew."""

import re
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from edgecv.graph.cost import node_macs
from edgecv.graph.parameters import stored_weight

_ADDED = re.compile(r"(_nchwc|_nhwc|_token_\d+|_fused|_transformed|/[A-Za-z]+Fusion/?|_matmul_.*)+$")
"""What ONNX Runtime writes behind the name of a node it makes (core/optimizer); before it stands the name of a node or
of the value that the fused node writes."""


_PRODUCTS = re.compile("Conv|Gemm|MatMul|Attention|Einsum")
"""In the name of every operator that multiplies and sums, ONNX Runtime's own included."""


def behind(model: ir.Model, executed: Iterable[tuple[str, str]]) -> Mapping[str, ir.Node]:
    """Return the name of an executed node to the layer of ``model`` that multiplies and sums in it, where one is found.

    Args:
        model: With shapes, see :func:`edgecv.graph.shapes.fixed_shapes`.
        executed: Names and operators as ONNX Runtime's profile has them.
    """
    names: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        if node_macs(node) is not None:
            for name in _names(node):
                names.setdefault(name, []).append(node)
    taken: set[ir.Node] = set()
    found = {}
    products = [name for name, operator in executed if _PRODUCTS.search(operator)]
    for exact in (True, False):
        for name in products:
            candidates = names.get(name if exact else _ADDED.sub("", name), [])
            free = [n for n in candidates if n not in taken]
            if name not in found and free:
                found[name] = free[0]
                taken.add(free[0])
    return found


def _names(node: ir.Node) -> list[str]:
    """Return the names a node may run under: its own, its output's, and those of what alone follows it."""
    names = []
    while True:
        output = node.outputs[0]
        names += [str(n) for n in (node.name, output.name) if n]
        users = {use.node for use in output.uses()}
        if len(users) != 1:
            return list(dict.fromkeys(names))
        node = users.pop()
        computed = [v for v in node.inputs if v is not None and stored_weight(v) is None]
        if node_macs(node) is not None or not node.outputs or len(computed) > 2:
            return list(dict.fromkeys(names))
