"""Rewriting the graph: QuantizeLinear and DequantizeLinear around what runs in int8, int8 weights, int32 biases."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array, make_node, unique_name
from edgecv.quantize.affine import LEVELS, Affine
from edgecv.quantize.int8_nodes import PASSING_OPS
from edgecv.quantize.placement import Placement
from edgecv.quantize.weights import QuantizedWeight, bias_scale, quantize_bias


def insert_quantizers(
    model: ir.Model,
    placement: Placement,
    affines: Mapping[str, Affine],
    weights: Mapping[str, QuantizedWeight],
) -> int:
    """Turn a float model into a QDQ model, in place.

    The dequantized copy of tensor ``t`` is called ``t_dequantized``; names and order depend on the graph alone.

    Args:
        model: The float model that ``placement`` was made for.
        placement: What to quantize.
        affines: Scale and zero point of every tensor of ``placement.tensors``.
        weights: Codes and scales for every node of ``placement.layers``.

    Returns:
        The number of float layers that had to be shielded; see :func:`_shield_float_layers`.
    """
    graph = model.graph
    int8 = {*placement.layers, *placement.others}
    values = {v.name: v for v in graph.inputs} | {o.name: o for node in graph for o in node.outputs}
    nodes = {node.name: node for node in graph}
    read = {name: nodes[name].inputs[0].name for name in placement.layers}  # type: ignore[union-attr]
    parameters: dict[str, list[ir.Value]] = {}
    for name in placement.tensors:
        root = placement.shared.get(name, name)
        if root not in parameters:
            parameters[root] = _parameters(graph, root, affines[root])
        _quantize_tensor(graph, values[name], parameters[root], int8, everyone=name in placement.written)
    for name in placement.layers:
        root = placement.shared.get(read[name], read[name])  # type: ignore[arg-type]
        _quantize_layer(graph, nodes[name], weights[name], affines[root].scale)
    for name in placement.others:
        _quantize_constants(graph, nodes[name])
    return _shield_float_layers(graph, set(placement.layers))


def _parameters(graph: ir.Graph, name: str, affine: Affine) -> list[ir.Value]:
    return [
        add_initializer(graph, f"{name}_scale", np.array(affine.scale, np.float32)),
        add_initializer(graph, f"{name}_zero_point", np.array(affine.zero_point, code_dtype(affine.levels))),
    ]


def code_dtype(levels: int) -> type[np.unsignedinteger]:
    """Return the type that holds activation codes 0..levels."""
    return np.uint8 if levels == LEVELS else np.uint16


def _quantize_tensor(
    graph: ir.Graph, value: ir.Value, parameters: list[ir.Value], int8: set[str], *, everyone: bool
) -> None:
    """Put Q and DQ behind ``value``; either everyone reads it dequantized, or the int8 nodes alone.

    An int8 node's result must go to the quantizer and nowhere else, or ONNX Runtime leaves the node in float.
    """
    readers = [u for u in value.uses() if everyone or u.node.name in int8]
    shape = value.shape
    quantized = make_node(
        "QuantizeLinear",
        [value, *parameters],
        unique_name(graph, f"{value.name}_quantized"),
        dtype=parameters[1].dtype,
        shape=None if shape is None else list(shape),
    )
    dequantized = make_node(
        "DequantizeLinear",
        [quantized.outputs[0], *parameters],
        unique_name(graph, f"{value.name}_dequantized"),
        dtype=ir.DataType.FLOAT,
        shape=None if shape is None else list(shape),
    )
    for node, index in readers:
        node.replace_input_with(index, dequantized.outputs[0])
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantized, dequantized])
    else:
        graph.insert_after(producer, [quantized, dequantized])


def _quantize_layer(graph: ir.Graph, node: ir.Node, weight: QuantizedWeight, input_scale: np.float32) -> None:
    """Store the weights of a layer as int8 and its bias as int32, each behind a DequantizeLinear."""
    source = node.inputs[1]
    assert source is not None  # a layer has a constant weight, by placement
    name = source.name
    zeros = np.zeros(len(weight.scale), np.int8)
    stored = [
        add_initializer(graph, f"{name}_quantized", weight.codes),
        add_initializer(graph, f"{name}_scale", weight.scale),
        add_initializer(graph, f"{name}_zero_point", zeros),
    ]
    dequantize_constant(graph, node, 1, stored, f"{name}_dequantized", axis=weight.axis)
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return
    bias_name = node.inputs[2].name  # type: ignore[union-attr]
    scale = bias_scale(weight.scale, input_scale)
    stored = [
        add_initializer(graph, f"{bias_name}_quantized", quantize_bias(bias, scale)),
        add_initializer(graph, f"{bias_name}_scale", scale),
    ]
    dequantize_constant(graph, node, 2, stored, f"{bias_name}_dequantized", axis=0)


def _quantize_constants(graph: ir.Graph, node: ir.Node) -> None:
    """Store the one-number constants of an Add or Mul as a uint8 code: 1 times the number itself, exactly."""
    if node.op_type in PASSING_OPS:
        return
    for index, value in enumerate(node.inputs):
        array = constant_array(value)
        if value is None or array is None:
            continue
        number = float(array.reshape(-1)[0])
        negative = number < 0
        stored = [
            add_initializer(graph, f"{value.name}_quantized", np.full(array.shape, 0 if negative else 1, np.uint8)),
            add_initializer(graph, f"{value.name}_scale", np.array(abs(number) or 1.0, np.float32)),
            add_initializer(graph, f"{value.name}_zero_point", np.array(1 if negative or not number else 0, np.uint8)),
        ]
        dequantize_constant(graph, node, index, stored, f"{value.name}_dequantized")


def dequantize_constant(
    graph: ir.Graph, node: ir.Node, index: int, stored: list[ir.Value], name: str, *, axis: int | None = None
) -> None:
    """Let input ``index`` of ``node`` read ``stored`` (codes, scale and maybe zero point) through a DequantizeLinear.

    ``axis`` is the dimension of the codes that the scale runs along; None when it is a single number.
    """
    attributes = {} if axis is None else {"axis": axis}
    dequantize = make_node(
        "DequantizeLinear",
        stored,
        unique_name(graph, name),
        dtype=ir.DataType.FLOAT,
        shape=list(stored[0].shape or ()),
        **attributes,
    )
    graph.insert_before(node, dequantize)
    node.replace_input_with(index, dequantize.outputs[0])


def _shield_float_layers(graph: ir.Graph, layers: set[str]) -> int:
    """Put a Sum of one input between a float layer and the quantizer behind it, where one also stands before it.

    ONNX Runtime gives float weights between a DequantizeLinear and a QuantizeLinear one int8 scale for the whole
    tensor (``onnxruntime/core/optimizer/qdq_transformer/weight_bias_quantization.cc``), which takes 20 dB from a layer
    that was kept in float for its accuracy. It looks through Relu, Clip and reordering only: any other node stops it.
    """
    shielded = 0
    for node in list(graph):
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or node.name in layers:
            continue
        if constant_array(node.inputs[1]) is None or not _reads_dequantized(node.inputs[0]):
            continue
        for quantize in _quantizers_behind(node.outputs[0]):
            value = quantize.inputs[0]
            assert value is not None
            copy = make_node("Sum", [value], unique_name(graph, f"{value.name}_float"), dtype=ir.DataType.FLOAT)
            graph.insert_before(quantize, copy)
            quantize.replace_input_with(0, copy.outputs[0])
            shielded += 1
    return shielded


def _reads_dequantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    if producer is None:
        return False
    if producer.op_type in PASSING_OPS:
        return _reads_dequantized(producer.inputs[0])
    return producer.op_type == "DequantizeLinear"


def _quantizers_behind(value: ir.Value) -> list[ir.Node]:
    found = []
    for use in value.uses():
        if use.node.op_type == "QuantizeLinear":
            found.append(use.node)
        elif use.node.op_type in ("Relu", "Clip", *PASSING_OPS):
            found += [q for o in use.node.outputs for q in _quantizers_behind(o)]
    return found
