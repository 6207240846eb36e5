"""Pixels of many images, read by worker processes in the order they are asked for.

Images that need no random crop are decoded once and kept in memory shared by the processes, as long as there is room:
small images cost more to open and decode than to train a small network on.
"""

import contextlib
import mmap
import multiprocessing
import os
import signal
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgecv.data.dataset import Dataset
from edgecv.data.shards import Shards
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.augment import Pipeline
from edgecv.nn.sampling import Wanted
from edgecv.runtime.host import usable_cores

MAX_KEPT_BYTES = 1 << 30
"""Decoded images in memory: CIFAR-10 takes 154 MB, 7,000 photographs of 224 pixels a gigabyte."""

FEW_IMAGES = 256
"""So many are read sooner than a worker process starts."""

_CHUNK_BYTES = 4 << 20
"""Pixels handed from a worker at a time: large enough for small images, small enough for the usual /dev/shm."""

_KEPT_SETS = 3

Results = Generator[Tensor | UsageError, None, None]


class DecodedImages:
    """Framed pixels of a data set, filled as its images are read; the memory is shared with forked processes."""

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        """Reserve room; pages are taken when they are written."""
        height, width = size
        self.pixels = np.frombuffer(mmap.mmap(-1, count * height * width * 3), np.uint8).reshape(
            count, height, width, 3
        )
        self.known = np.frombuffer(mmap.mmap(-1, count), np.bool_)


class ImageReader(TorchDataset[Tensor | UsageError]):
    """Reads and augments the images of a data set."""

    def __init__(self, dataset: Dataset | Shards, pipeline: Pipeline) -> None:
        """Prepare; nothing is read yet."""
        self.dataset, self.pipeline = dataset, pipeline
        self.kept = _kept_images(dataset, pipeline.spec) if pipeline.resized_crop is None else None

    def unread(self, indices: np.ndarray) -> int:
        """Return how many of ``indices`` must be read from disk."""
        return len(indices) if self.kept is None else int(np.count_nonzero(~self.kept.known[indices]))

    def __getitem__(self, wanted: Wanted) -> Tensor | UsageError:
        """Return uint8 (N, H, W, 3); of a broken image the error, to be raised where the batch is taken."""
        indices, keys = wanted
        height, width = self.pipeline.spec.input_size[1:]
        pixels = torch.empty(len(indices), height, width, 3, dtype=torch.uint8)
        array = pixels.numpy()
        try:
            for i, (index, key) in enumerate(zip(indices.tolist(), keys.tolist(), strict=True)):
                chance = Random(key)
                array[i] = self.pipeline.augment(self._framed(index, chance), chance)
        except UsageError as e:
            return e
        return pixels

    def _framed(self, index: int, chance: Random) -> np.ndarray:
        if self.kept is not None and self.kept.known[index]:
            framed: np.ndarray = self.kept.pixels[index]
            return framed
        pixels = self._read(index, chance)
        if self.kept is not None:
            self.kept.pixels[index] = pixels
            self.kept.known[index] = True
        return pixels

    def _read(self, index: int, chance: Random) -> np.ndarray:
        if isinstance(self.dataset, Shards):
            data = self.dataset.read(index)
            try:
                return self.pipeline.frame(data, chance)
            except UsageError as e:
                name = self.dataset.name(index)
                raise UsageError(f"{name} cannot be used: {e}".replace("the image given as bytes", "it")) from None
        path = self.dataset.samples[index][0]
        try:
            return self.pipeline.frame(path, chance)
        except UsageError as e:
            raise e if str(path) in str(e) else UsageError(f"image '{path}': {e}") from None


def iter_pixels(reader: ImageReader, batches: Sequence[Wanted], workers: int, world: int = 1) -> Iterator[Tensor]:
    """Yield the pixels of each batch, uint8 (N, 3, H, W) in channels-last order.

    Args:
        reader: Of the data set.
        batches: Which images, with which keys.
        workers: Processes; 0: none beside this one, -1: chosen by what is to be read and by the cores of this process.
        world: Processes that train together, here or elsewhere.

    Raises:
        UsageError: A broken image; the message names it.
        EnvironmentRefusedError: A worker process was killed, usually for want of memory.
    """
    if not batches:
        return
    workers = _chosen_workers(reader, batches, world) if workers < 0 else workers
    if "fork" not in multiprocessing.get_all_start_methods():
        workers = 0
    chunks = [_chunks(wanted, reader.pipeline.spec) for wanted in batches]
    results = _from_workers(reader, chunks, workers) if workers else (reader[c] for parts in chunks for c in parts)
    with contextlib.closing(results):
        for parts in chunks:
            yield torch.cat([_sound(next(results)) for _ in parts]).permute(0, 3, 1, 2)


def _sound(result: Tensor | UsageError) -> Tensor:
    if isinstance(result, UsageError):
        raise result
    return result


def _from_workers(reader: ImageReader, chunks: list[list[Wanted]], workers: int) -> Results:
    flat = [chunk for parts in chunks for chunk in parts]
    ahead = max(2, -(-len(chunks[0]) // workers) + 1)  # a whole batch and one chunk more for each
    loader = DataLoader(
        reader,
        batch_size=None,
        sampler=flat,  # any iterable of what the reader takes
        num_workers=min(workers, len(flat)),
        prefetch_factor=ahead,
        multiprocessing_context="fork",
        worker_init_fn=_leave_signals_to_parent,
    )
    results = iter(loader)
    try:
        yield from results
    except RuntimeError as e:
        raise EnvironmentRefusedError(
            f"a process that reads images ended ({str(e).splitlines()[0][:120]}); it may want for memory or for room "
            "in /dev/shm: try fewer with --workers 1, or --workers 0."
        ) from e


def _leave_signals_to_parent(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM go to the whole group: the parent finishes its step and checkpoints first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _chunks(wanted: Wanted, spec: InputSpec) -> list[Wanted]:
    indices, keys = wanted
    _, height, width = spec.input_size
    size = max(1, min(_CHUNK_BYTES // (3 * height * width), 512))
    return [(indices[i : i + size], keys[i : i + size]) for i in range(0, len(indices), size)]


def _chosen_workers(reader: ImageReader, batches: Iterable[Wanted], world: int) -> int:
    indices = np.concatenate([indices for indices, _ in batches])
    if reader.unread(indices) <= FEW_IMAGES and (reader.pipeline.cheap or len(indices) <= FEW_IMAGES):
        return 0
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))  # torchrun's
    return max(1, usable_cores() // max(1, local))


_kept: OrderedDict[tuple[int, InputSpec], tuple[Dataset | Shards, DecodedImages | None]] = OrderedDict()


def _kept_images(dataset: Dataset | Shards, spec: InputSpec) -> DecodedImages | None:
    """Return the decoded images of a data set, the same for each epoch; None where there is no room for them."""
    key = id(dataset), spec  # the entry holds the data set, so that its id stays its own
    if key not in _kept:
        _, height, width = spec.input_size
        room = len(dataset) * height * width * 3 <= _room_bytes()
        _kept[key] = dataset, DecodedImages(len(dataset), (height, width)) if room else None
        while len(_kept) > _KEPT_SETS:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key][1]


def forget_images() -> None:
    """Give back the memory of decoded images."""
    _kept.clear()


def _room_bytes() -> int:
    """Return what decoded images may take: a share of what is free now, on Linux."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
        return min(MAX_KEPT_BYTES, free // 4)
    return MAX_KEPT_BYTES // 4
