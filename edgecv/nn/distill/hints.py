"""Feature hints: layers of the student brought to layers of the teacher through learned projections (FitNets)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecv.errors import UsageError, nearest
from edgecv.manifest import InputSpec
from edgecv.nn.distill.losses import hint
from edgecv.nn.distill.teacher import resize

AUTO_PAIRS = 3
"""Stages brought together by ``auto``, from the deepest up: more did not help MMRazor's recipes, and cost time."""


class Hints(nn.Module):
    """Pairs of layers, the projections between them, and their features of the last batch.

    The projection is a 1x1 convolution of the student's channels to the teacher's (a linear layer for tokens); maps of
    another size are resized. It belongs to the training, not to the student.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        self.projections = nn.ModuleList()
        self._features: dict[tuple[str, str], Tensor] = {}
        for layer in dict.fromkeys(s for s, _ in pairs):
            _layer(student, layer, "student").register_forward_hook(self._keep("student", layer))
        for layer in dict.fromkeys(t for _, t in pairs):
            _layer(teacher, layer, "teacher").register_forward_hook(self._keep("teacher", layer))

    def _keep(self, side: str, layer: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self._features[side, layer] = output

        return hook

    def prepare(self) -> None:
        """Make the projections for the features of the batch that has just run through both networks."""
        for student, teacher in self.pairs:
            found = [self._features.get(("student", student)), self._features.get(("teacher", teacher))]
            for layer, feature, side in zip((student, teacher), found, ("student", "teacher"), strict=True):
                if feature is None or feature.ndim not in (3, 4):
                    raise UsageError(
                        f"hint layer '{layer}' of the {side} gives no feature map or tokens; name another."
                    )
            a, b = (f for f in found if f is not None)
            if a.ndim != b.ndim:
                raise UsageError(f"hint '{student}={teacher}' pairs a feature map with tokens; name two of one kind.")
            projection: nn.Module = (
                nn.Conv2d(a.shape[1], b.shape[1], 1) if a.ndim == 4 else nn.Linear(a.shape[2], b.shape[2])
            )
            self.projections.append(projection.to(a.device))

    def loss(self) -> Tensor:
        """Return the mean distance over the pairs for the last batch, and forget its features."""
        total = torch.zeros(())
        for (student, teacher), projection in zip(self.pairs, self.projections, strict=True):
            ours = projection(self._features["student", student].float())
            theirs = self._features["teacher", teacher].detach().float()
            total = total.to(ours.device) + hint(_to_shape(ours, theirs), theirs)
        self._features.clear()
        return total / len(self.pairs)


def make_hints(
    student: nn.Module, student_spec: InputSpec, teacher: nn.Module, teacher_spec: InputSpec, wanted: Sequence[str]
) -> Hints:
    """Return hints for ``wanted`` pairs (``STUDENT_LAYER=TEACHER_LAYER``), or chosen by map size for ``auto``.

    Raises:
        UsageError: No such layer (the nearest are given), or layers whose features do not fit together.
    """
    sample = torch.full((2, *student_spec.input_size), 127.0)
    if list(wanted) == ["auto"]:
        pairs = auto_pairs(student, sample, teacher, resize(sample, teacher_spec))
    else:
        pairs = [(s, t) for s, _, t in (pair.partition("=") for pair in wanted)]
    hints = Hints(student, teacher, pairs)
    _run(student, sample)
    _run(teacher, resize(sample, teacher_spec))
    hints.prepare()
    hints._features.clear()
    return hints


def auto_pairs(student: nn.Module, sample: Tensor, teacher: nn.Module, teacher_sample: Tensor) -> list[tuple[str, str]]:
    """Pair the last layer of each map size, from the smallest maps up; at most :data:`AUTO_PAIRS`.

    Raises:
        UsageError: One of the networks has no feature maps.
    """
    ours, theirs = last_by_size(student, sample), last_by_size(teacher, teacher_sample)
    if not ours or not theirs:
        raise UsageError("hints 'auto' needs feature maps on both sides; name the layers: --hints STUDENT=TEACHER.")
    return list(zip(reversed(ours), reversed(theirs), strict=False))[:AUTO_PAIRS]


def last_by_size(module: nn.Module, sample: Tensor) -> list[str]:
    """Return for each size of feature map, in the order of the network, the last layer that gives it."""
    last: dict[tuple[int, ...], str] = {}
    handles = []
    for name, layer in module.named_modules():
        if name and isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.ReLU | nn.GELU | nn.SiLU | nn.Sequential):

            def hook(m: nn.Module, i: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] > 1:
                    last[tuple(output.shape[2:])] = name

            handles.append(layer.register_forward_hook(hook))
    try:
        _run(module, sample)
    finally:
        for handle in handles:
            handle.remove()
    return [name for _, name in sorted(last.items(), key=lambda item: -item[0][0])]


def _run(module: nn.Module, sample: Tensor) -> None:
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(sample.to(next(module.parameters()).device) / 255)
    finally:
        module.train(training)


def _layer(module: nn.Module, name: str, side: str) -> nn.Module:
    known: dict[str, nn.Module] = dict(module.named_modules())
    if name not in known or not name:
        raise UsageError(f"the {side} has no layer '{name}'.{nearest(name, known)}")
    return known[name]


def _to_shape(ours: Tensor, theirs: Tensor) -> Tensor:
    if ours.ndim == 4 and ours.shape[2:] != theirs.shape[2:]:
        return functional.interpolate(ours, theirs.shape[2:], mode="bilinear", align_corners=False)
    if ours.shape != theirs.shape:
        raise UsageError(f"hint features of shapes {tuple(ours.shape)} and {tuple(theirs.shape)} do not fit together.")
    return ours
