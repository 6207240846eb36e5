"""BatchNormalization folded into the convolution (or Gemm) before it."""

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array, replace_node


def fold_batch_norm(model: ir.Model) -> int:
    """Fold every inference-mode BatchNormalization with constant statistics; return how many.

    ``y = scale · (x − mean) / sqrt(var + epsilon) + bias`` is an affine map per channel, so it goes into the weights
    and bias of a Conv or Gemm that feeds nothing else (Ioffe & Szegedy 2015, arXiv:1502.03167 §3.1).
    One that stands elsewhere (pre-activation networks such as DenseNet) is left as it is.
    """
    folded = 0
    for node in list(model.graph):
        if node.op_type == "BatchNormalization" and node.domain == "" and _fold(model.graph, node):
            folded += 1
    return folded


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    affine = _affine(norm)
    source = norm.inputs[0]
    producer = source.producer() if source is not None else None
    if (
        affine is None
        or source is None
        or producer is None
        or producer.domain != ""
        or producer.op_type not in ("Conv", "Gemm")
    ):
        return False
    if len(source.uses()) != 1 or source in graph.outputs:
        return False
    weight = constant_array(producer.inputs[1])
    bias = constant_array(producer.inputs[2]) if len(producer.inputs) > 2 and producer.inputs[2] is not None else None
    has_bias = len(producer.inputs) > 2 and producer.inputs[2] is not None
    if weight is None or (has_bias and bias is None):
        return False
    scale, shift = affine
    axis = _output_axis(producer)
    if axis is None or weight.shape[axis] != scale.size:
        return False
    shape = [1] * weight.ndim
    shape[axis] = -1
    new_weight = weight.astype(np.float64) * scale.reshape(shape)
    new_bias = (0.0 if bias is None else bias.astype(np.float64)) * scale + shift
    name = producer.inputs[1].name or producer.outputs[0].name  # type: ignore[union-attr]
    folded = ir.Node(
        "",
        producer.op_type,
        inputs=[
            producer.inputs[0],
            add_initializer(graph, f"{name}_folded", new_weight.astype(weight.dtype)),
            add_initializer(graph, f"{name}_folded_bias", new_bias.astype(weight.dtype)),
        ],
        attributes=list(producer.attributes.values()),
        num_outputs=1,
        name=producer.name,
    )
    replace_node(graph, norm, folded)
    graph.remove(producer, safe=True)
    return True


def _affine(norm: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    arrays = [constant_array(v) for v in norm.inputs[1:5]]
    training = norm.attributes.get("training_mode")
    if any(a is None for a in arrays) or len(arrays) != 4 or (training is not None and training.as_int()):
        return None
    scale, bias, mean, var = (a.astype(np.float64) for a in arrays if a is not None)
    epsilon = norm.attributes.get("epsilon")
    factor = scale / np.sqrt(var + (1e-5 if epsilon is None else epsilon.as_float()))  # default: ONNX spec
    return factor, bias - mean * factor


def _output_axis(node: ir.Node) -> int | None:
    if node.op_type == "Conv":
        return 0
    attributes = node.attributes
    alpha, beta = (attributes[k].as_float() if k in attributes else 1.0 for k in ("alpha", "beta"))
    if alpha != 1.0 or beta != 1.0:
        return None
    return 0 if "transB" in attributes and attributes["transB"].as_int() else 1
