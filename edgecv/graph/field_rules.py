"""What each operator does to a receptive field along one axis of the image; see :mod:`edgecv.graph.receptive_field`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx_ir as ir

from edgecv.graph.field import Field, whole
from edgecv.graph.field_windows import blocks, resized, window
from edgecv.graph.shapes import dims
from edgecv.graph.values import constant_array, int_attribute

_Shape = tuple[int, ...]


def through(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """Return the field of ``output`` by way of the input number ``place``, whose field is ``field``."""
    source, result = dims(node.inputs[place]), dims(output)
    if source is None or result is None or node.op_type in _MIXING:
        return whole()
    rule = _RULES.get(node.op_type)
    if rule is not None:
        return rule(node, output, place, field)
    return _broadcast(source, result, field)


def _broadcast(source: _Shape, result: _Shape, field: Field) -> Field:
    """Elementwise operators: axes align at the right; what is not of the broadcast shape mixes in an unknown way."""
    shift = len(result) - len(source)
    if shift < 0 or any(d not in (1, result[i + shift]) for i, d in enumerate(source)):
        return whole()
    return replace(field, axes=tuple(a + shift for a in field.axes if source[a] == result[a + shift]))


def _globally(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    return whole()


def _everywhere(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    return whole(field.axes, field.stride)


def _along(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """Mix along one axis (Softmax), or from one to the last (LayerNormalization)."""
    if place != 0:
        return whole(field.axes)
    rank = len(dims(node.inputs[0]) or ())
    axis = int_attribute(node, "axis", -1) % rank
    mixed = range(axis, rank) if node.op_type in ("LayerNormalization", "RMSNormalization") else (axis,)
    return whole(field.axes, field.stride) if set(mixed) & set(field.axes) else field


def _reduced(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    source = dims(node.inputs[0]) or ()
    given = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None and (attribute := node.attributes.get("axes")) is not None:
        axes = list(attribute.as_ints())
    elif "axis" in node.attributes or node.op_type.startswith("Arg"):
        axes = [int_attribute(node, "axis", 0)]
    else:
        axes = list(range(len(source))) if given is None else [int(a) for a in given.flat]
    gone = {a % len(source) for a in axes}
    if gone & set(field.axes):
        return whole()
    if int_attribute(node, "keepdims", 1):
        return field
    return replace(field, axes=tuple(a - sum(g < a for g in gone) for a in field.axes))


def _product(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """Matrix products sum over the last axis of the first factor and the last but one of the second."""
    source, result = dims(node.inputs[place]) or (), dims(output) or ()
    first = place == 0
    last = len(source) - 1
    summed = last if first else max(last - 1, 0)
    if int_attribute(node, "transA" if first else "transB", 0):
        summed = last - 1 if first else last
    if summed in field.axes:
        return whole(())
    if int_attribute(node, "transA" if first else "transB", 0):
        return replace(field, axes=tuple(1 - a for a in field.axes))
    shift = len(result) - len(source)
    return replace(field, axes=tuple(a + shift for a in field.axes)) if shift >= 0 else whole()


def _reshaped(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """Follow axes through the groups in which the products of the old and the new shape agree."""
    if place != 0:
        return whole()
    source, result = dims(node.inputs[0]) or (), dims(output) or ()
    touched: list[int] = []
    stride = field.stride
    for old, new in _groups(source, result):
        if not set(old) & set(field.axes):
            continue
        wide = [a for a in new if result[a] > 1]
        touched += wide
        if len([a for a in old if source[a] > 1]) > 1 or len(wide) > 1:
            stride = None
    return replace(field, axes=tuple(touched), stride=stride)


def _groups(source: _Shape, result: _Shape) -> list[tuple[list[int], list[int]]]:
    """Cut two shapes of equally many elements into the smallest runs of axes with equal products.

    >>> _groups((1, 8, 6, 6), (1, 8, 36))
    [([0], [0]), ([1], [1]), ([2, 3], [2])]
    """
    groups = []
    i = j = 0
    while i < len(source) or j < len(result):
        old, new = ([i], [j])
        left, right = (source[i] if i < len(source) else 1), (result[j] if j < len(result) else 1)
        while left != right:
            if left < right and old[-1] + 1 < len(source):
                old.append(old[-1] + 1)
                left *= source[old[-1]]
            elif new[-1] + 1 < len(result):
                new.append(new[-1] + 1)
                right *= result[new[-1]]
            else:
                break
        i, j = old[-1] + 1, new[-1] + 1
        groups.append(([a for a in old if a < len(source)], [a for a in new if a < len(result)]))
    return groups


def _transposed(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    rank = len(dims(node.inputs[0]) or ())
    attribute = node.attributes.get("perm")
    order = list(range(rank))[::-1] if attribute is None else list(attribute.as_ints())
    return replace(field, axes=tuple(sorted(order.index(a) for a in field.axes)))


def _sliced(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    arrays = [constant_array(v) for v in node.inputs[1:]]
    if place != 0 or len(arrays) < 2 or any(a is None for a in arrays[:2]):
        return replace(field, stride=None, offset=math.nan) if place == 0 else whole()
    source = dims(node.inputs[0]) or ()
    starts = [int(a) for a in arrays[0].flat]  # type: ignore[union-attr]
    axes = [int(a) % len(source) for a in arrays[2].flat] if len(arrays) > 2 and arrays[2] is not None else None
    steps = [int(a) for a in arrays[3].flat] if len(arrays) > 3 and arrays[3] is not None else [1] * len(starts)
    for axis, start, step in zip(axes or range(len(starts)), starts, steps, strict=False):
        if axis in field.axes:
            if len(field.axes) > 1 or field.stride is None or step < 1:
                return replace(field, stride=None, offset=math.nan)
            first = min(start + source[axis] if start < 0 else start, source[axis])
            field = replace(field, offset=field.offset + max(first, 0) * field.stride, stride=field.stride * step)
    return field


def _padded(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    pads = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if place != 0:
        return whole()
    if not field.axes:
        return field
    if pads is None or len(node.inputs) > 3 or len(field.axes) > 1 or field.stride is None:
        return replace(field, offset=math.nan)
    return replace(field, offset=field.offset - int(pads.flat[field.axes[0]]) * field.stride)


def _gathered(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    if place != 0:
        return whole()
    source, index = dims(node.inputs[0]) or (), dims(node.inputs[1]) or ()
    axis = int_attribute(node, "axis", 0) % len(source)
    if axis in field.axes:
        kept = tuple(a for a in field.axes if a != axis)
        return Field(kept + (() if not index else (axis,)), field.size, None, math.nan)
    return replace(field, axes=tuple(a + len(index) - 1 if a > axis else a for a in field.axes))


def _cut(node: ir.Node, output: ir.Value, place: int, field: Field) -> Field:
    """Split and Concat: a position keeps its field; in a row it stays when the cut is along another axis."""
    rank = len(dims(output) or ())
    axis = int_attribute(node, "axis", 0) % rank
    return replace(field, stride=None, offset=math.nan) if axis in field.axes else field


_MIXING = (
    "Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention", "Einsum", "LSTM", "GRU", "RNN",
    "GridSample", "CumSum", "NonZero", "TopK", "RoiAlign", "MaxRoiPool", "DeformConv", "NonMaxSuppression", "If",
    "Loop", "Scan", "STFT", "DFT",
)  # fmt: skip
"""Operators whose positions see what the rules below do not follow."""

_RULES: Mapping[str, Callable[[ir.Node, ir.Value, int, Field], Field]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "FusedConv", "ConvTranspose"), window),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"), window),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool"), _globally),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"), _everywhere),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "RMSNormalization"), _along),
    **dict.fromkeys(("LpNormalization", "QLinearSoftmax"), _along),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"), _reduced),
    **dict.fromkeys(("ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin"), _reduced),
    **dict.fromkeys(("MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "QGemm"), _product),
    **dict.fromkeys(("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits", "FusedGemm"), _product),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshaped),
    **dict.fromkeys(("SpaceToDepth", "DepthToSpace"), blocks),
    **dict.fromkeys(("Split", "Concat", "QLinearConcat"), _cut),
    "Transpose": _transposed, "Slice": _sliced, "Pad": _padded, "Resize": resized, "Upsample": resized,
    "Gather": _gathered,
}  # fmt: skip
