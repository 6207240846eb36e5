"""What a graph takes and gives: uint8 images in, logits or probabilities out, batch and size dimensions."""

import numpy as np
import onnx_ir as ir

from edgecv.errors import UsageError
from edgecv.graph.values import add_initializer, make_node, unique_name
from edgecv.manifest import InputSpec

INPUT_NAME = "image"
LOGITS_NAME = "logits"
PROBABILITIES_NAME = "probabilities"


def set_uint8_input(model: ir.Model, spec: InputSpec) -> None:
    """Make the graph take uint8 images ``(N, H, W, 3)``: cast, layout and normalise move inside.

    ``(x / 255 − mean) / std`` is computed as ``x · 1/(255 · std) + (−mean / std)``, in float32.

    Args:
        model: A graph with one float32 input, ``(N, 3, H, W)`` or ``(N, H, W, 3)``.
        spec: Gives mean and std, and the layout the graph has now.

    Raises:
        UsageError: The graph's input is not such a tensor.
    """
    graph = model.graph
    old = only_image_input(model)
    if old.dtype != ir.DataType.FLOAT:
        raise UsageError(f"graph input '{old.name}' is {old.dtype}, not float32; nothing to move inside.")
    nchw = spec.layout == "NCHW"
    n, *rest = old.shape  # type: ignore[misc]
    height, width = (rest[1], rest[2]) if nchw else (rest[0], rest[1])
    new = ir.Value(
        name=INPUT_NAME if old.name == INPUT_NAME else unique_name(graph, INPUT_NAME),
        type=ir.TensorType(ir.DataType.UINT8),
        shape=ir.Shape([n, height, width, 3]),
    )
    old_name = old.name
    old.name = f"{old_name}_float"
    broadcast = (1, 3, 1, 1) if nchw else (1, 1, 1, 3)
    mean, std = np.array(spec.mean, np.float64), np.array(spec.std, np.float64)
    scale = add_initializer(graph, "normalize_scale", (1 / (255 * std)).astype(np.float32).reshape(broadcast))
    shift = add_initializer(graph, "normalize_shift", (-mean / std).astype(np.float32).reshape(broadcast))
    float_shape = [n, *rest]
    nodes = []
    source = new
    if nchw:  # on bytes: a quarter of the memory traffic of the same transpose on floats
        nodes.append(
            make_node(
                "Transpose",
                [source],
                "image_nchw",
                dtype=ir.DataType.UINT8,
                shape=float_shape,
                perm=[0, 3, 1, 2],
            )
        )
        source = nodes[-1].outputs[0]
    to = ir.DataType.FLOAT
    nodes.append(make_node("Cast", [source], "image_float", dtype=to, shape=float_shape, to=int(to)))
    nodes.append(make_node("Mul", [nodes[-1].outputs[0], scale], "image_scaled", dtype=to, shape=float_shape))
    nodes.append(make_node("Add", [nodes[-1].outputs[0], shift], "image_normalized", dtype=to, shape=float_shape))
    first = graph[0]
    graph.insert_before(first, nodes)
    ir.convenience.replace_all_uses_with(old, nodes[-1].outputs[0])
    graph.inputs[list(graph.inputs).index(old)] = new


def append_softmax(model: ir.Model) -> None:
    """Put probabilities in: Softmax over the last axis of the first output, which is renamed ``probabilities``."""
    graph = model.graph
    logits = graph.outputs[0]
    shape = None if logits.shape is None else list(logits.shape)
    node = make_node("Softmax", [logits], PROBABILITIES_NAME, dtype=logits.dtype, shape=shape, axis=-1)
    graph.append(node)
    graph.outputs[0] = node.outputs[0]


def name_interface(model: ir.Model) -> None:
    """Name the input ``image``, the first output ``logits`` and a symbolic batch dimension ``batch``."""
    graph = model.graph
    image = only_image_input(model)
    for value, name in ((image, INPUT_NAME), (graph.outputs[0], LOGITS_NAME)):
        if value.name != name:
            value.name = unique_name(graph, name)


def only_image_input(model: ir.Model, where: str = "the model") -> ir.Value:
    """Return the single real input of a graph; ``where`` names the file in messages.

    Raises:
        UsageError: There are several inputs, or the one is not a batch of RGB images.
    """
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    if len(inputs) != 1:
        names = ", ".join(str(v.name) for v in inputs)
        raise UsageError(f"{where} has {len(inputs)} inputs ({names}); edgecv takes networks with one image input.")
    value = inputs[0]
    if value.shape is None or len(value.shape) != 4:
        raise UsageError(
            f"{where}: input '{value.name}' has shape {value.shape}, not a batch of images (4 dimensions)."
        )
    if 3 not in (value.shape[1], value.shape[3]):
        raise UsageError(
            f"{where}: input '{value.name}' has shape {value.shape}, neither (N, 3, H, W) nor (N, H, W, 3)."
        )
    return value
