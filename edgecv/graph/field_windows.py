"""What windows, resizing and blocks do to a receptive field; see :mod:`edgecv.graph.receptive_field`."""

import math
from dataclasses import replace

import onnx_ir as ir

from edgecv.graph.field import Field, whole
from edgecv.graph.shapes import dims
from edgecv.graph.values import int_attribute


def window(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """Convolutions, transposed ones, and poolings over a window: the rules of Araujo, Norris and Sim."""
    if place != 0:
        return whole()
    if not field.axes:
        return field
    axis = field.axes[0] - 2
    if len(field.axes) > 1 or axis < 0 or field.stride is None:
        return whole(field.axes)
    size = _kernel(node)[axis]
    step, dilation = (_listed(node, key, axis, 1) for key in ("strides", "dilations"))
    reach = (size - 1) * dilation
    if node.op_type == "ConvTranspose":
        # Output o sees the inputs i with o = step · i + dilation · k − pad: ceil((reach + 1) / step) of them.
        inputs = math.ceil((reach + 1) / step)
        offset = field.offset + (_before(node, output, axis, reach, step) - reach / 2) / step * field.stride
        return replace(field, size=field.size + (inputs - 1) * field.stride, stride=field.stride / step, offset=offset)
    pad = _before(node, output, axis, reach, step)
    return replace(
        field,
        size=field.size + reach * field.stride,
        stride=field.stride * step,
        offset=field.offset + (reach / 2 - pad) * field.stride,
    )


def _kernel(node: ir.Node) -> tuple[int, ...]:
    if (attribute := node.attributes.get("kernel_shape")) is not None:
        return tuple(attribute.as_ints())
    weight = dims(node.inputs[3 if node.op_type == "QLinearConv" else 1])
    return (weight or ())[2:]


def _listed(node: ir.Node, key: str, axis: int, default: int) -> int:
    attribute = node.attributes.get(key)
    return default if attribute is None else attribute.as_ints()[axis]


def _before(node: ir.Node, output: ir.Value, axis: int, reach: int, step: int) -> int:
    """Return the padding in front; SAME_UPPER and SAME_LOWER share it out as onnx/docs/Operators.md says."""
    mode = node.attributes.get("auto_pad")
    text = "NOTSET" if mode is None else mode.as_string()
    source, result = dims(node.inputs[0]), dims(output)
    if text.startswith("SAME") and source is not None and result is not None:
        total = max((result[axis + 2] - 1) * step + reach + 1 - source[axis + 2], 0)
        return total // 2 if text == "SAME_UPPER" else total - total // 2
    return _listed(node, "pads", axis, 0)


def resized(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """Resize about pixel centres; interpolation looks at as many neighbours as its kernel has taps."""
    source, result = dims(node.inputs[0]) or (), dims(output) or ()
    if place != 0 or len(field.axes) != 1 or field.stride is None:
        return field if place == 0 and not field.axes else whole(field.axes)
    axis = field.axes[0]
    ratio = source[axis] / result[axis]
    mode = node.attributes.get("mode")
    taps = {"nearest": 1, "linear": 2, "cubic": 4}.get("nearest" if mode is None else mode.as_string(), 2)
    return replace(
        field,
        size=field.size + (taps - 1) * field.stride,
        stride=field.stride * ratio,
        offset=field.offset + (ratio - 1) / 2 * field.stride,
    )


def blocks(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """SpaceToDepth and DepthToSpace: a position becomes a block, or a block positions."""
    block = int_attribute(node, "blocksize", 1)
    if len(field.axes) != 1 or field.stride is None:
        return whole(field.axes)
    if node.op_type == "SpaceToDepth":
        size = field.size + (block - 1) * field.stride
        return replace(
            field, size=size, stride=field.stride * block, offset=field.offset + (block - 1) / 2 * field.stride
        )
    return replace(field, stride=field.stride / block, offset=math.nan)
