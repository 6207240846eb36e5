"""Everything a training needs to go on as if it had never stopped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecv.config.training import RESUME_FREE, TrainSettings
from edgecv.errors import UsageError
from edgecv.nn.network import Network
from edgecv.nn.training.averaging import Average
from edgecv.nn.training.distributed import Team, fill, split_like, whole
from edgecv.nn.training.optimizer import trained_parameters
from edgecv.nn.training_data import TrainingData


@dataclass(slots=True)
class Position:
    """How far a training has come; sums are those of the current epoch.

    Attributes:
        epoch: Whole epochs done.
        batch: Batches of the current epoch done.
        step: Batches done in all.
        loss_sum: Of every image.
        images: Seen.
        training_s: Time of the current epoch, without evaluation.
        waiting_s: Of that, time spent waiting for images.
        total_s: Time of the whole training.
        best_epoch: Whose weights are in the artifact; counted from 1, 0 when there is none yet.
        history: A row for each whole epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    training_s: float = 0.0
    waiting_s: float = 0.0
    total_s: float = 0.0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def top1(self) -> list[float]:
        """Held-out top-1 after each epoch."""
        return [row["top1"] for row in self.history]


@dataclass(slots=True)
class Learner:
    """What changes while training: the network, its average, the optimizer, what the objective trains along."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    extra: nn.Module | None
    average: Average | None
    split: bool
    buffers: dict[str, Tensor] = field(default_factory=dict)

    def begin_step(self) -> None:
        """Remember BatchNorm's statistics, which a forward pass changes before the weights are."""
        self.buffers = {name: b.detach().clone() for name, b in self.module.named_buffers()}

    def end_step(self) -> None:
        """The weights are changed, the statistics belong to them."""
        self.buffers = {}

    def state(self) -> dict[str, Any]:
        """Return everything as tensors, numbers, lists and dictionaries: as of the end of the last step."""
        module: dict[str, Tensor] = dict(self.module.state_dict())
        average = dict(self.average.values) if self.average else {}
        if self.average is not None and self.average.swapped:
            module, average = average, module
        return {
            "module": whole({**module, **{k: v for k, v in self.buffers.items() if k in module}}),
            "optimizer": whole(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "extra": dict(self.extra.state_dict()) if self.extra is not None else {},
            "average": whole(average),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`state`."""
        fill(self.module.state_dict(), state["module"])
        optimizer = state["optimizer"]
        if self.split:
            for i, parameter in enumerate(trained_parameters(self.optimizer)):
                kept = optimizer["state"].get(i, {})
                optimizer["state"][i] = {
                    k: split_like(v, parameter) if isinstance(v, Tensor) else v for k, v in kept.items()
                }
        self.optimizer.load_state_dict(optimizer)
        self.scaler.load_state_dict(state["scaler"])
        if self.extra is not None:
            self.extra.load_state_dict(state["extra"])
        if self.average is not None:
            fill(self.average.values, state["average"])


def identity_of(
    network: Network, data: TrainingData, settings: TrainSettings, seed: int, precision: str, extra: Mapping[str, str]
) -> dict[str, str]:
    """Return what must be the same to go on: name as the user knows it -> value."""
    named = {name: str(value) for name, value in asdict(settings).items() if name not in RESUME_FREE}
    return {
        **named,
        "seed": str(seed),
        "precision": precision,
        "network": network.name,
        "arguments of the network": str(dict(network.arguments)),
        "structure of the network": str([dict(step) for step in network.structure]),
        "first weights": network.source.get("sha256") or network.source.get("weights", ""),
        "input": str(asdict(network.input)),
        "data": data.digest,
        **extra,
    }


def check_identity(recorded: Mapping[str, str], now: Mapping[str, str], where: str) -> None:
    """Raise UsageError naming the first thing that is not as it was.

    Args:
        recorded: Of the checkpoint.
        now: Of this run.
        where: The run folder.
    """
    for name in (*now, *(n for n in recorded if n not in now)):
        before, after = recorded.get(name), now.get(name)
        if before == after:
            continue
        if name == "data":
            what = "the images have changed (file names, sizes or labels)"
        else:
            what = f"{name} was {_shown(before)} and is {_shown(after)} now"
        raise UsageError(f"'{where}' cannot go on: {what}; put it back to resume, or start anew with --force.")


def position_from(state: Mapping[str, Any]) -> Position:
    """Return the position a checkpoint recorded."""
    return Position(**{f.name: state[f.name] for f in fields(Position)})


def seed_step(seed: int, position: Position, team: Team) -> None:
    """Seed PyTorch for one step of one process: dropout, drop-path and mixing depend on nothing else.

    So no generator's state needs to be kept, and a step taken again is the same step.
    """
    sequence = np.random.SeedSequence((seed, position.step, team.rank))
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _shown(value: str | None) -> str:
    text = "not set" if value is None else (value or "empty")
    return text if len(text) <= 60 else f"{text[:60]}…"
