"""How much a channel or head matters: one score for each unit of a group, comparable between groups."""

from collections.abc import Iterable

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

from edgecv.errors import UsageError
from edgecv.nn.prune.groups import ChannelGroup, Traced

_BATCH_NORM = (nn.modules.batchnorm._BatchNorm,)


def score_groups(traced: Traced, criterion: str, seed: int = 0) -> list[Tensor]:
    """Return float32 ``(units,)`` for every group; each group's mean is 1.

    Args:
        traced: For ``taylor`` with gradients, from :func:`add_gradients`.
        criterion: ``l1``, ``l2`` (norms of all weights a unit touches: Li et al., ICLR 2017; Fang et al., CVPR 2023),
            ``bn-scale`` (Liu et al., ICCV 2017; groups without BatchNorm by l1), ``taylor`` (|weight · gradient|:
            Molchanov et al., CVPR 2019), ``random`` (the control).
        seed: Of ``random``.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_normalised(_score(traced.module, group, criterion, generator)) for group in traced.groups]


def add_gradients(traced: Traced, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Sum the gradients of the cross-entropy over batches into the traced network; return how many images.

    Args:
        traced: Its module is changed in nothing but its gradients.
        batches: Normalised float32 ``(N, 3, H, W)`` and int64 ``(N,)``.

    Raises:
        UsageError: There is no image.
    """
    count = 0
    for pixels, targets in batches:
        with torch.enable_grad():
            functional.cross_entropy(traced.module(pixels), targets, reduction="sum").backward()  # type: ignore[no-untyped-call]
        count += len(targets)
    if not count:
        raise UsageError("--criterion taylor needs labelled images; add --data DIR.")
    return count


def _score(module: nn.Module, group: ChannelGroup, criterion: str, generator: torch.Generator) -> Tensor:
    if criterion == "random":
        return torch.rand(group.units, generator=generator)
    scores = None
    if group.items is not None and criterion != "taylor":
        scores = _importance(criterion)(group.items)
        if scores is None or len(scores) == 0:
            scores = _importance("l1")(group.items)
    if scores is None or len(scores) == 0:
        return _sum_over_edits(module, group, criterion)
    found: Tensor = scores.detach().float().reshape(-1, group.units).mean(0)
    return found


def _importance(criterion: str) -> tp.importance.Importance:
    if criterion == "bn-scale":
        return tp.importance.GroupMagnitudeImportance(p=1, target_types=_BATCH_NORM)
    return tp.importance.GroupMagnitudeImportance(p=1 if criterion == "l1" else 2)


def _sum_over_edits(module: nn.Module, group: ChannelGroup, criterion: str) -> Tensor:
    """Return the criterion's sum over everything a unit touches: heads, and Taylor everywhere.

    torch-pruning 1.6's own Taylor leaves BatchNorm out by mistake and fails on layers without a gradient.
    """
    parts = dict(module.named_modules())
    total = torch.zeros(group.units)
    for edit in group.edits:
        owner, _, key = edit.name.rpartition(".")
        tensor = (
            parts[owner]._parameters[key] if edit.side == "parameter" else parts[edit.name]._parameters.get("weight")
        )
        if tensor is None or (criterion == "taylor" and tensor.grad is None):
            continue
        values = _each_weight(tensor, criterion)
        axis = edit.axis if edit.side == "parameter" else 1 if edit.side == "in" else 0
        by_channel = values.transpose(0, axis).flatten(1).sum(1) if values.ndim > 1 else values
        width = len(by_channel)  # grouped convolutions hold the channels of one group on their second axis
        total += torch.stack([by_channel[[i % width for i in indices]].sum() for indices in edit.indices])
    return total


def _each_weight(tensor: Tensor, criterion: str) -> Tensor:
    if criterion == "taylor":
        assert tensor.grad is not None
        return (tensor.detach() * tensor.grad).abs()
    return tensor.detach().abs() if criterion in ("l1", "bn-scale") else tensor.detach().square()


def _normalised(scores: Tensor) -> Tensor:
    mean = scores.mean()
    return scores / mean if mean > 0 else torch.ones_like(scores)
