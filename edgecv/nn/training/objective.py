"""What a training minimises: a batch through the student to one number."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.config.training import TrainSettings
from edgecv.manifest import InputSpec
from edgecv.nn.pixels import normalize
from edgecv.nn.training_data import Batch

AUXILIARY_WEIGHT = 0.3
"""Of the loss of each auxiliary head: Szegedy et al. 2014, Going Deeper with Convolutions, section 5."""


class Objective(Protocol):
    """A loss; distillation, healing and plain training differ in nothing else."""

    @property
    def parameters(self) -> nn.Module | None:
        """Further modules to train along, for example projections of feature hints; None when there are none."""

    def __call__(self, student: nn.Module, pixels: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar.

        Args:
            student: In train mode; may be wrapped for several processes (``student.module`` is the network).
            pixels: float32 ``(N, 3, H, W)``, 0..255, after mixup and cutmix, on the device of the student.
            targets: int64 ``(N,)``, or after mixing float32 ``(N, classes)``.
            batch: What was loaded; its pixels are before mixing.
        """


class Supervised:
    """Cross-entropy with the labels, with label smoothing; auxiliary heads count :data:`AUXILIARY_WEIGHT` each."""

    parameters: nn.Module | None = None

    def __init__(self, spec: InputSpec, settings: TrainSettings) -> None:
        self.spec = spec
        self.label_smoothing = settings.label_smoothing

    def __call__(self, student: nn.Module, pixels: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """See :class:`Objective`."""
        main, *auxiliary = logits_of(student(normalize(pixels, self.spec)))
        loss = self._loss(main, targets)
        for logits in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * self._loss(logits, targets)
        return loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)


def supervised(spec: InputSpec, settings: TrainSettings) -> Objective:
    """Return the objective of plain training."""
    return Supervised(spec, settings)


def logits_of(answer: Any) -> list[Tensor]:
    """Return a network's logits, those of its auxiliary heads after its own.

    Networks with auxiliary heads answer in train mode with a (named) tuple, torchvision's GoogLeNet and Inception do,
    or with a dictionary.
    """
    if isinstance(answer, Tensor):
        return [answer]
    values = list(answer.values()) if isinstance(answer, Mapping) else list(answer)
    return [v for v in values if isinstance(v, torch.Tensor)]
