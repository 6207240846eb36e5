"""The images a network is judged by while it learns: a share of each class, recorded for later runs."""

import csv
from collections.abc import Iterable
from pathlib import Path

from edgecv.data.dataset import Dataset
from edgecv.data.lists import MAX_LIST_BYTES
from edgecv.data.split import split_dataset
from edgecv.errors import UsageError
from edgecv.files import check_regular_file, write_atomically
from edgecv.progress import Progress, no_progress

SPLIT_FILE = "split.csv"
"""In the run folder: ``path`` (relative to the data), ``label``, ``side`` (train or held-out)."""

MAX_COMPARED = 20_000
"""Images up to which nearly equal pictures are kept on one side; above, those of equal bytes."""

_SIDES = ("train", "held-out")


def divide(
    dataset: Dataset, share: float, seed: int, record: Path, progress: Progress = no_progress
) -> tuple[Dataset, Dataset, list[str]]:
    """Return the images to train on, those held out, and notes.

    Args:
        dataset: Every image, with classes.
        share: Of each class to hold out, between 0 and 1.
        seed: Of the division.
        record: Where the division is written; taken from there when it exists.
        progress: Told after each image read.

    Raises:
        UsageError: Too few images, a broken image, or a record of other images.
    """
    if record.exists():
        train, judged = _read_record(dataset, record)
        return train, judged, [f"{len(judged)} of {len(dataset)} images are held out as '{record}' says"]
    near = len(dataset) <= MAX_COMPARED
    sides = split_dataset(dataset, share, 0, seed, progress, nearly_equal=near)
    train, judged = sides["train"], sides["val"]
    write_atomically(record, lambda temporary: _write_record(temporary, train, judged))
    copies = "copies and near copies" if near else "copies (of equal bytes)"
    return (
        train,
        judged,
        [
            f"{len(judged)} of {len(dataset)} images are held out to judge by, class by class, {copies} on one side: "
            f"'{record}'"
        ],
    )


def check_apart(train: Dataset, judged: Dataset) -> None:
    """Raise UsageError when a file is in both: accuracy on what was learnt from says nothing."""
    files = {path.resolve() for path, _ in train.samples}
    both = [path for path, _ in judged.samples if path.resolve() in files]
    if both:
        raise UsageError(
            f"{len(both)} images to judge by are trained on too (first: '{both[0]}'); give disjoint sets, or leave "
            "--eval-data away to have a share held out."
        )


def _rows(dataset: Dataset, side: str) -> Iterable[tuple[str, str, str]]:
    for (path, _), c in zip(dataset.samples, dataset.class_indices, strict=True):
        yield str(path.relative_to(dataset.root)), dataset.class_names[c], side


def _write_record(path: Path, train: Dataset, judged: Dataset) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(("path", "label", "side"))
        for side, dataset in zip(_SIDES, (train, judged), strict=True):
            writer.writerows(_rows(dataset, side))


def _read_record(dataset: Dataset, record: Path) -> tuple[Dataset, Dataset]:
    check_regular_file(record, "division", MAX_LIST_BYTES)
    known = {(path, label): i for i, (path, label, _) in enumerate(_rows(dataset, ""))}
    sides: dict[str, list[int]] = {side: [] for side in _SIDES}
    remedy = "train on the same images, or into a new folder with -o."
    try:
        with record.open(newline="", encoding="utf-8", errors="surrogateescape") as f:
            for row in csv.DictReader(f):
                index = known.pop((row["path"], row["label"]), None)
                if index is None:
                    raise UsageError(
                        f"'{record}' names '{row['path']}' of class '{row['label']}', which is not in "
                        f"'{dataset.root}'; {remedy}"
                    )
                sides[row["side"]].append(index)
    except (csv.Error, UnicodeDecodeError, KeyError) as e:
        raise UsageError(f"'{record}' is damaged ({e}); delete it, or train into a new folder with -o.") from e
    if known:
        raise UsageError(f"'{record}' does not name '{next(iter(known))[0]}' of '{dataset.root}'; {remedy}")
    train, judged = (dataset.subset(sorted(sides[side])) for side in _SIDES)
    return train, judged
