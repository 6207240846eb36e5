"""What ONNX Runtime's int8 kernels take and give: facts about single nodes that every decision rests on."""

import onnx_ir as ir

from edgecv.graph.values import constant_array, int_attribute

WEIGHT_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that hold a network's weights."""

FLOAT_OUTPUT_OPS = ("Gemm", "MatMul")
"""Weight operators whose int8 kernel may write float: no quantizer is needed behind them."""

ELEMENTWISE_OPS = ("Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu")
"""Operators without weights that have an int8 kernel on the CPU provider (Softmax has one too, slower than float)."""

PASSING_OPS = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split")
"""Operators that only move or pick values: the same codes, scale and zero point go in and come out."""


def fused_activation(node: ir.Node) -> ir.Node | None:
    """Return the Relu or Clip that ONNX Runtime folds into the quantizer behind ``node``, or None.

    It must be the only reader, and 0 its lower bound: then the lowest code is 0 and the bound holds by itself.
    """
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    reader = uses[0].node
    if reader.op_type == "Relu" or (reader.op_type == "Clip" and _clips_at_zero(reader)):
        return reader
    return None


def output_tensor(node: ir.Node) -> ir.Value:
    """Return the tensor an int8 ``node`` writes: behind its activation when that is fused."""
    activation = fused_activation(node)
    return (activation or node).outputs[0]


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of an int8 candidate that are computed, not constant."""
    inputs = node.inputs[:1] if node.op_type in (*WEIGHT_OPS, *PASSING_OPS) else node.inputs
    return [v for v in inputs if v is not None and constant_array(v) is None]


def weight_axis(node: ir.Node) -> int:
    """Return the dimension of the weight of a Conv, Gemm or MatMul that counts output channels."""
    return 0 if node.op_type == "Conv" or int_attribute(node, "transB", 0) else 1


def is_passing(node: ir.Node) -> bool:
    """Tell whether a node only moves codes; a MaxPool that also gives indices does not."""
    return node.op_type in PASSING_OPS and not (node.op_type == "MaxPool" and len(node.outputs) > 1)


def is_elementwise(node: ir.Node) -> bool:
    """Tell whether a node has an int8 kernel for its inputs; a constant must be one number: 8 bits hold it exactly."""
    constants = [a for v in node.inputs if (a := constant_array(v)) is not None]
    return (
        node.op_type in ELEMENTWISE_OPS
        and bool(data_inputs(node))
        and (not constants or (node.op_type in ("Add", "Mul") and all(a.size == 1 for a in constants)))
    )


def _clips_at_zero(clip: ir.Node) -> bool:
    low = constant_array(clip.inputs[1]) if len(clip.inputs) > 1 else None
    high = constant_array(clip.inputs[2]) if len(clip.inputs) > 2 else None
    has_computed_high = len(clip.inputs) > 2 and clip.inputs[2] is not None and high is None
    return low is not None and float(low) == 0.0 and not has_computed_high and (high is None or float(high) > 0.0)
