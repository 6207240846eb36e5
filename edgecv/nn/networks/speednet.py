"""A CIFAR teacher for small budgets: a whitened first layer, three wide stages, few layers.

The shape is that of airbench94 (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498,
section 3); the code is our own.
"""

from collections import OrderedDict

import torch
from torch import nn

from edgecv.nn.networks import MAX_WIDTH, check_input_px, check_number

PATCH_PX = 2
STEM_CHANNELS = 2 * 3 * PATCH_PX**2
"""Every principal direction of a 2x2 patch of three colours, with both signs: ReLU-like units lose half of each."""

WHITENING_EPS = 5e-4
"""Added to the variances, lest the directions of noise be blown up (the paper's section 3.2)."""

LOGIT_SCALE = 1 / 9
"""The paper's; it keeps the first softmax soft (listing of airbench94)."""

WIDTHS = (64, 256, 256)


class SpeedNet(nn.Module):
    """See :func:`speednet`."""

    def __init__(self, num_classes: int, width: float, activation: type[nn.Module]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Conv2d(3, STEM_CHANNELS, PATCH_PX)
        self.stem_act = activation()
        widths = [max(8, round(w * width / 8) * 8) for w in WIDTHS]
        stages = []
        channels = STEM_CHANNELS
        for out_channels in widths:
            stages.append(_stage(channels, out_channels, activation))
            channels = out_channels
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveMaxPool2d(1)  # 3x3 to 1x1 for 32 px
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes, bias=False)
        self.register_buffer("whitened", torch.zeros((), dtype=torch.bool))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 3, H, W)`` to logits ``(N, num_classes)``, scaled down as the paper does."""
        features = self.stages(self.stem_act(self.stem(x)))
        logits: torch.Tensor = self.classifier(self.flatten(self.pool(features)))
        return logits * LOGIT_SCALE

    def initialize_from_data(self, images: torch.Tensor) -> None:
        """Set the first layer from normalised training images float32 ``(N, 3, H, W)``; it learns no more.

        The first filters of the other layers pass their input on, as many as it has channels (the paper's section 3.3).
        """
        whiten(self.stem, images)
        for layer in self.stages.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight.data[: layer.in_channels])
        self.whitened.fill_(True)  # type: ignore[operator]
        self.train(self.training)

    def train(self, mode: bool = True) -> "SpeedNet":
        """Switch the mode; the whitened layer stays out of the training, also after a checkpoint is loaded."""
        super().train(mode)
        whitened = self.get_buffer("whitened")
        if mode and not whitened.is_meta and bool(whitened):
            self.stem.weight.requires_grad_(False)
        return self


def speednet(num_classes: int = 10, input_size: int = 32, width: float = 1.0, act: str = "gelu") -> nn.Module:
    """Return the fast teacher: 1.97 M parameters and 118 M MACs at 32 px with ``width`` 1.

    A 2x2 convolution to 24 channels; three stages ``[conv 3x3, max pool 2, BN, act, conv 3x3, BN, act]`` of 64, 256,
    256 channels; max pool; a linear layer without bias.

    Args:
        num_classes: Length of the logits.
        input_size: Pixels of a side, 16 or more.
        width: Factor of the channels, rounded to multiples of 8.
        act: ``gelu`` or ``relu`` (faster on devices, and quantizes better).
    """
    check_input_px(input_size, 16)
    check_number("width", width, 0.1, MAX_WIDTH)
    activations: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
    if act not in activations:
        raise ValueError(f"act {act!r} is neither gelu nor relu")
    return SpeedNet(num_classes, width, activations[act])


def whiten(layer: nn.Conv2d, images: torch.Tensor) -> None:
    """Set ``layer`` so that its outputs on ``images`` are uncorrelated with variance one, each with both signs.

    Args:
        layer: ``k x k`` over three colours; beyond ``2 * 3 * k * k`` channels the rest keeps its weights, with fewer
            the directions of most variance are taken. Its weight is frozen, its bias zeroed.
        images: Normalised, float32 ``(N, 3, H, W)``.

    Raises:
        ValueError: Images of another shape, or values that are not finite.

    Source: Jordan 2024, arXiv:2404.00498, section 3.2, after Page 2019; principal component analysis of the patches.
    """
    side = layer.kernel_size[0]
    if images.ndim != 4 or images.shape[1] != layer.in_channels or min(images.shape[2:]) < side:
        raise ValueError(f"images of shape {tuple(images.shape)} hold no {side}x{side} patches for the first layer")
    with torch.no_grad():
        patches = images.double().unfold(2, side, 1).unfold(3, side, 1).movedim(1, 3).flatten(3).flatten(0, 2)
        covariance = patches.T @ patches / len(patches)
        if not bool(torch.isfinite(covariance).all()):
            raise ValueError("the training images hold NaN or infinity after normalisation")
        variances, directions = torch.linalg.eigh(covariance)  # in rising order
        filters = (directions / (variances + WHITENING_EPS).sqrt()).T.flip(0)
        count = min(len(filters), layer.out_channels // 2)
        both = torch.cat([filters[:count], -filters[:count]]).reshape(2 * count, layer.in_channels, side, side)
        layer.weight[: 2 * count] = both.to(layer.weight)
        layer.weight.requires_grad_(False)
        if layer.bias is not None:
            layer.bias.zero_()


def _stage(channels: int, out_channels: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            pool=nn.MaxPool2d(2),
            bn1=nn.BatchNorm2d(out_channels),
            act1=activation(),
            conv2=nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            bn2=nn.BatchNorm2d(out_channels),
            act2=activation(),
        )
    )
