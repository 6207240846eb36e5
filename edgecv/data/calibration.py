"""Choosing images to calibrate a quantized model with, every class alike."""

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from edgecv.data.dataset import Dataset
from edgecv.errors import UsageError


def draw_calibration(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Return ``count`` images: one of each class in turn, classes and images in random order.

    Class sizes differ by at most one until a class runs out. Unlabelled images are drawn evenly. Draw from the
    training side: an image calibrated with may not judge the model.

    Args:
        dataset: With or without classes.
        count: How many images; 100 to 500 are customary.
        seed: Same data, count and seed give the same draw.

    Raises:
        UsageError: The data set has fewer images.
    """
    if not 1 <= count <= len(dataset):
        raise UsageError(
            f"'{dataset.root}' has {len(dataset)} images, so {count} cannot be drawn; use -n {len(dataset)}."
        )
    generator = np.random.default_rng(seed)
    by_class: dict[int, list[int]] = defaultdict(list)
    for i in generator.permutation(len(dataset)).tolist():
        by_class[dataset.class_indices[i]].append(i)
    order = [list(by_class)[k] for k in generator.permutation(len(by_class)).tolist()]
    drawn: list[int] = []
    depth = 0
    while len(drawn) < count:
        drawn += [by_class[c][depth] for c in order if depth < len(by_class[c])][: count - len(drawn)]
        depth += 1
    return dataset.subset(sorted(drawn))


def copy_images(dataset: Dataset, folder: Path) -> None:
    """Copy the images to ``folder/<class>/…``, complete or not at all; a small set that travels on its own.

    Raises:
        UsageError: The folder exists, or cannot be written.
    """
    if folder.exists():
        raise UsageError(f"'{folder}' exists already; choose another -o (a name ending in .csv writes a list instead).")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as e:
        raise UsageError(f"cannot write '{folder}': {e.strerror}.") from e
    try:
        for (path, _), c in zip(dataset.samples, dataset.class_indices, strict=True):
            target = temporary / (dataset.class_names[c] if c >= 0 else "") / path.name
            target.parent.mkdir(exist_ok=True)
            if target.exists():  # two files of one name from different inner folders
                target = target.with_name("_".join(path.relative_to(dataset.root).parts))
            shutil.copyfile(path, target)
        temporary.chmod(0o755)
        temporary.replace(folder)
    except OSError as e:
        raise UsageError(f"cannot write '{folder}': {e.strerror or e}.") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
