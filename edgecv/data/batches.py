"""Batches of preprocessed images, decoded in threads ahead of use; memory does not grow with the data set."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecv.data.ahead import map_ahead
from edgecv.data.dataset import Dataset
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.progress import Progress, no_progress
from edgecv.runtime.preprocess import preprocess

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that go through a model together; the last one of a data set may be smaller.

    Attributes:
        images: uint8 (N, H, W, 3), RGB, resized and cropped as the model wants it.
        labels: int64 (N,), label indices; :data:`UNLABELLED` where there is none.
        indices: int64 (N,), positions in the data set.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]


def iter_batches(
    dataset: Dataset,
    spec: InputSpec,
    batch_size: int,
    *,
    workers: int | None = None,
    limit: int | None = None,
    on_error: str = "raise",
    read: Callable[[Path, InputSpec], npt.NDArray[np.uint8]] | None = None,
    progress: Progress = no_progress,
    label: str = "images",
) -> Generator[Batch, None, None]:
    """Yield the data set in order, ``batch_size`` images at a time, decoded by ``runtime.preprocess``.

    Args:
        dataset: What to read.
        spec: Size, crop and interpolation of the model.
        batch_size: Images to a batch; the last may be smaller.
        workers: Decoding threads; the usable cores when None.
        limit: Take this many images only, evenly spaced over the data set (``Batch.indices`` stay those of the
            whole data set).
        on_error: ``raise``, or ``skip`` to leave broken images out: their positions are then in no batch.
        read: Makes the pixels of one file, any shape; ``runtime.preprocess.preprocess`` when None.
        progress: Told after each batch.
        label: What ``progress`` calls the work.

    Raises:
        UsageError: An image is missing, damaged or not an image; the message names it. With ``skip``: all are.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error {on_error!r} is neither raise nor skip")
    total = len(dataset) if limit is None else min(limit, len(dataset))
    positions = [i * len(dataset) // total for i in range(total)]

    def load(index: int) -> npt.NDArray[np.uint8] | UsageError:
        path = dataset.samples[index][0]
        try:
            return (read or preprocess)(path, spec)
        except UsageError as e:
            return e if str(path) in str(e) else UsageError(f"image '{path}': {e}")

    images: list[npt.NDArray[np.uint8]] = []
    indices: list[int] = []
    used = 0
    with closing(map_ahead(load, positions, workers=workers, ahead=batch_size + 2 * (workers or 2))) as loaded:
        for done, (index, result) in enumerate(zip(positions, loaded, strict=True), 1):
            if not isinstance(result, UsageError):
                images.append(result)
                indices.append(index)
            elif on_error == "raise":
                raise result
            if len(images) == batch_size or (done == total and images):
                yield _batch(dataset, images, indices)
                used += len(images)
                images, indices = [], []
                progress(label, done, total)
    if not used:
        raise UsageError(f"none of the {total} images in '{dataset.root}' can be read; run: edgecv data check")


def _batch(dataset: Dataset, images: list[npt.NDArray[np.uint8]], indices: list[int]) -> Batch:
    labels = [dataset.samples[i][1] for i in indices]
    return Batch(
        np.stack(images),
        np.array([UNLABELLED if x is None else x for x in labels], np.int64),
        np.array(indices, np.int64),
    )
