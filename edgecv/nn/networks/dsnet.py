"""A depthwise-separable student for small images, as wide as a budget of MACs allows."""

from collections import OrderedDict

import torch
from torch import nn

from edgecv.nn.networks import MAX_WIDTH, check_input_px, check_number

WIDTHS = (64, 160, 320)
"""Channels of the three stages at ``width`` 1. Blocks at full size cost most of the time and learn little for it: on
CIFAR-10, at equal MACs, three stages from half size on trained 1.6 times as fast as from full size and came further."""

STEM_WIDTH = 24

STEP = 8
"""Channels come in multiples of this: SIMD registers of the devices hold 4 to 16 values."""


class SeparableBlock(nn.Module):
    """Depthwise 3x3, BatchNorm, act, pointwise 1x1, BatchNorm, act; its input added where shapes allow.

    Source: Howard et al. 2017, arXiv:1704.04861, figure 3, with the residual of He et al. 2015.
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        self.conv_pw = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.adds = stride == 1 and channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        y: torch.Tensor = self.bn2(self.conv_pw(self.act1(self.bn1(self.conv_dw(x)))))
        out: torch.Tensor = self.act2(y + x if self.adds else y)
        return out


def dsnet(
    num_classes: int = 10, input_size: int = 32, width: float = 1.0, depth: int = 3, macs: float | None = None
) -> nn.Module:
    """Return a 3x3 stem and three stages of ``depth`` separable blocks at a half, a quarter and an eighth of the size.

    Args:
        num_classes: Length of the logits.
        input_size: Pixels of a side, 8 or more.
        width: Factor of the channels: 24 in the stem, then 64, 160, 320, in multiples of 8.
        depth: Blocks of each stage.
        macs: Instead of ``width``: the widest network of at most so many multiply-accumulates an image.

    Raises:
        ValueError: A value out of range, or ``macs`` below the narrowest network.
    """
    check_input_px(input_size)
    check_number("width", width, 0.05, MAX_WIDTH)
    check_number("depth", depth, 1, 32, whole=True)
    if macs is None:
        widths = _widths(width)
    else:
        check_number("macs", macs, 1, 1e12)
        factors = [step / 64 for step in range(1, int(64 * MAX_WIDTH) + 1)]
        fitting = [w for w in map(_widths, factors) if count_macs(w, depth, input_size, num_classes) <= macs]
        if not fitting:
            least = count_macs(_widths(factors[0]), depth, input_size, num_classes)
            raise ValueError(f"macs {macs:g} is below the {least} of the narrowest network of depth {depth}")
        widths = fitting[-1]
    return _build(widths, depth, num_classes)


def count_macs(widths: tuple[int, ...], depth: int, input_size: int, num_classes: int) -> int:
    """Return the multiply-accumulates of one image: convolutions and the linear layer."""
    stem, *stages = widths
    side, channels = input_size, stem
    total = side**2 * 27 * stem
    for out_channels in stages:
        side = (side + 1) // 2
        total += side**2 * (9 * channels + channels * out_channels)
        total += (depth - 1) * side**2 * (9 * out_channels + out_channels**2)
        channels = out_channels
    return total + channels * num_classes


def _widths(factor: float) -> tuple[int, ...]:
    return tuple(max(STEP, round(w * factor / STEP) * STEP) for w in (STEM_WIDTH, *WIDTHS))


def _build(widths: tuple[int, ...], depth: int, num_classes: int) -> nn.Sequential:
    stem, *stages = widths
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv_stem=nn.Conv2d(3, stem, 3, 1, 1, bias=False), bn1=nn.BatchNorm2d(stem), act1=nn.ReLU()
    )
    channels = stem
    for i, out_channels in enumerate(stages):
        blocks = [SeparableBlock(channels, out_channels, 2)]
        blocks += [SeparableBlock(out_channels, out_channels, 1) for _ in range(depth - 1)]
        parts[f"stage{i + 1}"] = nn.Sequential(*blocks)
        channels = out_channels
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(channels, num_classes)}
    return nn.Sequential(parts)
