"""Weights stored small and unpacked while the model loads, by operators that ONNX Runtime computes once and for all.

``Cast`` and ``Mul`` of constants are folded when a session is made: the file is small, and the network then runs as the
float one does, with the same kernels. ``DequantizeLinear`` says the same and is *not* folded: ONNX Runtime keeps it for
int8 kernels, unpacks the weights in every run and leaves its blocked layouts unused (EfficientNet-Lite0, one thread,
ONNX Runtime 1.31: 14.4 ms with DequantizeLinear, 5.1 ms with Cast and Mul, 5.0 ms for the float file).
"""

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array, make_node, unique_name
from edgecv.quantize.weights import QuantizedWeight, least_error_scales

INT4_LIMIT = 7
"""Largest four-bit code in magnitude; symmetric as the eight-bit ones are."""

LARGEST_BLOCK = 32
"""Weights that share a scale of 16 bits at four bits each: 4.5 bits a weight."""

SMALLEST_BLOCK = 16
"""With fewer weights to a scale, as in depthwise convolutions, eight bits a weight and one scale a channel are near."""

HALF_LIMIT = 65504.0
"""Largest finite float16 (IEEE 754 binary16)."""


def store_float16(graph: ir.Graph, node: ir.Node) -> None:
    """Store the weight of ``node`` (input 1, constant, at most :data:`HALF_LIMIT`) as float16."""
    value, weight = _weight(node)
    half = add_initializer(graph, f"{value.name}_float16", weight.astype(np.float16))
    _unpack(graph, node, [_cast(graph, half, f"{value.name}_unpacked")])


def store_int8(graph: ir.Graph, node: ir.Node, quantized: QuantizedWeight) -> None:
    """Store the weight of ``node`` (input 1) as the int8 codes of ``quantized`` and a float32 scale a channel."""
    value, weight = _weight(node)
    shape = [1] * weight.ndim
    shape[quantized.axis] = -1
    codes = add_initializer(graph, f"{value.name}_int8", quantized.codes)
    scale = add_initializer(graph, f"{value.name}_scale", quantized.scale.reshape(shape))
    cast = _cast(graph, codes, f"{value.name}_codes")
    _unpack(graph, node, [cast, _node(graph, "Mul", [cast.outputs[0], scale], f"{value.name}_unpacked")])


def store_int4(graph: ir.Graph, node: ir.Node, axis: int) -> None:
    """Store the weight of ``node`` as four-bit codes, each block of up to 32 weights of a channel with its own scale.

    The model's opset must be 21 or above, which has four-bit tensors. :func:`int4_block` must be above 0.
    """
    value, weight = _weight(node)
    blocks, scales = _encode_int4(weight, axis)
    codes = add_initializer(graph, f"{value.name}_int4", blocks)
    scale = add_initializer(graph, f"{value.name}_scale", scales)
    shape = add_initializer(graph, f"{value.name}_shape", np.array(weight.shape, np.int64))
    first, second = _cast(graph, codes, f"{value.name}_codes"), _cast(graph, scale, f"{value.name}_scales")
    scaled = _node(graph, "Mul", [first.outputs[0], second.outputs[0]], f"{value.name}_blocks")
    unpacked = _node(graph, "Reshape", [scaled.outputs[0], shape], f"{value.name}_unpacked")
    _unpack(graph, node, [first, second, scaled, unpacked])


def int4_block(weight: np.ndarray, axis: int) -> int:
    """Return how many weights of a channel share a four-bit scale, or 0 where four bits are no use.

    That is the largest divisor of a channel's weights up to :data:`LARGEST_BLOCK`; 0 when it is below
    :data:`SMALLEST_BLOCK`, the scales would leave float16, or ``axis`` is neither the first dimension nor the last of
    two.
    """
    if axis and weight.ndim != 2:
        return 0
    row = weight.size // weight.shape[axis]
    block = max(b for b in range(1, LARGEST_BLOCK + 1) if row % b == 0)
    fits = float(np.abs(weight).max(initial=0.0)) / INT4_LIMIT <= HALF_LIMIT
    return block if block >= SMALLEST_BLOCK and fits else 0


def decode_int4(weight: np.ndarray, axis: int) -> np.ndarray:
    """Return what :func:`store_int4` makes of ``weight``, float32 of the same shape."""
    codes, scale = _encode_int4(weight, axis)
    return np.asarray(codes.astype(np.float32) * scale.astype(np.float32)).reshape(weight.shape)


def _encode_int4(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (channels, blocks, block), scales (channels, blocks, 1); with the channels last for ``axis`` 1."""
    block = int4_block(weight, axis)
    rows = np.moveaxis(weight, axis, 0).reshape(-1, block).astype(np.float32)
    scale = least_error_scales(rows, INT4_LIMIT).astype(np.float16)
    divisor = np.where(scale > 0, scale, np.float16(1)).astype(np.float32)
    codes = np.clip(np.rint(rows / divisor[:, None]), -INT4_LIMIT, INT4_LIMIT)
    channels = weight.shape[axis]
    codes, scale = codes.reshape(channels, -1, block), scale.reshape(channels, -1, 1)
    if axis:
        codes, scale = np.moveaxis(codes, 0, -1), np.moveaxis(scale, 0, -1)
    return np.ascontiguousarray(codes).astype(ml_dtypes.int4), np.ascontiguousarray(scale)


def _weight(node: ir.Node) -> tuple[ir.Value, np.ndarray]:
    value, weight = node.inputs[1], constant_array(node.inputs[1])
    assert value is not None  # both by the choice of layers
    assert weight is not None
    return value, weight


def _cast(graph: ir.Graph, value: ir.Value, name: str) -> ir.Node:
    to = ir.DataType.FLOAT
    return make_node("Cast", [value], unique_name(graph, name), dtype=to, to=to.value)


def _node(graph: ir.Graph, op_type: str, inputs: Sequence[ir.Value], name: str) -> ir.Node:
    return make_node(op_type, inputs, unique_name(graph, name), dtype=ir.DataType.FLOAT)


def _unpack(graph: ir.Graph, node: ir.Node, nodes: Sequence[ir.Node]) -> None:
    graph.insert_before(node, list(nodes))
    node.replace_input_with(1, nodes[-1].outputs[0])
