"""Images to train on and to judge by: which, in which order, and as batches of pixels.

Everything random of an image is a function of (seed, epoch, index): the number of worker processes, of ranks or of
restarts changes no bit.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgecv.config.training import TrainSettings
from edgecv.data.batches import UNLABELLED
from edgecv.data.classes import match_classes
from edgecv.data.dataset import Dataset, unreadable_notes
from edgecv.data.folder import open_dataset
from edgecv.data.held_out import SPLIT_FILE, check_apart, divide
from edgecv.data.shards import Shards, are_shards, hold_out, open_shards
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.augment import build_pipeline
from edgecv.nn.image_feed import ImageReader, iter_pixels
from edgecv.nn.sampling import Wanted, batch_count, batches_of_epoch
from edgecv.progress import Progress, no_progress

HASHED_FILES, HASHED_BYTES = 100_000, 1 << 16
"""The digest reads the beginning of at most so many files of a side, evenly spaced: a second for CIFAR-10."""

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
        labels: Class names, sorted; those of shards in the order of their numbers.
        digest: SHA-256 over the file names, sizes, labels and contents of both; see :data:`HASHED_FILES`.
        notes: What was found and decided, a sentence each.
    """

    train: Dataset | Shards
    held_out: Dataset | Shards
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
        data: What ``data.folder.open_dataset`` takes, with classes, or shards (see :mod:`edgecv.data.shards`).
        held_out: The same, to judge by; None to hold out a share of ``data``, class by class.
        share: Of each class, when ``held_out`` is None.
        seed: Of the division.
        folder: The run folder, existing; the division is recorded there and taken again when it is there already.
        progress: Told after each image read.

    Raises:
        UsageError: Not readable, no classes, too few images, or a recorded division of other images.
    """
    if are_shards(data):
        return _open_sharded(data, held_out, share, seed, progress)
    train = _labelled(open_dataset(data, progress=progress), data)
    labels = train.class_names
    match_classes(labels, labels)  # names that evaluation could not tell apart are refused now
    if held_out is not None:
        judged, notes = open_dataset(held_out, labels, progress=progress), list[str]()
        check_apart(train, judged)
    else:
        train, judged, notes = divide(train, share, seed, folder / SPLIT_FILE, progress)
    return TrainingData(train, judged, labels, _digest(train, judged), (*unreadable_notes(train), *notes))


def steps_per_epoch(data: TrainingData, settings: TrainSettings) -> int:
    """Return how many batches :func:`training_batches` gives: an incomplete last one is left out, unless alone."""
    return batch_count(len(data.train), settings.batch)


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

    The ranks' parts of a batch together are the batch of a single process and differ in size by one image at most;
    shards are divided among the ranks instead.

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
        UsageError: A broken image (the message names it), an unknown augmentation, or more ranks than a batch has
            images.
    """
    wanted = batches_of_epoch(
        data.train, settings.batch, epoch=epoch, seed=seed, rank=rank, world=world, start=start_batch
    )
    reader = ImageReader(data.train, build_pipeline(settings.augment, spec))
    yield from _batches(reader, wanted, settings.workers, world)


def evaluation_batches(
    dataset: Dataset | Shards,
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
    indices = np.arange(rank, len(dataset), world)
    wanted = [(part, np.zeros_like(part)) for part in (indices[i : i + batch] for i in range(0, len(indices), batch))]
    yield from _batches(ImageReader(dataset, build_pipeline((), spec)), wanted, workers, world)


def _batches(reader: ImageReader, wanted: list[Wanted], workers: int, world: int) -> Iterator[Batch]:
    targets = _targets(reader.dataset)
    for (indices, keys), pixels in zip(wanted, iter_pixels(reader, wanted, workers, world), strict=True):
        yield Batch(pixels, *(torch.from_numpy(values) for values in (targets[indices], indices, keys)))


def _targets(dataset: Dataset | Shards) -> npt.NDArray[np.int64]:
    if isinstance(dataset, Shards):
        return dataset.places["label"].astype(np.int64)
    return np.array([UNLABELLED if label is None else label for _, label in dataset.samples], np.int64)


def _open_sharded(data: Path, held_out: Path | None, share: float, seed: int, progress: Progress) -> TrainingData:
    train = open_shards(data, progress)
    labels, notes = train.class_names, list[str]()
    judged: Dataset | Shards
    if held_out is None:
        train, judged = hold_out(train, share, seed)
        notes.append(f"{len(judged)} images of the shards are held out to judge by, class by class, drawn by the seed")
    elif are_shards(held_out):
        judged = open_shards(held_out, progress)
        if judged.class_names != labels:
            raise UsageError(f"the shards '{data}' and '{held_out}' have different classes; give both one classes.txt.")
        if both := {p.resolve() for p in train.paths} & {p.resolve() for p in judged.paths}:
            raise UsageError(f"shard '{min(both)}' would be trained on and judged by; give disjoint shards.")
    else:
        judged = open_dataset(held_out, labels, progress=progress)
    return TrainingData(train, judged, labels, _digest(train, judged), tuple(notes))


def _labelled(dataset: Dataset, path: Path) -> Dataset:
    if len(dataset.class_names) < 2:
        raise UsageError(
            f"data '{path}' has {len(dataset.class_names)} classes and a classifier needs two; give a folder of class "
            "folders, a zip of one, or a CSV with path,label."
        )
    samples = tuple((path, c) for (path, _), c in zip(dataset.samples, dataset.class_indices, strict=True))
    return replace(dataset, samples=samples, num_classes=len(dataset.class_names))


def _digest(*sides: Dataset | Shards) -> str:
    digest = hashlib.sha256()
    for side in sides:
        if isinstance(side, Shards):
            digest.update(
                "\0".join([*(p.name for p in side.paths), *side.class_names]).encode("utf-8", "surrogateescape")
            )
            digest.update(side.places.tobytes())
            continue
        every = max(1, len(side.samples) // HASHED_FILES)
        for i, (path, label) in enumerate(side.samples):
            digest.update(
                f"{path.relative_to(side.root)}\0{path.stat().st_size}\0{label}\n".encode("utf-8", "surrogateescape")
            )
            if i % every == 0:
                handle = os.open(path, os.O_RDONLY)
                try:
                    digest.update(os.read(handle, HASHED_BYTES))
                finally:
                    os.close(handle)
        digest.update(b"\0")
    return digest.hexdigest()
