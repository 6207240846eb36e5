"""Shapes of layers: what can be factorized, and what a piece of a factorization computes and costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """One convolution or linear layer without its weights; a linear layer is a 1×1 convolution.

    Attributes:
        channels_in: Of the input.
        channels_out: Of the output.
        kernel: ``(height, width)``.
        stride: ``(vertical, horizontal)``.
        padding: Zeros on each side, ``(vertical, horizontal)``.
        dilation: ``(vertical, horizontal)``.
        groups: As convolutions have them.
        bias: Whether there is one.
        linear: Whether it is a linear layer.
    """

    channels_in: int
    channels_out: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    linear: bool = False

    @property
    def params(self) -> int:
        """Weights and biases."""
        weights = self.channels_out * self.channels_in // self.groups * math.prod(self.kernel)
        return weights + self.bias * self.channels_out

    def output_size(self, size: Pair) -> Pair:
        """Return the output's height and width for an input's."""
        height, width = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(size, self.padding, self.dilation, self.kernel, self.stride, strict=True)
        )
        return height, width

    def macs(self, size: Pair) -> int:
        """Return the multiply-accumulates of one input of this height and width; biases do not count."""
        return math.prod(self.output_size(size)) * (self.params - self.bias * self.channels_out)


def chain_cost(pieces: Sequence[Geometry], size: Pair) -> tuple[int, int]:
    """Return (MACs, parameters) of layers one after the other, the first of an input of this size."""
    macs = 0
    for piece in pieces:
        macs += piece.macs(size)
        size = piece.output_size(size)
    return macs, sum(piece.params for piece in pieces)


def read_geometry(layer: nn.Module) -> Geometry:
    """Return a layer's geometry.

    Raises:
        ValueError: Why this layer cannot be factorized; only plain ``Conv2d`` and ``Linear`` are, since what a subclass
            does with its weight is not known.
    """
    if type(layer) is nn.Linear:
        return Geometry(layer.in_features, layer.out_features, bias=layer.bias is not None, linear=True)
    if type(layer) is not nn.Conv2d:
        raise ValueError(f"a {type(layer).__name__} does more with its weight than a plain convolution or linear layer")
    if layer.padding_mode != "zeros":
        raise ValueError(f"pads with '{layer.padding_mode}', not with zeros")
    if isinstance(layer.padding, str):
        raise ValueError(f"pads '{layer.padding}', which may be more on one side")  # noqa: TRY004 (no wrong type)
    return Geometry(
        layer.in_channels, layer.out_channels, _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding),
        _pair(layer.dilation), layer.groups, layer.bias is not None,
    )  # fmt: skip


def build_layer(geometry: Geometry, device: torch.device | None = None) -> nn.Conv2d | nn.Linear:
    """Return the layer with weights as its constructor draws them."""
    g = geometry
    if g.linear:
        return nn.Linear(g.channels_in, g.channels_out, bias=g.bias, device=device)
    return nn.Conv2d(
        g.channels_in, g.channels_out, g.kernel, g.stride, g.padding, g.dilation, g.groups, g.bias, device=device
    )


def along(
    geometry: Geometry, axis: int, channels_in: int, channels_out: int, *, groups: int, bias: bool = False
) -> Geometry:
    """Return a piece that works along one axis of the kernel only: its rows (0) or its columns (1)."""
    rows = axis == 0
    kernel, stride, padding, dilation = geometry.kernel, geometry.stride, geometry.padding, geometry.dilation
    return Geometry(
        channels_in,
        channels_out,
        (kernel[0], 1) if rows else (1, kernel[1]),
        (stride[0], 1) if rows else (1, stride[1]),
        (padding[0], 0) if rows else (0, padding[1]),
        (dilation[0], 1) if rows else (1, dilation[1]),
        groups,
        bias,
    )


def narrow(geometry: Geometry, channels_in: int, channels_out: int, *, groups: int = 1, bias: bool = False) -> Geometry:
    """Return a 1×1 piece: stride 1, no padding."""
    return Geometry(channels_in, channels_out, groups=groups, bias=bias, linear=geometry.linear)


def _pair(values: Sequence[int]) -> Pair:
    return int(values[0]), int(values[1])
