"""A highway network for CIFAR."""

from collections import OrderedDict

import torch
from torch import nn

from edgecv.nn.networks import MAX_WIDTH, check_input_px, check_number

GATE_BIAS = -1.0
"""Gates start nearly closed, so that a deep network starts as a copy of its input (section 2.2: -1 to -4)."""


class HighwayConv(nn.Module):
    """``T * H(x) + (1 - T) * x``: a 3x3 convolution H with ReLU, a 3x3 convolution T with sigmoid as its gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.act = nn.ReLU()
        self.gate = nn.Conv2d(channels, channels, 3, 1, 1)
        self.gate_act = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        gate = self.gate_act(self.gate(x) + GATE_BIAS)  # beside the bias, which initialisations set to zero
        mixed: torch.Tensor = x + gate * (self.act(self.conv(x)) - x)
        return mixed


def highway19(num_classes: int = 10, input_size: int = 32, width: float = 1.0, drop_rate: float = 0.0) -> nn.Sequential:
    """Return a highway network of 19 layers, about 2.3 M parameters.

    The layers of FitNet-4 (Romero et al. 2015, arXiv:1412.6550): 3x32, 2x48, pool, 6x80, pool, 6x128, pool. Where the
    number of channels stays, a layer is a highway; where it changes, a convolution with ReLU. The mean over the image
    and one linear layer end it. Source: Srivastava et al. 2015, arXiv:1507.06228, section 3.3 and table 2 ("19 layers,
    2.3 M").

    Args:
        num_classes: Length of the logits.
        input_size: Pixels of a side, 8 or more.
        width: Factor of the channels.
        drop_rate: Share of activations dropped after each pool while training.
    """
    check_input_px(input_size)
    check_number("width", width, 0.1, MAX_WIDTH)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for i, stage in enumerate((((32, 3), (48, 2)), ((80, 6),), ((128, 6),))):
        layers: list[nn.Module] = []
        for published, count in stage:
            out_channels = max(1, round(published * width))
            layers += [nn.Conv2d(channels, out_channels, 3, 1, 1), nn.ReLU()]
            layers += [HighwayConv(out_channels) for _ in range(count - 1)]
            channels = out_channels
        layers.append(nn.MaxPool2d(2) if i < 2 else nn.AdaptiveAvgPool2d(1))
        if drop_rate:
            layers.append(nn.Dropout(drop_rate))
        parts[f"stage{i + 1}"] = nn.Sequential(*layers)
    return nn.Sequential(parts | {"flatten": nn.Flatten(), "classifier": nn.Linear(channels, num_classes)})
