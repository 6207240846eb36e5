"""Shapes of what operators give that move, repeat, pick or count numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgecv.runtime.element_types import integer
from edgecv.runtime.onnx_records import Node
from edgecv.runtime.operators import words
from edgecv.runtime.shape_values import Shape, Values, absent, broadcast, given, ints, known


def _reshape(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    wanted = given(node, "shape", values, 1)
    x = shapes[0]
    if wanted is None:
        return None if x is None else (math.prod(x),)  # as many numbers, in whatever shape
    if x is None:
        return wanted if all(d > 0 for d in wanted) else None
    keep = not integer(node, "allowzero", 0)
    out = [x[i] if d == 0 and keep else d for i, d in enumerate(wanted)]
    if -1 in out:
        rest = math.prod(d for d in out if d != -1)
        out[out.index(-1)] = math.prod(x) // rest if rest else 0
    return tuple(out)


def _flatten(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, axis = known(shapes[0]), integer(node, "axis", 1)
    axis += len(x) if axis < 0 else 0
    return math.prod(x[:axis]), math.prod(x[axis:])


def _transpose(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x = known(shapes[0])
    return tuple(x[i] for i in ints(node, "perm") or range(len(x) - 1, -1, -1))


def _concat(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    parts = [known(s) for s in (shapes[2::3] if node.op == "QLinearConcat" else shapes)]
    out, axis = list(parts[0]), integer(node, "axis", 1)
    out[axis] = sum(p[axis] for p in parts)
    return tuple(out)


def _split(node: Node, shapes: Sequence[Shape], values: Values) -> list[Shape]:
    x, axis, parts = known(shapes[0]), integer(node, "axis", 0), len(node.outputs)
    size = -(-x[axis] // parts)
    sizes = given(node, "split", values, 1) or [size] * (parts - 1) + [x[axis] - size * (parts - 1)]
    axis += len(x) if axis < 0 else 0
    return [(*x[:axis], s, *x[axis + 1 :]) for s in sizes]


def _sliced(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x = list(known(shapes[0]))
    starts, ends = given(node, "starts", values, 1), given(node, "ends", values, 2)
    if starts is None or ends is None:
        return tuple(x)  # never more than the whole
    axes = given(node, "axes", values, 3) or range(len(starts))
    steps = given(node, "steps", values, 4) or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x[axis] = len(range(*slice(start, end, step).indices(x[axis]))) if end != -(1 << 63) else x[axis]
    return tuple(x)


def _gather(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, indices, axis = known(shapes[0]), known(shapes[1]), integer(node, "axis", 0)
    axis += len(x) if axis < 0 else 0
    return (*x[:axis], *indices, *x[axis + 1 :])


def _gather_nd(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, indices = known(shapes[0]), known(shapes[1])
    return (*indices[:-1], *x[integer(node, "batch_dims", 0) + indices[-1] :])


def _like_second(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return shapes[1]


def _squeeze(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x = known(shapes[0])
    if absent(node, "axes", 1):
        return tuple(d for d in x if d != 1)
    axes = given(node, "axes", values, 1)
    dropped = None if axes is None else {a % len(x) for a in axes}
    return None if dropped is None else tuple(d for i, d in enumerate(x) if i not in dropped)


def _unsqueeze(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, axes = list(known(shapes[0])), given(node, "axes", values, 1)
    if axes is None:
        return None
    rank = len(x) + len(axes)
    for axis in sorted(a % rank for a in axes):
        x.insert(axis, 1)
    return tuple(x)


def _expand(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    wanted = given(node, "shape", values, 1)
    return None if wanted is None else broadcast([shapes[0], wanted])


def _tile(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    wanted = given(node, "repeats", values, 1)
    return None if wanted is None else tuple(d * n for d, n in zip(known(shapes[0]), wanted, strict=True))


def _pad(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, pads = list(known(shapes[0])), given(node, "pads", values, 1)
    if pads is None:
        return None
    axes = given(node, "axes", values, 3) or range(len(x))
    for i, axis in enumerate(axes):
        x[axis] += pads[i] + pads[i + len(pads) // 2]
    return tuple(x)


def _resize(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x = known(shapes[0])
    axes = [a % len(x) for a in ints(node, "axes") or range(len(x))]
    sizes = values[3] if len(values) > 3 else None
    scales = values[2] if len(values) > 2 else values[1] if len(values) > 1 else None
    attribute = node.attributes.get("scales")
    factors = attribute.floats if attribute is not None else None if scales is None else tuple(np.ravel(scales))
    out = list(x)
    if sizes is not None:
        for axis, size in zip(axes, np.ravel(sizes), strict=True):
            out[axis] = int(size)
    elif factors:
        for axis, factor in zip(axes, factors, strict=True):
            out[axis] = math.floor(x[axis] * float(factor))
    else:
        return None
    return tuple(out)


def _rank(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return (len(known(shapes[0])),)


def _constant_of_shape(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return None if values[0] is None else tuple(int(d) for d in np.ravel(values[0]))


def _range_of(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    if any(v is None for v in values):
        return None
    start, limit, step = (float(np.ravel(v)[0]) for v in values if v is not None)
    return (max(0, math.ceil((limit - start) / step)),)


def _reduce(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, keep = known(shapes[0]), integer(node, "keepdims", 1)
    axes: tuple[int, ...] | None = None
    if node.op.startswith("Arg"):
        axes = (integer(node, "axis", 0),)
    elif absent(node, "axes", 1):
        axes = tuple(range(len(x)))
    else:
        axes = given(node, "axes", values, 1)
    if axes is None:
        return x
    gone = {a % len(x) for a in axes}
    return tuple(1 if i in gone else d for i, d in enumerate(x) if keep or i not in gone)


def _top_k(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, axis = list(known(shapes[0])), integer(node, "axis", -1)
    k = (integer(node, "k", 0),) if "k" in node.attributes else given(node, "k", values, 1)
    x[axis] = k[0] if k else x[axis]
    return tuple(x)


def _one_hot(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, depth, axis = list(known(shapes[0])), values[1], integer(node, "axis", -1)
    if depth is None:
        return None
    x.insert(axis + len(x) + 1 if axis < 0 else axis, int(np.ravel(depth)[0]))
    return tuple(x)


def _to_space(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    n, c, h, w = known(shapes[0])
    block = integer(node, "blocksize", 1)
    if node.op == "DepthToSpace":
        return n, c // block**2, h * block, w * block
    return n, c * block**2, h // block, w // block


def _non_zero(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x = known(shapes[0])
    return len(x), math.prod(x)


def _boxes(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    batch, boxes, _ = known(shapes[0])
    return batch * boxes * known(shapes[1])[1], 3


def _sized(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    """Operators that are told a size: Col2Im, AffineGrid, windows, MaxUnpool, CenterCropPad."""
    told = values[{"MaxUnpool": 2}.get(node.op, 0 if node.op.endswith("Window") else 1)]
    if told is None:
        return None
    size = tuple(int(d) for d in np.ravel(told))
    if node.op == "Col2Im":
        x = known(shapes[0])
        return (x[0], x[1], *size)
    return (*size, 2) if node.op == "AffineGrid" else size


RULES: dict[str, Callable[[Node, Sequence[Shape], Values], Any]] = {
    **dict.fromkeys(
        words(
            """ArgMax ArgMin QLinearReduceMean ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
            ReduceMin ReduceProd ReduceSum ReduceSumInteger ReduceSumSquare"""
        ),
        _reduce,
    ),
    **dict.fromkeys(words("Concat QLinearConcat"), _concat),
    **dict.fromkeys(words("Resize Upsample"), _resize),
    **dict.fromkeys(words("DepthToSpace SpaceToDepth"), _to_space),
    **dict.fromkeys(words("AffineGrid BlackmanWindow CenterCropPad Col2Im HammingWindow HannWindow MaxUnpool"), _sized),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _like_second,
    "GatherND": _gather_nd,
    "NonMaxSuppression": _boxes,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range_of,
    "Reshape": _reshape,
    "Shape": _rank,
    "Slice": _sliced,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operator -> its rule."""
