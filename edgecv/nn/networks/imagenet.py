"""AlexNet, GoogLeNet and SqueezeNet, by torchvision, at any input size."""

from typing import Any

import torch
import torchvision
from torch import nn

from edgecv.nn.networks import check_input_px

_ALEXNET_LEAST_PX = 63


def alexnet(num_classes: int = 1000, input_size: int = 224, drop_rate: float = 0.5) -> nn.Module:
    """Return AlexNet, 61,100,840 parameters at 224 px.

    Source: Krizhevsky 2014, arXiv:1404.5997; counts at docs.pytorch.org/vision, models/alexnet. Below 63 px its
    first layer (11x11, stride 4) and pools leave nothing: there the first layer is 5x5 with stride 1 and the
    classifier as wide as what comes out, as is usual on CIFAR.
    """
    check_input_px(input_size, 16)
    network = torchvision.models.AlexNet(num_classes=num_classes, dropout=drop_rate)
    if input_size < _ALEXNET_LEAST_PX:
        side = input_size
        for _ in range(3):
            side = (side - 3) // 2 + 1
        network.features[0] = nn.Conv2d(3, 64, 5, padding=2)
        network.avgpool = nn.Identity()
        network.classifier[1] = nn.Linear(256 * side**2, 4096)
    module: nn.Module = network
    return module


class _GoogLeNet(torchvision.models.GoogLeNet):  # type: ignore[misc]
    """torchvision's, which answers in training with its auxiliary logits as a plain tuple, the lower head first."""

    def forward(self, x: torch.Tensor) -> Any:
        logits, aux2, aux1 = self._forward(x)
        return (logits, aux1, aux2) if self.training else logits


def googlenet(num_classes: int = 1000, input_size: int = 224, drop_rate: float = 0.2) -> nn.Module:
    """Return GoogLeNet with BatchNorm and its two auxiliary heads, which only training uses.

    6,624,904 parameters without the heads. In train mode it answers ``(logits, aux1, aux2)``; the paper adds the
    auxiliary losses with weight 0.3 (section 5). Source: Szegedy et al. 2015, CVPR; count at docs.pytorch.org/vision.
    """
    check_input_px(input_size, 32)
    return _GoogLeNet(
        num_classes=num_classes, aux_logits=True, transform_input=False, init_weights=False, dropout=drop_rate
    )


def squeezenet1_0(num_classes: int = 1000, input_size: int = 224, drop_rate: float = 0.5) -> nn.Module:
    """Return SqueezeNet 1.0, 1,248,424 parameters. Source: Iandola et al. 2016, arXiv:1602.07360, table 1."""
    return _squeezenet("1_0", num_classes, input_size, drop_rate)


def squeezenet1_1(num_classes: int = 1000, input_size: int = 224, drop_rate: float = 0.5) -> nn.Module:
    """Return SqueezeNet 1.1, 1,235,496 parameters. Source: github.com/forresti/SqueezeNet, SqueezeNet_v1.1."""
    return _squeezenet("1_1", num_classes, input_size, drop_rate)


def _squeezenet(version: str, num_classes: int, input_size: int, drop_rate: float) -> nn.Module:
    check_input_px(input_size, 24)
    module: nn.Module = torchvision.models.SqueezeNet(version, num_classes=num_classes, dropout=drop_rate)
    return module
