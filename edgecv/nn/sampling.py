"""Which images come in which batch, and the key of each: functions of seed, epoch and index alone."""

import numpy as np
import numpy.typing as npt

from edgecv.data.dataset import Dataset
from edgecv.data.shards import Shards, shard_order
from edgecv.errors import UsageError

Wanted = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Indices and keys of the images of one batch, both int64 (N,)."""


def batches_of_epoch(
    data: Dataset | Shards, batch: int, *, epoch: int, seed: int, rank: int, world: int, start: int
) -> list[Wanted]:
    """Return one rank's part of each batch of an epoch from batch ``start`` on.

    Single files are dealt out image by image, so that the ranks together see the batches of one process. Shards are
    divided among the ranks, each of which reads its own; their batches depend on how many ranks there are.

    Args:
        data: Images to train on.
        batch: Images of one step, over all ranks together.
        epoch: Counted from 0.
        seed: Of the order and of the keys.
        rank: Of this process.
        world: How many processes train together.
        start: The first batch wanted.

    Raises:
        UsageError: A batch that cannot be divided among the ranks.
    """
    count = batch_count(len(data), batch)
    size = min(batch, len(data))
    if size < world:
        raise UsageError(f"a batch of {size} images cannot be divided among {world} processes; raise --batch.")
    generator = np.random.default_rng((seed, epoch))
    if isinstance(data, Shards):
        if batch % world:
            raise UsageError(f"--batch {batch} cannot be divided among {world} processes equally; give a multiple.")
        order, share = shard_order(data, generator, rank, world), size // world
        places = [slice(i * share, (i + 1) * share) for i in range(start, count)]
    else:
        order = generator.permutation(len(data))
        places = [slice(i * size + rank, (i + 1) * size, world) for i in range(start, count)]
    keys = image_keys(order, epoch, seed)
    return [(order[place], keys[place]) for place in places]


def batch_count(images: int, batch: int) -> int:
    """Return how many batches an epoch has: an incomplete last one is left out, unless it is the only one."""
    return max(1, images // batch)


def image_keys(indices: np.ndarray, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    """Return int64 keys of the images at ``indices`` in an epoch, none negative: SplitMix64 (Steele et al. 2014)."""
    key = np.zeros(len(indices), np.uint64)
    for part in (np.uint64(seed), np.uint64(epoch), indices.astype(np.uint64)):
        key = _mix(key + part)
    return (key >> np.uint64(1)).astype(np.int64)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
