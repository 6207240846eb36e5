"""Looking a data set over: broken files, copies, conflicting labels, images that two sets share."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgecv.data.dataset import Dataset
from edgecv.data.duplicates import group_duplicates
from edgecv.data.fingerprint import Fingerprint, iter_fingerprints
from edgecv.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found; paths are relative to their data set's root.

    Attributes:
        images: Files looked at.
        skipped: Files that are not images by their name.
        images_per_class: By class name; empty for unlabelled images.
        formats: Files by Pillow's format name.
        width_range: Smallest and largest width in pixels.
        height_range: The same for heights.
        broken: ``(path, why)`` of files that cannot be decoded whole, and of pipes, devices and links that lead
            nowhere with an image's name.
        identical: Groups of files with equal bytes, within one class.
        similar: Groups of nearly equal pictures, within one class.
        conflicting: Groups of equal or nearly equal pictures that stand in different classes.
        shared: ``(path here, path there)`` of equal or nearly equal pictures in the two data sets.
        calibration: Files that a model was calibrated with.
    """

    images: int
    skipped: int
    images_per_class: dict[str, int]
    formats: dict[str, int]
    width_range: tuple[int, int]
    height_range: tuple[int, int]
    broken: list[tuple[str, str]] = field(default_factory=list)
    identical: list[list[str]] = field(default_factory=list)
    similar: list[list[str]] = field(default_factory=list)
    conflicting: list[list[str]] = field(default_factory=list)
    shared: list[tuple[str, str]] = field(default_factory=list)
    calibration: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that must be mended; copies within one class only cost some precision."""
        return not (self.broken or self.conflicting or self.shared or self.calibration)


def audit_dataset(
    dataset: Dataset,
    against: Dataset | None = None,
    *,
    calibration: Collection[str] = (),
    progress: Progress = no_progress,
) -> Audit:
    """Read every image once and report what is wrong with the set.

    Memory holds a fingerprint of some hundred bytes an image, never a picture.

    Args:
        dataset: The set to look over.
        against: Another set that must share no picture with this one.
        calibration: SHA-256 of the images a model was calibrated with; using them to judge it is a leak.
        progress: Told after each image.
    """
    prints = list(iter_fingerprints([p for p, _ in dataset.samples], progress=progress))
    others: list[Fingerprint] = []
    if against is not None:
        paths = [p for p, _ in against.samples]
        others = list(iter_fingerprints(paths, progress=progress, label="reading the other set"))
    names = _names(dataset)
    usable = [p for p in prints if not p.error]
    audit = Audit(
        images=len(prints),
        skipped=dataset.skipped,
        images_per_class=dict(Counter(dataset.class_names[c] for c in dataset.class_indices if c >= 0)),
        formats=dict(sorted(Counter(p.format for p in usable).items())),
        width_range=_range([p.size[0] for p in usable]),
        height_range=_range([p.size[1] for p in usable]),
        broken=[*((names[i], p.error) for i, p in enumerate(prints) if p.error), *_unreadable(dataset)],
        calibration=[names[i] for i, p in enumerate(prints) if p.sha256 in calibration],
    )
    _sort_groups(audit, dataset, prints, others, names, _names(against) if against else [])
    return audit


def to_json(audit: Audit) -> dict[str, Any]:
    """Return the audit as JSON-ready values, ``ok`` included."""
    return {"ok": audit.ok, **{name: getattr(audit, name) for name in Audit.__dataclass_fields__}}


def _sort_groups(
    audit: Audit,
    dataset: Dataset,
    prints: Sequence[Fingerprint],
    others: Sequence[Fingerprint],
    names: Sequence[str],
    other_names: Sequence[str],
) -> None:
    for group in group_duplicates([*prints, *others]):
        here = [i for i in group if i < len(prints)]
        there = [i - len(prints) for i in group if i >= len(prints)]
        if there:
            audit.shared.extend((names[i], other_names[there[0]]) for i in here)
        if len(here) < 2:
            continue
        shown = [names[i] for i in here]
        if len({dataset.class_indices[i] for i in here}) > 1:
            audit.conflicting.append(shown)
        elif len({prints[i].sha256 for i in here}) == 1:
            audit.identical.append(shown)
        else:
            audit.similar.append(shown)


def _unreadable(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (
            str(p.relative_to(dataset.root)),
            "is a link that leads nowhere." if p.is_symlink() else "is not a regular file.",
        )
        for p in dataset.unreadable
    ]


def _names(dataset: Dataset) -> list[str]:
    return [str(p.relative_to(dataset.root)) for p, _ in dataset.samples]


def _range(values: Sequence[int]) -> tuple[int, int]:
    return (min(values), max(values)) if values else (0, 0)
