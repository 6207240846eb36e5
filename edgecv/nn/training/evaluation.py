"""Top-1 on the held-out images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgecv.config.training import TrainSettings
from edgecv.data.dataset import Dataset
from edgecv.data.shards import Shards
from edgecv.manifest import InputSpec
from edgecv.nn.checkpoint import load_network
from edgecv.nn.pixels import normalize
from edgecv.nn.training.distributed import Team
from edgecv.nn.training.placement import Placement, place, threads_of
from edgecv.nn.training_data import evaluation_batches


@torch.no_grad()
def count_right(
    module: nn.Module,
    dataset: Dataset | Shards,
    spec: InputSpec,
    settings: TrainSettings,
    placement: Placement,
    *,
    team: Team | None = None,
    check: Callable[[], None] = lambda: None,
) -> int:
    """Return how many images of ``dataset`` the network classifies rightly, over all processes of ``team``.

    Args:
        module: Put into eval mode.
        dataset: Labelled.
        spec: Size, resize rule and normalisation.
        settings: ``batch``, ``workers`` and ``channels_last``.
        placement: Device and precision.
        team: Those who share the work; None for this process alone. All of them must call.
        check: Called after each batch; may raise to leave.
    """
    team = team or Team()
    module.eval()
    right = torch.zeros((), dtype=torch.int64, device=placement.device)
    memory = torch.channels_last if settings.channels_last else torch.contiguous_format
    for batch in evaluation_batches(dataset, spec, workers=settings.workers, rank=team.rank, world=team.world):
        pixels = batch.pixels.to(placement.device, memory_format=memory, non_blocking=True)
        with placement.autocast():
            logits = module(normalize(pixels, spec))
        right += (logits.argmax(1) == batch.targets.to(placement.device)).sum()
        check()
    return int(team.total([float(right)], placement.device)[0])


def judge_checkpoint(path: Path, dataset: Dataset | Shards, settings: TrainSettings) -> int:
    """Return how many images the network in a checkpoint classifies rightly, computed in float32."""
    placement = place(replace(settings, precision="float32"))
    network = load_network(path)
    memory = torch.channels_last if settings.channels_last else torch.contiguous_format
    network.module.to(placement.device, memory_format=memory)  # type: ignore[call-overload]
    with threads_of(settings, 1):
        return count_right(network.module, dataset, network.input, settings, placement)
