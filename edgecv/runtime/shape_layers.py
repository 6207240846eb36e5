"""Shapes of what layers give: convolutions, pools, products, recurrences."""

from collections.abc import Callable, Sequence
from typing import Any

from edgecv.runtime.element_types import integer
from edgecv.runtime.onnx_records import Node
from edgecv.runtime.operators import words
from edgecv.runtime.shape_values import Shape, Values, broadcast, ints, known


def _window(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    """Convolutions and pools, in every spelling: QLinearConv's weight is its fourth input; Nhwc* keep channels last."""
    x = known(shapes[0])
    last = node.op.startswith("Nhwc") or (node.op == "QLinearConv" and integer(node, "channels_last", 0) == 1)
    last = last or (node.op == "QLinearAveragePool" and integer(node, "channels_last", 0) == 1)
    spatial = x[1:-1] if last else x[2:]
    channels = x[-1] if last else x[1]
    kernel = ints(node, "kernel_shape")
    if "Conv" in node.op:
        weight = known(shapes[3 if node.op == "QLinearConv" else 1])
        channels = weight[0]
        kernel = kernel or weight[2:]
    kernel = kernel or (1,) * len(spatial)
    strides = ints(node, "strides") or (1,) * len(spatial)
    dilations = ints(node, "dilations") or (1,) * len(spatial)
    pads = ints(node, "pads") or (0,) * (2 * len(spatial))
    auto = (node.attributes["auto_pad"].s or b"") if "auto_pad" in node.attributes else b""
    up = integer(node, "ceil_mode", 0) == 1
    out = []
    for i, size in enumerate(spatial):
        if auto.startswith(b"SAME"):
            out.append(-(-size // strides[i]))
            continue
        room = size + pads[i] + pads[i + len(spatial)] - dilations[i] * (kernel[i] - 1) - 1
        out.append((-(-room // strides[i]) if up else room // strides[i]) + 1)
    return (x[0], *out, channels) if last else (x[0], channels, *out)


def _conv_transpose(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x, weight = known(shapes[0]), known(shapes[1])
    rank = len(x) - 2
    channels = weight[1] * integer(node, "group", 1)
    if given := ints(node, "output_shape"):
        return (x[0], channels, *given[-rank:])
    kernel = ints(node, "kernel_shape") or weight[2:]
    strides = ints(node, "strides") or (1,) * rank
    dilations = ints(node, "dilations") or (1,) * rank
    pads = ints(node, "pads") or (0,) * (2 * rank)
    extra = ints(node, "output_padding") or (0,) * rank
    spatial = (
        strides[i] * (x[i + 2] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + rank]
        for i in range(rank)
    )
    return (x[0], channels, *spatial)


def _global_pool(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    x = known(shapes[0])
    if integer(node, "channels_last", 0) == 1:
        return (x[0], *(1,) * (len(x) - 2), x[-1])
    return (*x[:2], *(1,) * (len(x) - 2))


def _product(a: Shape, b: Shape) -> Shape:
    left, right = known(a), known(b)
    rows = left[-2:-1] if len(left) > 1 else ()
    columns = right[-1:] if len(right) > 1 else ()
    return (*known(broadcast([left[:-2], right[:-2]])), *rows, *columns)


def _matmul(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    b = {"QLinearMatMul": 3}.get(node.op, 1)
    left, right = known(shapes[0]), known(shapes[b])
    if integer(node, "transA", 0):
        left = (*left[:-2], left[-1], left[-2])
    if integer(node, "transB", 0):
        right = (*right[:-2], right[-1], right[-2])
    return _product(left, right)


def _gemm(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    a, b = known(shapes[0]), known(shapes[3 if node.op == "QGemm" else 1])
    return a[1 if integer(node, "transA", 0) else 0], b[0 if integer(node, "transB", 0) else 1]


def _packed_product(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return (*known(shapes[0])[:-1], integer(node, "N", 1))


def _roi_align(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    pooled = ints(node, "pooled_shape")
    height, width = pooled or (integer(node, "output_height", 1), integer(node, "output_width", 1))
    return known(shapes[1])[0], known(shapes[0])[1], height, width


def _grid_sample(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return (*known(shapes[0])[:2], *known(shapes[1])[1:-1])


def _recurrent(node: Node, shapes: Sequence[Shape], values: Values) -> list[Shape]:
    length, batch, _ = known(shapes[0])
    directions, hidden = known(shapes[2])[0], integer(node, "hidden_size", 1)
    state = (directions, batch, hidden)
    return [(length, directions, batch, hidden), state, state]


def _einsum(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    equation = (node.attributes["equation"].s or b"").decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow or "." in equation:
        return None
    sizes: dict[str, int] = {}
    for term, shape in zip(left.split(","), shapes, strict=True):
        sizes.update(zip(term, known(shape), strict=True))
    return tuple(sizes[letter] for letter in right)


RULES: dict[str, Callable[[Node, Sequence[Shape], Values], Any]] = {
    **dict.fromkeys(
        words(
            """AveragePool Conv ConvInteger DeformConv FusedConv LpPool MaxPool NhwcConv NhwcFusedConv NhwcMaxPool
            QLinearAveragePool QLinearConv"""
        ),
        _window,
    ),
    **dict.fromkeys(words("ConvTranspose ConvTransposeWithDynamicPads"), _conv_transpose),
    **dict.fromkeys(words("GlobalAveragePool GlobalMaxPool GlobalLpPool QLinearGlobalAveragePool"), _global_pool),
    **dict.fromkeys(
        words(
            """DynamicQuantizeMatMul FusedMatMul FusedMatMulActivation MatMul MatMulInteger MatMulInteger16
            MatMulIntegerToFloat QLinearMatMul TransposeMatMul"""
        ),
        _matmul,
    ),
    **dict.fromkeys(words("Gemm FusedGemm QGemm"), _gemm),
    **dict.fromkeys(words("MatMulNBits MatMulBnb4"), _packed_product),
    **dict.fromkeys(words("LSTM GRU RNN"), _recurrent),
    **dict.fromkeys(words("RoiAlign MaxRoiPool"), _roi_align),
    "Einsum": _einsum,
    "GridSample": _grid_sample,
}
"""Operator -> its rule."""
