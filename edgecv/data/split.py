"""Dividing a data set into train, val and test so that no picture is on two sides."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgecv.data.archive import UNPACKED
from edgecv.data.dataset import Dataset
from edgecv.data.duplicates import group_copies, group_duplicates
from edgecv.data.fingerprint import iter_fingerprints
from edgecv.errors import UsageError
from edgecv.files import write_atomically
from edgecv.progress import Progress, no_progress
from edgecv.workspace import user_cache


def split_dataset(
    dataset: Dataset,
    val: float,
    test: float,
    seed: int,
    progress: Progress = no_progress,
    *,
    nearly_equal: bool = True,
) -> dict[str, Dataset]:
    """Return ``train``, ``val`` and ``test`` (those with a share above 0), disjoint and complete.

    Equal and nearly equal pictures stay together (:func:`edgecv.data.duplicates.group_duplicates`). Each class
    is divided on its own, as closely as whole groups allow; what one class could not give is owed by the next,
    and each class keeps at least one group for training. Same data, shares and seed give the same split.

    Args:
        dataset: With or without classes.
        val: Share of each class for validation, 0 to 1.
        test: Share of each class for the test.
        seed: Of the shuffle.
        progress: Told after each image read.
        nearly_equal: False to keep together equal bytes only, without decoding an image.

    Raises:
        UsageError: Shares that leave nothing to train on or are all 0, a broken image, or too few images to
            give each side one.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and 0 < val + test < 1):
        raise UsageError(f"shares val {val} and test {test} must not be negative and add up to more than 0, under 1.")
    paths = [p for p, _ in dataset.samples]
    prints = list(iter_fingerprints(paths, progress=progress, decode=nearly_equal))
    for item in prints:
        if item.error:
            raise UsageError(f"image '{item.path}' {item.error} All of them: edgecv data check {dataset.root}")
    groups = group_duplicates(prints) if nearly_equal else group_copies(prints)
    alone = set(range(len(prints))) - {i for group in groups for i in group}
    by_class: dict[int, list[list[int]]] = defaultdict(list)
    for group in sorted([*groups, *([i] for i in alone)]):
        by_class[_main_class(dataset, group)].append(group)
    generator = np.random.default_rng(seed)
    sides: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    owed = {"test": 0.0, "val": 0.0}
    for _, members in sorted(by_class.items()):
        images = sum(len(group) for group in members)
        owed = {"test": owed["test"] + test * images, "val": owed["val"] + val * images}
        _deal(members, owed, generator, sides)
    wanted = ["train", *(name for name, share in (("val", val), ("test", test)) if share)]
    for name in wanted:
        if not sides[name]:
            raise UsageError(
                f"{len(dataset)} images in {max(1, len(dataset.class_names))} classes are too few for a '{name}' side "
                "with these shares; raise the share or add images."
            )
    return {name: dataset.subset(sorted(sides[name])) for name in wanted}


def check_list_place(path: Path, dataset: Dataset) -> None:
    """Refuse a list whose folder does not hold the images: paths in a list may not leave its folder.

    Raises:
        UsageError: Says where to write it instead.
    """
    if dataset.root.is_relative_to(user_cache(UNPACKED)):
        raise UsageError("a list cannot name images inside a zip; unpack it and give the folder.")
    folder = path.parent.resolve()
    for image, _ in dataset.samples:
        if not image.resolve().is_relative_to(folder):
            raise UsageError(
                f"a list at '{path}' could not name '{image}', because paths in a list may not leave its folder; "
                f"write it into '{dataset.root}' or a folder above it, or let 'data calib -o FOLDER' copy the images."
            )


def write_lists(lists: Mapping[Path, Dataset]) -> None:
    """Write each data set as CSV with ``path`` (relative to the CSV's folder) and, with classes, ``label``.

    Raises:
        UsageError: See :func:`check_list_place`; or a file cannot be written.
    """
    for path, dataset in lists.items():
        check_list_place(path, dataset)
    for path, dataset in lists.items():
        rows = _rows(dataset, path.parent.resolve())
        write_atomically(path, lambda temporary, rows=rows: _write(temporary, rows))  # type: ignore[misc]


def _main_class(dataset: Dataset, group: Sequence[int]) -> int:
    counts = Counter(dataset.class_indices[i] for i in group)
    return min(counts, key=lambda c: (-counts[c], c))


def _deal(
    groups: list[list[int]], owed: dict[str, float], generator: np.random.Generator, sides: dict[str, list[int]]
) -> None:
    """Deal one class's groups; ``owed`` carries over what whole images could not meet in the classes before."""
    rest = [groups[i] for i in generator.permutation(len(groups))]
    for name in owed:
        kept: list[list[int]] = []
        for i, group in enumerate(rest):
            others_left = len(kept) + len(rest) - i > 1
            if others_left and len(group) <= owed[name] + 0.5:
                sides[name] += group
                owed[name] -= len(group)
            else:
                kept.append(group)
        rest = kept
    sides["train"] += [i for group in rest for i in group]


def _rows(dataset: Dataset, folder: Path) -> list[tuple[str, ...]]:
    paths = [str(p.resolve().relative_to(folder)) for p, _ in dataset.samples]
    if not dataset.class_names:
        return [("path",), *((p,) for p in paths)]
    labels = [dataset.class_names[c] for c in dataset.class_indices]
    return [("path", "label"), *zip(paths, labels, strict=True)]


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows(rows)
