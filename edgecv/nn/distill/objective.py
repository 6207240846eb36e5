"""Distillation as an objective of the training loop: what a student loses against its teacher and the labels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.config.distillation import DistillSettings
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.distill.hints import Hints, make_hints
from edgecv.nn.distill.losses import dist, dkd, kd
from edgecv.nn.distill.teacher import Teacher, teacher_of
from edgecv.nn.network import Network
from edgecv.nn.pixels import normalize
from edgecv.nn.training.objective import AUXILIARY_WEIGHT, logits_of
from edgecv.nn.training_data import Batch

HEALING = DistillSettings(teacher_weight=0.9, temperature=2.0)
"""A cut network has the same layers and classes as the original: it can follow its probabilities closely."""

Ask = Callable[[Tensor, Batch], Tensor]
"""Pixels as the student sees them and their batch → the teacher's logits in the student's order of classes."""


class Distilled:
    """The loss ``teacher_weight`` · teacher + (1 - ``teacher_weight``) · labels + ``hint_weight`` · hints.

    Attributes:
        parameters: The hints' projections, trained beside the student; None without hints.
    """

    def __init__(
        self,
        ask: Ask,
        spec: InputSpec,
        settings: DistillSettings,
        *,
        label_smoothing: float = 0.0,
        hints: Hints | None = None,
        token: bool = False,
    ) -> None:
        """Teach with the logits that ``ask`` gives; ``spec`` is the student's input, ``token`` that it has one."""
        self.parameters: nn.Module | None = hints
        self._ask, self._spec, self._settings = ask, spec, settings
        self._smoothing, self._hints, self._token = label_smoothing, hints, token

    def __call__(self, student: nn.Module, pixels: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss of one batch; pixels float (N, 3, H, W) of 0..255, targets hard (N,) or soft (N, C)."""
        wanted = self._ask(pixels, batch)
        settings = self._settings
        logits, *others = (v.float() for v in logits_of(student(normalize(pixels, self._spec))))
        labels = self._labels(logits, targets)
        if others and self._token:
            teaching = token_loss(others[0], wanted, settings)
        else:
            teaching = teaching_loss(logits, wanted, targets, settings)
            for auxiliary in others:
                labels = labels + AUXILIARY_WEIGHT * self._labels(auxiliary, targets)
        loss = settings.teacher_weight * teaching + (1 - settings.teacher_weight) * labels
        if self._hints is not None:
            loss = loss + settings.hint_weight * self._hints.loss()
        return loss

    def _labels(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, label_smoothing=self._smoothing)


def distilled(
    teacher: Teacher,
    student: nn.Module,
    spec: InputSpec,
    settings: DistillSettings,
    *,
    label_smoothing: float = 0.0,
    ask: Ask | None = None,
) -> Distilled:
    """Return the objective that teaches ``student``.

    Args:
        teacher: Of the same classes, unless ``ask`` maps them.
        student: Its module, for hints and the distillation token.
        spec: What the student takes.
        settings: Loss, temperature, weights.
        label_smoothing: Of the labels' part.
        ask: Instead of asking the teacher each time: kept logits, or other columns.

    Raises:
        UsageError: Hints for a teacher that is an ONNX model, or layers that do not fit.
    """
    hints = None
    if settings.hints:
        if teacher.module is None:
            raise UsageError(f"hints need the layers of a PyTorch teacher; '{teacher.name}' is an ONNX model.")
        hints = make_hints(student, spec, teacher.module, teacher.spec, settings.hints)
    answer_both: Any = getattr(student, "set_distilled_training", None)  # timm's networks with a distillation token
    token = settings.token != "off" and answer_both is not None
    if token:
        answer_both(True)
    return Distilled(
        ask or (lambda pixels, batch: teacher.ask(pixels)),
        spec,
        settings,
        label_smoothing=label_smoothing,
        hints=hints,
        token=token,
    )


def healed_by(
    original: Network, settings: DistillSettings = HEALING, *, device: torch.device | str = "cpu"
) -> Distilled:
    """Return the objective that heals a network after pruning, factorization or quantization.

    Args:
        original: The network before it was cut, another copy of it: it is put into eval mode and teaches.
        settings: Loss and weights.
        device: Where it runs; in the precision of the caller's autocast.
    """
    teacher = teacher_of(original, device=device)
    return Distilled(lambda pixels, batch: teacher.ask(pixels), original.input, settings)


def teaching_loss(student: Tensor, teacher: Tensor, targets: Tensor, settings: DistillSettings) -> Tensor:
    """Return the loss named by ``settings.loss``; logits float32 (N, C)."""
    if settings.loss == "dkd":
        return dkd(student, teacher, targets, settings.temperature)
    if settings.loss == "dist":
        return dist(student, teacher, settings.temperature)
    return kd(student, teacher, settings.temperature)


def token_loss(token: Tensor, teacher: Tensor, settings: DistillSettings) -> Tensor:
    """Return what a distillation token learns: the teacher's decision (``hard``) or its probabilities (``soft``).

    Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021, §4.
    """
    if settings.token == "hard":
        return functional.cross_entropy(token, teacher.argmax(1))
    return kd(token, teacher, settings.temperature)


def in_order(ask: Callable[[Tensor], Tensor], columns: list[int] | None) -> Callable[[Tensor], Tensor]:
    """Return ``ask`` with its columns in the student's order of classes."""
    if columns is None:
        return ask
    chosen = torch.tensor(columns)
    return lambda pixels: ask(pixels)[:, chosen.to(pixels.device)]
