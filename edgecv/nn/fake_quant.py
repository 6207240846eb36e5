"""Rounding to int8 inside a float network, with gradients: what QuantizeLinear and DequantizeLinear do, bit for bit.

Rounding has no useful gradient, so it passes the one of its output on to values inside the range (straight-through),
while scales and range ends get the gradient of the rounded value itself. Source: Esser et al., Learned Step Size
Quantization, ICLR 2020, equations 2 and 3; with two free ends: Bhalgat et al., LSQ+, CVPR workshops 2020.
"""

from typing import Any

import torch
from torch import Tensor

from edgecv.quantize.affine import LEVELS, Affine, Range, affine_of
from edgecv.quantize.weights import WEIGHT_LIMIT

_BIAS_LIMIT = float(torch.iinfo(torch.int32).max)


def fake_quantize(x: Tensor, low: Tensor, high: Tensor, levels: int = LEVELS) -> Tensor:
    """Return ``x`` as it looks after codes 0..``levels`` of the range ``low``..``high``.

    Args:
        x: float32, any shape.
        low: The range's lower end, float64, no dimension; it takes the gradient of the values below it.
        high: Its upper end.
        levels: 255 for uint8, 65535 for uint16.
    """
    return _apply(_Activation, x, low, high, affine_of(Range(low.item(), high.item()), levels))


def fake_quantize_weight(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return ``weight`` (float32) as it looks after int8 codes with one ``scale`` per channel.

    Args:
        weight: float32, any shape.
        scale: float32 of shape (channels,).
        axis: The dimension that counts channels.
    """
    return _apply(_Weight, weight, _along(scale, axis, weight.ndim))


def fake_quantize_bias(bias: Tensor, unit: Tensor) -> Tensor:
    """Return ``bias`` as it looks after int32 codes in units of ``unit``; both float32 of shape (channels,).

    The gradient goes to the bias alone: the unit is so small that its share cannot be seen.
    """
    return _apply(_Bias, bias, unit)


def weight_codes(weight: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return the int8 codes that :func:`fake_quantize_weight` decodes."""
    return _codes(weight, _along(scale, axis, weight.ndim)).to(torch.int8)


def activation_codes(x: Tensor, affine: Affine) -> Tensor:
    """Return the codes that :func:`fake_quantize` decodes."""
    dtype = torch.uint8 if affine.levels == LEVELS else torch.uint16
    return (_centred_codes(x, affine) + affine.zero_point).to(dtype)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor, affine: Affine) -> Tensor:
        rounded = _centred_codes(x, affine).mul_(float(affine.scale))
        ctx.save_for_backward(x, rounded)  # the layer behind keeps the rounded tensor anyway
        ctx.affine = affine
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        x, rounded = ctx.saved_tensors
        step, zero = float(ctx.affine.scale), ctx.affine.zero_point
        low, high = -zero * step, (ctx.affine.levels - zero) * step
        passed = torch.ops.aten.hardtanh_backward(gradient, x, low, high)
        _, wants_low, wants_high, _ = ctx.needs_input_grad
        if not (wants_low or wants_high):
            return passed, None, None, None
        # Inside, the rounding error moves with the step, (high - low) / levels; outside, the value is the end itself.
        inside = _dot(passed, rounded - x) / (high - low)
        clipped = gradient - passed
        both, weighted = (
            clipped.sum(dtype=torch.float64),
            _dot(clipped, rounded),
        )  # below + above, low·below + high·above
        above = (weighted - low * both) / (high - low)
        return passed, both - above - inside, above + inside, None


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return _codes(weight, scale).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        steps = weight / scale
        inside = steps.abs() <= WEIGHT_LIMIT
        slope = torch.where(inside, torch.round(steps) - steps, steps.clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT))
        return gradient * inside, (gradient * slope).sum_to_size(scale.shape)


class _Bias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, unit: Tensor) -> Tensor:
        codes = torch.round(bias.double() / unit.double()).clamp_(-_BIAS_LIMIT, _BIAS_LIMIT)
        return codes.float() * unit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _centred_codes(x: Tensor, affine: Affine) -> Tensor:
    """Divide, round half to even, clip: the order and the float32 arithmetic of QuantizeLinear."""
    return (x / float(affine.scale)).round_().clamp_(-affine.zero_point, affine.levels - affine.zero_point)


def _codes(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight / scale).round_().clamp_(-WEIGHT_LIMIT, WEIGHT_LIMIT)


def _along(scale: Tensor, axis: int, rank: int) -> Tensor:
    return scale.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)  # one row in memory: nothing has to be copied
    return torch.dot(a.reshape(-1), b.reshape(-1)).double()


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    result: Tensor = function.apply(*inputs)
    return result
