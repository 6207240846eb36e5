"""ONNX operators as differentiable PyTorch functions: those that exported vision networks are made of."""

import math
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgecv.nn.shape_operators import (
    SHAPE_OPERATORS,
    Arguments,
    Operator,
    attribute,
    axes_of,
    first_of,
    present,
    two_of,
)


def _pads(node: ir.Node, x: Tensor, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Return (before, after) of every spatial dimension, as ``auto_pad`` or ``pads`` says."""
    rank = len(kernel)
    strides = attribute(node, "strides") or [1] * rank
    dilations = attribute(node, "dilations") or [1] * rank
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = []
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size)
            few, many = total // 2, total - total // 2
            pairs.append((few, many) if auto == "SAME_UPPER" else (many, few))
        return pairs
    flat = attribute(node, "pads") if auto == "NOTSET" else None
    flat = list(flat or [0] * 2 * rank)
    return list(zip(flat[:rank], flat[rank:], strict=True))


def _padded(x: Tensor, pairs: Sequence[tuple[int, int]], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """Return the input padded by itself where the two sides differ, and the padding left to the operator."""
    if all(before == after for before, after in pairs):
        return x, [before for before, _ in pairs]
    flat = [n for pair in reversed(pairs) for n in pair]
    return functional.pad(x, flat, value=value), [0] * len(pairs)


def _conv(node: ir.Node, inputs: Arguments) -> Tensor:
    x, weight = two_of(inputs)
    x, padding = _padded(x, _pads(node, x, weight.shape[2:]))
    rank = weight.ndim - 2
    if rank == 2:  # depthwise convolutions take a half to a tenth of the time, and all that follows keeps the layout
        x = x.contiguous(memory_format=torch.channels_last)
    result: Tensor = torch.convolution(
        x,
        weight,
        present(inputs, 2),
        attribute(node, "strides") or [1] * rank,
        padding,
        attribute(node, "dilations") or [1] * rank,
        False,
        [0] * rank,
        attribute(node, "group", 1),
    )
    return result


def _gemm(node: ir.Node, inputs: Arguments) -> Tensor:
    a, b = two_of(inputs)
    a = a.t() if attribute(node, "transA", 0) else a
    b = b.t() if attribute(node, "transB", 0) else b
    alpha, beta, c = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0), present(inputs, 2)
    if c is not None and c.ndim == 1 and alpha == beta == 1:
        return functional.linear(a, b.t(), c)
    product = a @ b if alpha == 1 else a @ b * alpha
    return product if c is None else product + c * beta


def _pool(node: ir.Node, inputs: Arguments) -> Tensor:
    x = first_of(inputs)
    kernel = attribute(node, "kernel_shape")
    rank = len(kernel)
    if rank != 2 or any(d != 1 for d in attribute(node, "dilations") or [1]):
        raise NotImplementedError("only two dimensions without dilation")
    strides = attribute(node, "strides") or [1] * rank
    ceil = bool(attribute(node, "ceil_mode", 0))
    pairs = _pads(node, x, kernel)
    if node.op_type == "MaxPool":
        x, padding = _padded(x, pairs, -math.inf)
        return functional.max_pool2d(x, kernel, strides, padding, ceil_mode=ceil)
    count = bool(attribute(node, "count_include_pad", 0))
    if not count and any(before != after for before, after in pairs):
        raise NotImplementedError("uneven padding that is not counted")
    x, padding = _padded(x, pairs)
    return functional.avg_pool2d(x, kernel, strides, padding, ceil_mode=ceil, count_include_pad=count)


def _clip(node: ir.Node, inputs: Arguments) -> Tensor:
    low, high = present(inputs, 1), present(inputs, 2)
    bounds = [None if v is None else float(v) for v in (low, high)]
    return first_of(inputs) if bounds == [None, None] else torch.clamp(first_of(inputs), *bounds)


def _hard_sigmoid(node: ir.Node, inputs: Arguments) -> Tensor:
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return torch.clamp(first_of(inputs) * alpha + beta, 0.0, 1.0)


def _layer_norm(node: ir.Node, inputs: Arguments) -> Tensor:
    x, weight = two_of(inputs)
    axis = attribute(node, "axis", -1) % x.ndim
    return functional.layer_norm(x, x.shape[axis:], weight, present(inputs, 2), attribute(node, "epsilon", 1e-5))


def _batch_norm(node: ir.Node, inputs: Arguments) -> Tensor:
    x, scale, bias, mean, variance = (v for v in inputs if v is not None)
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attribute(node, "epsilon", 1e-5))


def _reduce(node: ir.Node, inputs: Arguments) -> Tensor:
    x, axes, keep = first_of(inputs), axes_of(node, inputs), bool(attribute(node, "keepdims", 1))
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        return x
    dims = axes or list(range(x.ndim))
    if node.op_type == "ReduceMax":
        return x.amax(dims, keepdim=keep)
    return x.mean(dims, keepdim=keep) if node.op_type == "ReduceMean" else x.sum(dims, keepdim=keep)


def _div(node: ir.Node, inputs: Arguments) -> Tensor:
    a, b = two_of(inputs)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _gelu(node: ir.Node, inputs: Arguments) -> Tensor:
    return functional.gelu(first_of(inputs), approximate=attribute(node, "approximate", "none"))


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, inputs: function(first_of(inputs))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, inputs: function(*two_of(inputs))


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of one or more inputs, taken pair by pair."""

    def run(node: ir.Node, inputs: Arguments) -> Tensor:
        result = first_of(inputs)
        for other in inputs[1:]:
            if other is not None:
                result = function(result, other)
        return result

    return run


OPERATORS: Mapping[str, Operator] = {
    **SHAPE_OPERATORS,
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _unary(lambda x: x),
    "Elu": lambda node, inputs: functional.elu(first_of(inputs), attribute(node, "alpha", 1.0)),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(first_of(inputs), attribute(node, "alpha", 0.01)),
    "MatMul": _binary(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": _pool,
    "Min": _folded(torch.minimum),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pow": _binary(torch.pow),
    "PRelu": _binary(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Relu": _unary(torch.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Softmax": lambda node, inputs: torch.softmax(first_of(inputs), attribute(node, "axis", -1)),
    "Softplus": _unary(functional.softplus),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _unary(torch.tanh),
}
"""Operator of the default domain to what computes it."""
