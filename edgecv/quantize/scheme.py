"""Writing a quantized model the way a device wants it: signed activations, float biases.

The arithmetic stays: a signed code is the unsigned one less 128, and a float bias is the number its code stands for.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecv.config.device import Int8Scheme
from edgecv.errors import UsageError
from edgecv.graph.values import add_initializer, constant_array
from edgecv.quantize.affine import Range

_MIDDLE = 128
"""The uint8 code that becomes the signed 0."""


def symmetric_ranges(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return ranges whose zero has the code 128: codes -128..127 about 0 once they are signed."""
    return {name: _symmetric(span) for name, span in ranges.items()}


def write_scheme(model: ir.Model, scheme: Int8Scheme) -> None:
    """Rewrite a model of uint8 activations and int32 biases to ``scheme``, in place.

    Raises:
        UsageError: An activation to be signed has another zero point than 128.
    """
    if scheme.activations == "int8":
        _sign_activations(model.graph)
    if scheme.bias == "float32":
        _unpack_biases(model.graph)
    if scheme != Int8Scheme(weights_range=scheme.weights_range):
        _drop_unused_constants(model.graph)


def _symmetric(span: Range) -> Range:
    scale = max(span.high / (255 - _MIDDLE), -span.low / _MIDDLE, 0.0)
    return Range(-_MIDDLE * scale, (255 - _MIDDLE) * scale)


def _sign_activations(graph: ir.Graph) -> None:
    """Give every QuantizeLinear and DequantizeLinear of uint8 codes int8 codes with zero point 0."""
    signed: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.inputs) < 3:
            continue
        zero = constant_array(node.inputs[2])
        if zero is None or zero.dtype != np.uint8:
            continue
        point = node.inputs[2]
        assert point is not None  # it has an array
        codes = constant_array(node.inputs[0])
        if codes is not None:  # one number: code 1 and zero 0, or code 0 and zero 1
            centred = (codes.astype(np.int16) - zero).astype(np.int8)
            node.replace_input_with(0, add_initializer(graph, f"{node.inputs[0].name}_signed", centred))  # type: ignore[union-attr]
        elif (zero != _MIDDLE).any() and zero.size:
            raise UsageError(f"the activation at '{node.name}' has zero point {int(zero.reshape(-1)[0])}, not 128.")
        if point not in signed:
            signed[point] = add_initializer(graph, f"{point.name}_signed", np.zeros(zero.shape, np.int8))
        node.replace_input_with(2, signed[point])
        if node.op_type == "QuantizeLinear":
            node.outputs[0].type = ir.TensorType(ir.DataType.INT8)
    for node in graph:  # codes that are moved, not computed
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") and node.inputs and _is_moved(node):
            for output in node.outputs:
                output.type = ir.TensorType(ir.DataType.INT8)


def _is_moved(node: ir.Node) -> bool:
    first = node.inputs[0]
    return (
        first is not None
        and first.dtype == ir.DataType.INT8
        and all(o.dtype == ir.DataType.UINT8 for o in node.outputs)
    )


def _unpack_biases(graph: ir.Graph) -> None:
    """Store int32 biases as the float32 numbers they stand for."""
    for node in list(graph):
        if node.op_type != "DequantizeLinear":
            continue
        codes, scale = constant_array(node.inputs[0]), constant_array(node.inputs[1])
        if codes is None or scale is None or codes.dtype != np.int32:
            continue
        bias = add_initializer(graph, f"{node.outputs[0].name}_float", (codes.astype(np.float32) * scale))
        ir.convenience.replace_all_uses_with(node.outputs[0], bias)
        graph.remove(node, safe=True)


def _drop_unused_constants(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
