"""How a graph found somewhere else stores and computes its numbers."""

import onnx_ir as ir

_QUANTIZED_OPS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}
    | {"ConvInteger", "MatMulInteger", "QGemm", "MatMulIntegerToFloat", "MatMulNBits"}
)
_CODES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4)


def find_quantized(model: ir.Model) -> str:
    """Return what shows that a model is quantized, as the rest of "the model is quantized already (…)"; empty if not.

    Quantized are models in QDQ and QOperator form, of dynamic quantization, and with weights stored as codes that are
    unpacked by a Cast.
    """
    for node in model.graph.all_nodes():
        if node.op_type in _QUANTIZED_OPS:
            return f"node '{node.name}' is a {node.op_type}"
        stored = node.inputs[0] if node.op_type == "Cast" else None
        if stored is not None and stored.is_initializer() and stored.dtype in _CODES:
            return f"its weights are stored as {stored.dtype.name.lower()}, '{stored.name}'"
    return ""
