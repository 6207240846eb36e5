"""HardSigmoid and HardSwish in operators that have int8 kernels: convolutions, Add, Clip and Mul.

ONNX Runtime's CPU provider has no int8 HardSigmoid, so every one costs a DequantizeLinear, float arithmetic and a
QuantizeLinear. ``HardSigmoid(x) = clip(α·x + β, 0, 1)`` behind a convolution that nothing else reads is that
convolution with other weights, and a Clip; elsewhere it is ``α · clip(x + β/α, 0, 1/α)``: the Add and the Clip are one
int8 kernel, whose output saturates at the bounds, and ``α`` is a factor of that output's scale. What int8 adds is the
rounding of the gate: half of 1/255, hence at most 0.006 in HardSwish, where ``|x| < 3``.
"""

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array, make_node, replace_node, unique_name

_ALPHA, _BETA = 0.2, 0.5  # HardSigmoid's defaults in the ONNX operator schemas; HardSwish has 1/6 and 1/2


def hard_activations_by_clip(model: ir.Model) -> int:
    """Rewrite every HardSigmoid and HardSwish that reads a convolution, in place; return how many. Exact in floats."""
    graph = model.graph
    rewritten = 0
    for node in list(graph):
        if node.domain or node.op_type not in ("HardSigmoid", "HardSwish") or not _reads_conv(node):
            continue
        if node.op_type == "HardSwish":
            node = _split_hard_swish(graph, node)
        if not _fold_into_conv(graph, node):
            _shift_and_clip(graph, node)
        rewritten += 1
    return rewritten


def _reads_conv(node: ir.Node) -> bool:
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    return producer is not None and producer.op_type == "Conv" and constant_array(producer.inputs[1]) is not None


def _split_hard_swish(graph: ir.Graph, node: ir.Node) -> ir.Node:
    """Write ``HardSwish(x)`` as ``x · HardSigmoid(x)`` and return the HardSigmoid."""
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None  # by _reads_conv
    name = unique_name(graph, f"{output.name}_gate")
    shape = None if output.shape is None else list(output.shape)
    gate = make_node("HardSigmoid", [source], name, dtype=output.dtype, shape=shape, alpha=1 / 6, beta=0.5)
    graph.insert_before(node, gate)
    replace_node(graph, node, make_node("Mul", [source, gate.outputs[0]], "product"))
    return gate


def _fold_into_conv(graph: ir.Graph, node: ir.Node) -> bool:
    """Replace a HardSigmoid that alone reads a convolution by a Clip behind other weights."""
    source = node.inputs[0]
    assert source is not None  # by _reads_conv
    conv = source.producer()
    assert conv is not None
    weight, bias = constant_array(conv.inputs[1]), constant_array(conv.inputs[2]) if len(conv.inputs) > 2 else None
    if len(source.uses()) != 1 or source.is_graph_output() or weight is None:
        return False
    if bias is None and len(conv.inputs) > 2 and conv.inputs[2] is not None:
        return False
    alpha, beta = _parameters(node)
    name = conv.inputs[1].name  # type: ignore[union-attr]
    base = np.zeros(len(weight), np.float32) if bias is None else bias
    conv.replace_input_with(1, add_initializer(graph, f"{name}_gate", (weight * alpha).astype(np.float32)))
    if len(conv.inputs) < 3:
        conv.resize_inputs(3)
    conv.replace_input_with(2, add_initializer(graph, f"{name}_gate_bias", (base * alpha + beta).astype(np.float32)))
    source.name = unique_name(graph, f"{source.name}_unclipped")  # no longer what the float model calls so
    replace_node(graph, node, _clip(graph, source, str(node.outputs[0].name), 1.0))
    return True


def _shift_and_clip(graph: ir.Graph, node: ir.Node) -> None:
    source, name = node.inputs[0], str(node.outputs[0].name)
    assert source is not None  # by _reads_conv
    alpha, beta = _parameters(node)
    shape = None if source.shape is None else list(source.shape)
    offset = add_initializer(graph, f"{name}_offset", np.array(beta / alpha, np.float32))
    factor = add_initializer(graph, f"{name}_factor", np.array(alpha, np.float32))
    shifted = make_node("Add", [source, offset], unique_name(graph, f"{name}_shifted"), dtype=source.dtype, shape=shape)
    graph.insert_before(node, shifted)
    clipped = _clip(graph, shifted.outputs[0], unique_name(graph, f"{name}_clipped"), 1 / alpha)
    graph.insert_before(node, clipped)
    replace_node(graph, node, make_node("Mul", [clipped.outputs[0], factor], "gate"))


def _clip(graph: ir.Graph, source: ir.Value, name: str, high: float) -> ir.Node:
    shape = None if source.shape is None else list(source.shape)
    low = add_initializer(graph, f"{name}_low", np.array(0, np.float32))
    top = add_initializer(graph, f"{name}_high", np.array(high, np.float32))
    return make_node("Clip", [source, low, top], name, dtype=source.dtype, shape=shape)


def _parameters(node: ir.Node) -> tuple[float, float]:
    alpha, beta = node.attributes.get("alpha"), node.attributes.get("beta")
    return _ALPHA if alpha is None else alpha.as_float(), _BETA if beta is None else beta.as_float()
