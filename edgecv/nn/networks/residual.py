"""Residual networks for CIFAR and the plain networks of the same layers: the degradation experiment.

Source: He et al. 2015, arXiv:1512.03385, section 4.2: 6n+2 layers, n blocks at each of three sizes.
"""

from collections import OrderedDict

import torch
from torch import nn

from edgecv.nn.networks import MAX_WIDTH, check_input_px, check_number

SHORTCUTS = ("pad", "project", "none")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and, unless ``shortcut`` is ``none``, their input added before the ReLU.

    Where the size changes the shortcut takes every second pixel and pads zero channels (the paper's option A, no
    parameters), or projects with a 1x1 convolution (option B).
    """

    def __init__(self, channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.stride, self.shortcut = stride, shortcut
        self.project: nn.Module | None = None
        if shortcut == "project" and (stride != 1 or channels != out_channels):
            conv = nn.Conv2d(channels, out_channels, 1, stride, bias=False)
            self.project = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        y: torch.Tensor = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        if self.project is not None:
            y = y + self.project(x)
        elif self.shortcut != "none":
            if self.stride != 1:
                x = x[:, :, :: self.stride, :: self.stride]
            missing = y.shape[1] - x.shape[1]
            if missing:  # as many before as after
                x = nn.functional.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2))
            y = y + x
        out: torch.Tensor = self.act2(y)
        return out


def residual(
    num_classes: int = 10, input_size: int = 32, blocks: int = 3, width: float = 1.0, shortcut: str = "pad"
) -> nn.Sequential:
    """Return a network of ``6 * blocks + 2`` layers, widths 16, 32, 64 times ``width``.

    Args:
        num_classes: Length of the logits.
        input_size: Pixels of a side; any from 8 on, the mean over the image is taken before the classifier.
        blocks: Of two convolutions, at each of three sizes.
        width: Factor of the channels.
        shortcut: ``pad``, ``project`` or ``none``; see :class:`BasicBlock`.
    """
    check_input_px(input_size)
    check_number("blocks", blocks, 1, 64, whole=True)
    check_number("width", width, 0.1, MAX_WIDTH)
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut {shortcut!r} is not one of {', '.join(SHORTCUTS)}")
    widths = [max(1, round(w * width)) for w in (16, 32, 64)]
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), bn1=nn.BatchNorm2d(widths[0]), act1=nn.ReLU()
    )
    channels = widths[0]
    for i, out_channels in enumerate(widths):
        stage = []
        for j in range(blocks):
            stage.append(BasicBlock(channels, out_channels, 2 if i and not j else 1, shortcut))
            channels = out_channels
        parts[f"layer{i + 1}"] = nn.Sequential(*stage)
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(channels, num_classes)}
    return nn.Sequential(parts)


def residual20(num_classes: int = 10, input_size: int = 32, width: float = 1.0, shortcut: str = "pad") -> nn.Module:
    """Return ResNet-20 for CIFAR, 0.27 M parameters (the paper's table 6)."""
    return residual(num_classes, input_size, 3, width, shortcut)


def residual56(num_classes: int = 10, input_size: int = 32, width: float = 1.0, shortcut: str = "pad") -> nn.Module:
    """Return ResNet-56 for CIFAR, 0.85 M parameters (the paper's table 6)."""
    return residual(num_classes, input_size, 9, width, shortcut)


def plain20(num_classes: int = 10, input_size: int = 32, width: float = 1.0) -> nn.Module:
    """Return the 20 layers of :func:`residual20` without shortcuts."""
    return residual(num_classes, input_size, 3, width, "none")


def plain56(num_classes: int = 10, input_size: int = 32, width: float = 1.0) -> nn.Module:
    """Return the 56 layers of :func:`residual56` without shortcuts, which train worse than 20."""
    return residual(num_classes, input_size, 9, width, "none")
