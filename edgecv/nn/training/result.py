"""What a training gave, and how an epoch of it is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv.nn.training.state import Position


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


def epoch_line(row: Mapping[str, Any], epochs: int, position: Position) -> str:
    """Return an epoch's line: loss, top-1, speed, and how long the rest takes."""
    left = position.total_s / len(position.history) * (epochs - row["epoch"])
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, held-out top-1 {row['top1']:.2%}, "
        f"{row['images_per_second']:.0f} images/s, waiting for data {row['waiting_share']:.0%}"
        + (f", {duration(left)} left" if left else "")
    )


def duration(seconds: float) -> str:
    """Return a time for a person.

    >>> duration(4000)
    '1 h 7 min'
    """
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def result_of(position: Position, checkpoint: Path, notes: tuple[str, ...]) -> FitResult:
    """Return the result of a training that is over."""
    seconds = sum(row["training_s"] for row in position.history)
    images = sum(row["images"] for row in position.history)
    return FitResult(
        checkpoint=checkpoint,
        best_epoch=position.best_epoch,
        best_top1=max(position.top1),
        history=tuple(position.history),
        images_per_second=images / seconds if seconds else 0.0,
        waiting_share=sum(row["waiting_s"] for row in position.history) / seconds if seconds else 0.0,
        seconds=position.total_s,
        notes=notes,
    )
