"""The training loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.config.training import TrainSettings
from edgecv.nn.network import Network
from edgecv.nn.training.objective import Objective
from edgecv.nn.training_data import TrainingData
from edgecv.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training gave.

    Attributes:
        checkpoint: The artifact: the weights of the best epoch (their moving average with ``ema``).
        best_epoch: Counted from 1.
        best_top1: Share of the held-out images that this epoch's weights classify rightly.
        history: A row for each epoch, as in ``log.csv``.
        images_per_second: Of training, without evaluation.
        waiting_share: Share of the training time spent waiting for images.
        seconds: Whole time, over all resumptions.
        notes: What was chosen or went differently, a sentence each.
    """

    checkpoint: Path
    best_epoch: int
    best_top1: float
    history: tuple[Mapping[str, Any], ...]
    images_per_second: float
    waiting_share: float
    seconds: float
    notes: tuple[str, ...] = ()


def fit(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    folder: Path,
    *,
    objective: Objective,
    seed: int,
    resume: bool = False,
    identity: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
    tell: Callable[[str], None] = lambda line: None,
) -> FitResult:
    """Train ``network`` in place and leave it with the weights of its best epoch, in eval mode.

    Args:
        network: Its module is trained; ``stages`` should name this training already, they go into the artifact.
        data: Training and held-out images.
        settings: How.
        folder: The run folder, existing; see ARCHITECTURE.md for its files.
        objective: What is minimised.
        seed: Of everything random.
        resume: Go on from the newest sound checkpoint in the folder, if there is one.
        identity: What else must be the same to go on (teacher's hash, …): key -> value.
        progress: Told after each step.
        tell: Given a line after each epoch, and for what the user should know at once.

    Raises:
        UsageError: A setting that this network or machine cannot have, changed settings or data on resuming, a broken
            image, a full disk. The last good checkpoint stays.
        KeyboardInterrupt: After SIGINT or SIGTERM, when the checkpoint is written.
    """
    raise NotImplementedError
