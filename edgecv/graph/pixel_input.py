"""Normalisation with one scale and one integer zero point, so that an image's own bytes can be its int8 codes.

``(pixel − mean_c) · a_c`` differs by channel; ``(pixel − zero) · a`` with one ``a`` and an integer ``zero`` does not,
and is what a DequantizeLinear computes. The rest goes into the first convolution: ``a_c / a`` into its weights, and
``zero − mean_c`` into a fourth input channel that is constant inside the image. Padding is 0 in that channel too, so
the border is as exact as the middle, which no bias can achieve.

A factor for each channel is slow in an int8 graph: ONNX Runtime makes the channels innermost, and a Mul and an Add that
repeat every three numbers take 0.85 of the 3.2 ms of EfficientNet-Lite0 (one thread, AVX512-VNNI, ONNX Runtime 1.31).

The fourth channel pays for itself: ONNX Runtime's int8 convolution without a copy of the image takes multiples of four
channels. On the same machine, at 224x224, a 3x3 stem of 32 channels takes 0.29 ms with 3 channels and 0.21 with 4, a
7x7 stem of 64 0.87 and 0.76, the making of the fourth included. Where windows do not overlap it loses: 16x16 0.09 and
0.17.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array, make_node, unique_name

_SAME_PIXEL = 1e-4
"""Zero points this near (in pixel values of 0..255) are one: float32 leaves 1e-5 of 127 · (1/128)."""

_INSIDE = 255
"""Code of the fourth channel inside the image: the farthest from any zero point below 255, hence the finest weights."""


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The way from the graph's input to the first convolution.

    Attributes:
        image: The uint8 input, (N, H, W, 3).
        normalized: The float value the convolution reads, (N, 3, H, W).
        scale: float64 of shape (3,); ``normalized = scale · pixel + shift``.
        shift: float64 of shape (3,).
        conv: The convolution.
    """

    image: ir.Value
    normalized: ir.Value
    scale: np.ndarray
    shift: np.ndarray
    conv: ir.Node


def normalize_in_first_conv(model: ir.Model) -> int:
    """Give a uint8 image one scale and one integer zero point, in place; return 1 when it was done.

    Exact up to float32 rounding. Left alone: an image that is read by anything but one convolution, and padding with
    unequal means in a graph of any image size, where the fourth channel cannot be made.
    """
    pixels = _find(model.graph)
    if pixels is None:
        return 0
    means = -pixels.shift / pixels.scale
    zero = int(np.clip(np.rint(means.mean()), 0, 254))
    offset = zero - means
    common = bool((np.abs(offset) < _SAME_PIXEL).all())
    planes = _overlapping(pixels.conv) and all(isinstance(d, int) for d in list(pixels.image.shape or ())[1:3])
    if not common and not planes and _padded(pixels.conv):
        return 0
    if planes and any(u.node is not pixels.conv for u in pixels.normalized.uses()):
        return 0
    scale = np.float32(pixels.scale.mean())
    weight, bias = _rescaled(pixels, scale, np.zeros(3) if common else offset, zero, planes=planes)
    source = _normalized(model.graph, pixels, scale, zero, planes=planes)
    conv, graph = pixels.conv, model.graph
    name = conv.inputs[1].name  # type: ignore[union-attr]
    conv.replace_input_with(1, add_initializer(graph, f"{name}_of_pixels", weight))
    if bias is not None:
        if len(conv.inputs) < 3:
            conv.resize_inputs(3)
        conv.replace_input_with(2, add_initializer(graph, f"{name}_bias_of_pixels", bias))
    ir.convenience.replace_all_uses_with(pixels.normalized, source)
    return 1


def _find(graph: ir.Graph) -> _Pixels | None:
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    if len(inputs) != 1 or inputs[0].dtype != ir.DataType.UINT8 or inputs[0].shape is None:
        return None
    value, scale, shift = inputs[0], np.ones(3), np.zeros(3)
    if len(value.shape or ()) != 4 or value.shape[3] != 3:  # type: ignore[index]
        return None
    turned = False
    while True:
        readers = [u.node for u in value.uses() if u.node.op_type != "Shape"]
        if len(readers) != 1 or value.is_graph_output():
            return None
        node = readers[0]
        if node.op_type == "Conv" and node.inputs[0] is value:
            known = turned and (scale > 0).all() and _is_plain(node)
            return _Pixels(inputs[0], value, scale, shift, node) if known else None
        if node.op_type == "Transpose" and node.attributes["perm"].as_ints() == (0, 3, 1, 2):
            turned = True
        elif node.op_type in ("Mul", "Add", "Sub", "Div"):
            constant = _per_channel(node, turned=turned)
            if constant is None or (node.op_type in ("Sub", "Div") and node.inputs[0] is not value):
                return None
            if node.op_type in ("Mul", "Div"):
                factor = constant if node.op_type == "Mul" else 1 / constant
                scale, shift = scale * factor, shift * factor
            else:
                shift = shift + (constant if node.op_type == "Add" else -constant)
        elif node.op_type not in ("Cast", "Identity"):
            return None
        value = node.outputs[0]


def _per_channel(node: ir.Node, *, turned: bool) -> np.ndarray | None:
    """Return the constant of an arithmetic node as float64 (3,), or None when it is not one number per channel."""
    arrays = [a for v in node.inputs if (a := constant_array(v)) is not None]
    if len(arrays) != 1:
        return None
    array = arrays[0].astype(np.float64)
    place = (3, 1, 1) if turned else (3,)
    if array.ndim > 4 or array.size not in (1, 3) or (array.size == 3 and array.shape[-len(place) :] != place):
        return None
    return np.broadcast_to(array.reshape(-1), (3,))


def _is_plain(conv: ir.Node) -> bool:
    weight = constant_array(conv.inputs[1])
    group = conv.attributes.get("group")
    auto_pad = conv.attributes.get("auto_pad")
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    return (
        weight is not None
        and weight.dtype == np.float32
        and weight.ndim == 4
        and weight.shape[1] == 3
        and (group is None or group.as_int() == 1)
        and (auto_pad is None or auto_pad.as_string() in ("", "NOTSET"))
        and (bias is None or constant_array(bias) is not None)
    )


def _padded(conv: ir.Node) -> bool:
    return any(_ints(conv, "pads", ()))


def _overlapping(conv: ir.Node) -> bool:
    """Tell whether neighbouring windows share pixels; patches that do not gain nothing from a fourth channel."""
    weight = constant_array(conv.inputs[1])
    assert weight is not None  # by _is_plain
    return any(k > s for k, s in zip(weight.shape[2:], _ints(conv, "strides", (1, 1)), strict=True))


def _ints(node: ir.Node, key: str, default: Sequence[int]) -> Sequence[int]:
    attribute = node.attributes.get(key)
    return default if attribute is None else attribute.as_ints()


def _rescaled(
    pixels: _Pixels, scale: np.float32, offset: np.ndarray, zero: int, *, planes: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the weight for the new input, and the bias where it changes."""
    conv = pixels.conv
    old = constant_array(conv.inputs[1])
    assert old is not None  # by _is_plain
    weight = old.astype(np.float64) * (pixels.scale / scale).reshape(1, 3, 1, 1)
    moved = (weight * (scale * offset).reshape(1, 3, 1, 1)).sum(axis=1, keepdims=True)
    if planes:
        inside = float(scale) * (_INSIDE - zero)
        return np.concatenate([weight, moved / inside], axis=1).astype(np.float32), None
    if not offset.any():
        return weight.astype(np.float32), None
    bias = constant_array(conv.inputs[2]) if len(conv.inputs) > 2 else None
    base = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    return weight.astype(np.float32), (base + moved.sum(axis=(1, 2, 3))).astype(np.float32)


def _normalized(graph: ir.Graph, pixels: _Pixels, scale: np.float32, zero: int, *, planes: bool) -> ir.Value:
    """Build input → bytes (N, 3 or 4, H, W) → float → one scale, one shift, and return the last value."""
    image = pixels.image
    batch, height, width, _ = image.shape  # type: ignore[misc]
    name = f"{image.name}_pixels"
    uint8, to = ir.DataType.UINT8, ir.DataType.FLOAT
    nodes: list[ir.Node] = []

    def add(
        op_type: str, inputs: Sequence[ir.Value], suffix: str, dtype: ir.DataType, shape: object, **kw: object
    ) -> None:
        output = unique_name(graph, f"{name}{suffix}")
        nodes.append(make_node(op_type, list(inputs), output, dtype=dtype, shape=shape, **kw))  # type: ignore[arg-type]

    def last() -> ir.Value:
        return nodes[-1].outputs[0]

    if planes:  # written so that ONNX Runtime does not move the transpose behind the Pad, where it is five times slower
        area = height * width
        flat = add_initializer(graph, f"{name}_flat_shape", np.array([0, area, 3], np.int64))
        pads = add_initializer(graph, f"{name}_pads", np.array([0, 0, 0, 0, 1, 0], np.int64))
        inside = add_initializer(graph, f"{name}_inside", np.array(_INSIDE, np.uint8))
        full = add_initializer(graph, f"{name}_shape", np.array([0, 4, height, width], np.int64))
        add("Reshape", [image, flat], "_flat", uint8, [batch, area, 3])
        add("Transpose", [last()], "_planes", uint8, [batch, 3, area], perm=[0, 2, 1])
        add("Pad", [last(), pads, inside], "_padded", uint8, [batch, 4, area])
        add("Reshape", [last(), full], "", uint8, [batch, 4, height, width])
    else:
        add("Transpose", [image], "", uint8, [batch, 3, height, width], perm=[0, 3, 1, 2])
    shape = list(last().shape or ())
    factor = add_initializer(graph, f"{name}_factor", np.array(scale, np.float32))
    shift = add_initializer(graph, f"{name}_shift", np.array(-zero * scale, np.float32))
    add("Cast", [last()], "_float", to, shape, to=int(to))
    add("Mul", [last(), factor], "_scaled", to, shape)
    add("Add", [last(), shift], "_normalized", to, shape)
    graph.insert_before(graph[0], nodes)
    return last()
