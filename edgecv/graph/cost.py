"""Multiply-accumulates of each node, from shapes alone.

One multiply-accumulate (MAC) is one product added to a sum: half of what "FLOPs" count where they are meant literally.
Adding a bias, activations, poolings and normalisations are not counted, as in the figures networks are published with.
"""

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from edgecv.graph.shapes import dims, elements
from edgecv.graph.values import int_attribute

_Shape = tuple[int, ...]


def count_macs(model: ir.Model) -> dict[ir.Node, int]:
    """Return the MACs of every node of the main graph that multiplies and sums; see :func:`uncounted` for gaps.

    Args:
        model: With shapes, see :func:`edgecv.graph.shapes.fixed_shapes`.
    """
    found = {}
    for node in model.graph:
        macs = node_macs(node)
        if macs is not None:
            found[node] = macs
    return found


def uncounted(model: ir.Model) -> list[ir.Node]:
    """Return the nodes that multiply and sum but whose cost the shapes do not tell."""
    hidden = ("If", "Loop", "Scan")
    return [
        n for n in model.graph if n.op_type in hidden or (n.op_type in (*_RULES, *_NO_RULE) and node_macs(n) is None)
    ]


def node_macs(node: ir.Node) -> int | None:
    """Return the MACs of one node, or None when it does not multiply and sum or its shapes are not known."""
    rule = _RULES.get(node.op_type)
    return None if rule is None else rule(node)


def _input(node: ir.Node, place: int) -> _Shape | None:
    return dims(node.inputs[place]) if place < len(node.inputs) else None


def _convolution(weight_at: int) -> Callable[[ir.Node], int | None]:
    def macs(node: ir.Node) -> int | None:
        # Every output number sums over C_in / group · k_h · k_w products, the weight's shape without its first axis.
        weight, out = _input(node, weight_at), elements(node.outputs[0])
        return None if weight is None or out is None else out * math.prod(weight[1:])

    return macs


def _transposed(node: ir.Node) -> int | None:
    # Every input number is multiplied by C_out / group · k_h · k_w weights.
    weight, source = _input(node, 1), elements(node.inputs[0])
    return None if weight is None or source is None else source * math.prod(weight[1:])


def _product(second_at: int) -> Callable[[ir.Node], int | None]:
    def macs(node: ir.Node) -> int | None:
        first, second, out = _input(node, 0), _input(node, second_at), elements(node.outputs[0])
        if not first or not second or out is None:
            return None
        last = 0 if int_attribute(node, "transA", 0) and len(first) > 1 else -1
        return out * first[-2 if last == 0 else -1]

    return macs


def _blocks_product(node: ir.Node) -> int | None:
    out = elements(node.outputs[0])
    return None if out is None else out * int_attribute(node, "K", 0)


def _attention(node: ir.Node) -> int | None:
    """Q·Kᵀ and the weighted sum of V; the projection too where ONNX Runtime's operator holds its weight."""
    query, key, value = (_input(node, i) for i in range(3))
    if query is None or key is None or value is None:
        return None
    if node.domain == "com.microsoft" and node.op_type == "Attention":  # input, weight (D, 3 D), bias
        batch, tokens, width = query
        return batch * tokens * width * key[-1] + 2 * batch * tokens * tokens * (key[-1] // 3)
    if len(query) == 3:  # (N, tokens, heads · width); the value may be wider than the key
        return query[0] * query[1] * key[1] * (query[2] + _heads_shared(node, value[2]))
    batch, heads, tokens, width = query
    return batch * heads * tokens * key[2] * (width + value[3])


def _heads_shared(node: ir.Node, value_width: int) -> int:
    """Return the width all query heads read from the values, when several heads share one of theirs."""
    queries, shared = int_attribute(node, "q_num_heads", 1), int_attribute(node, "kv_num_heads", 1)
    return value_width * queries // shared


def _einsum(node: ir.Node) -> int | None:
    equation = node.attributes.get("equation")
    shapes = [dims(v) for v in node.inputs]
    if equation is None or len(shapes) != 2 or any(s is None for s in shapes):
        return None
    terms = equation.as_string().replace(" ", "").split("->")[0].split(",")
    if "." in "".join(terms) or [len(t) for t in terms] != [len(s or ()) for s in shapes]:
        return None
    size = {
        letter: d
        for term, shape in zip(terms, shapes, strict=True)
        for letter, d in zip(term, shape or (), strict=True)
    }
    return math.prod(size.values())


_RULES: Mapping[str, Callable[[ir.Node], int | None]] = {
    "Conv": _convolution(1), "FusedConv": _convolution(1), "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3), "ConvTranspose": _transposed,
    "Gemm": _product(1), "FusedGemm": _product(1), "QGemm": _product(3),
    "MatMul": _product(1), "FusedMatMul": _product(1), "MatMulInteger": _product(1),
    "MatMulIntegerToFloat": _product(1), "DynamicQuantizeMatMul": _product(1), "QLinearMatMul": _product(3),
    "MatMulNBits": _blocks_product, "Attention": _attention, "MultiHeadAttention": _attention, "Einsum": _einsum,
}  # fmt: skip
"""Operator to its rule: onnx/docs/Operators.md and, for ONNX Runtime's own, its docs/ContribOperators.md."""

_NO_RULE = ("LSTM", "GRU", "RNN", "DeformConv", "NhwcFusedConv", "QAttention", "GroupQueryAttention")
