"""Taking the mean error that rounding the weights makes out of each layer, by shifting its bias.

A layer is linear, so the mean of its output error over images is the rounding error of the weights applied to the
mean input. Inputs behind a ReLU have a large mean, hence much of the error of a depthwise layer is a constant per
channel. Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section
4.2, with the mean input measured instead of derived from BatchNormalization.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array
from edgecv.quantize.int8_nodes import weight_axis
from edgecv.quantize.placement import Placement
from edgecv.quantize.sessions import open_graph
from edgecv.quantize.weights import QuantizedWeight, decode_weight


def layer_inputs(model: ir.Model, placement: Placement) -> tuple[str, ...]:
    """Return the tensors read by the layers of ``placement`` whose bias can be shifted, without repeats."""
    nodes = {node.name: node for node in model.graph}
    names = [str(nodes[n].inputs[0].name) for n in placement.layers if bias_slot(nodes[n])]  # type: ignore[union-attr]
    return tuple(dict.fromkeys(names))


def correct_biases(
    model: ir.Model,
    placement: Placement,
    weights: Mapping[str, QuantizedWeight],
    means: Mapping[str, np.ndarray],
) -> int:
    """Shift the float biases in ``model``, in place, by the mean error of the rounded weights.

    Args:
        model: The float model, before quantizers are inserted.
        placement: What will be quantized.
        weights: The rounded weights of every layer.
        means: Mean over the images of every tensor of :func:`layer_inputs`.

    Returns:
        The number of layers corrected. A MatMul is corrected in the Add behind it; without one it is left alone.
    """
    nodes = {node.name: node for node in model.graph}
    corrected = 0
    for name in placement.layers:
        node = nodes[name]
        slot = bias_slot(node)
        if slot is None:
            continue
        holder, index = slot
        weight = constant_array(node.inputs[1])
        assert weight is not None  # by placement
        error = decode_weight(weights[name]) - weight
        shift = _mean_output(model, node, error, means[str(node.inputs[0].name)])  # type: ignore[union-attr]
        subtract_from_bias(model.graph, holder, index, shift)
        corrected += 1
    return corrected


def bias_slot(node: ir.Node) -> tuple[ir.Node, int] | None:
    """Return the node and input index that hold a layer's bias, or None when it has no place for one.

    A layer without a place keeps the mean error of its rounded weights: :func:`correct_biases` leaves it alone.
    """
    if node.op_type in ("Conv", "Gemm"):
        return node, 2
    uses = list(node.outputs[0].uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add":
        index = 1 - uses[0].idx
        bias = constant_array(uses[0].node.inputs[index])
        if bias is not None and bias.ndim == 1 and bias.size == _channels(node):
            return uses[0].node, index
    return None


def _mean_output(model: ir.Model, node: ir.Node, weight: np.ndarray, mean_input: np.ndarray) -> np.ndarray:
    """Return what ``node`` with ``weight`` and no bias makes of ``mean_input``, averaged per channel: (channels,)."""
    source = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(mean_input.shape))
    kernel = ir.Value(name="w", const_value=ir.tensor(weight, name="w"))
    output = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT))
    layer = ir.Node("", node.op_type, [source, kernel], dict(node.attributes), outputs=[output])
    graph = ir.Graph([source], [output], nodes=[layer], initializers=[kernel], opset_imports=dict(model.opset_imports))
    session = open_graph(ir.Model(graph, ir_version=model.ir_version))
    result = np.asarray(session.run(None, {"x": mean_input})[0])
    axis = 1 if node.op_type == "Conv" else result.ndim - 1
    others = tuple(i for i in range(result.ndim) if i != axis)
    return np.asarray(result.mean(axis=others, dtype=np.float64))


def subtract_from_bias(graph: ir.Graph, holder: ir.Node, index: int, shift: np.ndarray) -> None:
    """Give ``holder`` a bias of its own, smaller by ``shift``."""
    old = holder.inputs[index] if len(holder.inputs) > index else None
    array = constant_array(old)
    base = np.zeros(len(shift), np.float32) if array is None else array
    name = f"{holder.name}_bias" if old is None else str(old.name)
    new = add_initializer(graph, f"{name}_corrected", (base.reshape(-1) - shift).astype(np.float32))
    if len(holder.inputs) <= index:
        holder.resize_inputs(index + 1)
    holder.replace_input_with(index, new)


def _channels(node: ir.Node) -> int:
    weight = constant_array(node.inputs[1])
    return 0 if weight is None else weight.shape[weight_axis(node)]
