"""Images to train on and to judge by: which, in which order, and as batches of pixels.

Everything random of an image is a function of (seed, epoch, index): the number of worker processes, of ranks or of restarts
changes no bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgecv.config.training import TrainSettings
from edgecv.data.dataset import Dataset
from edgecv.manifest import InputSpec
from edgecv.progress import Progress, no_progress

EVALUATION_BATCH = 128
"""Images of one evaluation batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that go through the network together.

    Attributes:
        pixels: uint8 (N, 3, H, W), 0..255, RGB, augmented already; in channels-last memory order.
        targets: int64 (N,), class indices into ``TrainingData.labels``.
        indices: int64 (N,), positions in the data set.
        keys: int64 (N,), not negative; image ``i`` with the key ``k`` has the same pixels whenever it comes.
    """

    pixels: Tensor
    targets: Tensor
    indices: Tensor
    keys: Tensor


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a network learns from.

    Attributes:
        train: Images to learn from; their label index is that of ``labels``.
        held_out: Images to judge by, never learnt from; the same label indices.
        labels: Class names, sorted.
        digest: SHA-256 over the file names, sizes and labels of both.
        notes: What was found and decided, a sentence each.
    """

    train: Dataset
    held_out: Dataset
    labels: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()


def open_training_data(
    data: Path,
    held_out: Path | None = None,
    *,
    share: float = 0.1,
    seed: int,
    folder: Path,
    progress: Progress = no_progress,
) -> TrainingData:
    """List the images to train on and those to judge by.

    Args:
        data: What ``data.folder.open_dataset`` takes, with classes.
        held_out: The same, to judge by; None to hold out a share of ``data``, class by class.
        share: Of each class, when ``held_out`` is None.
        seed: Of the division.
        folder: The run folder, existing; the division is recorded there and taken again when it is there already.
        progress: Told after each image read.

    Raises:
        UsageError: Not readable, no classes, too few images, or a recorded division of other images.
    """
    raise NotImplementedError


def steps_per_epoch(data: TrainingData, settings: TrainSettings) -> int:
    """Return how many batches :func:`training_batches` gives: an incomplete last one is left out, but for the only one."""
    return max(1, len(data.train) // settings.batch)


def training_batches(
    data: TrainingData,
    spec: InputSpec,
    settings: TrainSettings,
    *,
    epoch: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    start_batch: int = 0,
) -> Iterator[Batch]:
    """Yield this rank's part of each batch of one epoch, shuffled and augmented.

    The ranks' parts of a batch together are the batch of a single process; they differ in size by one image at most.

    Args:
        data: Images and classes.
        spec: Size and resize rule of the network.
        settings: ``batch`` (over all ranks together), ``augment``, ``workers``.
        epoch: Counted from 0.
        seed: Of order and augmentation.
        rank: Of this process, 0 to ``world - 1``.
        world: How many processes train together.
        start_batch: The first batch to give, to go on in the middle of an epoch; those before are not decoded.

    Raises:
        UsageError: A broken image (the message names it), an unknown augmentation, or more ranks than images in a batch.
    """
    raise NotImplementedError


def evaluation_batches(
    dataset: Dataset,
    spec: InputSpec,
    *,
    batch: int = EVALUATION_BATCH,
    workers: int = -1,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Yield this rank's part of a data set in order, with the pixels that evaluation and the device see.

    Every image comes once over all ranks together; the last batch may be smaller, or a rank have one batch fewer.

    Args:
        dataset: ``TrainingData.held_out``, or ``train``.
        spec: Size and resize rule of the network.
        batch: Images of a batch of one rank.
        workers: Processes that read; 0: none beside this one, -1: chosen.
        rank: Of this process.
        world: How many processes evaluate together.

    Raises:
        UsageError: A broken image; the message names it.
    """
    raise NotImplementedError


def image_keys(indices: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Return int64 keys of the images at ``indices`` in an epoch: SplitMix64 (Steele et al. 2014) over all three."""
    with np.errstate(over="ignore"):
        key = np.uint64(0)
        for part in (np.uint64(seed), np.uint64(epoch), indices.astype(np.uint64)):
            key = _mix(key + part)
    return (key >> np.uint64(1)).astype(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _order(count: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def _tensors(pixels: np.ndarray, targets: np.ndarray, indices: np.ndarray, keys: np.ndarray) -> Batch:
    return Batch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch.from_numpy(targets),
        torch.from_numpy(indices),
        torch.from_numpy(keys),
    )
