"""Mixup and CutMix: two images in one, their labels in the same proportion."""

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import v2

from edgecv.config.training import TrainSettings

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def build_mixing(settings: TrainSettings, classes: int) -> Mix | None:
    """Return what mixes float pixels ``(N, 3, H, W)`` and int64 targets ``(N,)``, or None when both are off.

    Targets become float32 ``(N, classes)``. PyTorch's global generator decides; a batch of one stays as it is but for
    the shape of its target.

    Sources: Zhang et al. 2017 (mixup), Yun et al. 2019 (CutMix), as torchvision has them.
    """
    kinds: list[Mix] = []
    if settings.mixup:
        kinds.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
    if settings.cutmix:
        kinds.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))
    if not kinds:
        return None
    return kinds[0] if len(kinds) == 1 else v2.RandomChoice(kinds)
