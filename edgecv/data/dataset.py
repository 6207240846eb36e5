"""A data set: which images, in which order, of which class; nothing is decoded here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecv.errors import UsageError


@dataclass(frozen=True, slots=True)
class Dataset:
    """A list of images, in a fixed order.

    Attributes:
        root: The folder every path is inside of.
        samples: ``(path, label index)``; the index is None when the images, or the model, have no labels.
        class_names: Class names as the data has them, sorted; empty for unlabelled images.
        class_indices: For each sample the position of its class in ``class_names``, or -1.
        num_classes: How many classes the model has; 0 when no labels were given.
        skipped: Files that are not images by their name.
        unreadable: What has an image's name and is no file: pipes, devices, links that lead nowhere. Never opened.
    """

    root: Path
    samples: tuple[tuple[Path, int | None], ...]
    class_names: tuple[str, ...] = ()
    class_indices: tuple[int, ...] = ()
    num_classes: int = 0
    skipped: int = 0
    unreadable: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label index of the model."""
        return all(label is not None for _, label in self.samples)

    @property
    def partial(self) -> bool:
        """Whether some of the model's classes have no image here."""
        return self.labelled and len({label for _, label in self.samples}) < self.num_classes

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """Return the samples at ``indices``, in that order."""
        return replace(
            self,
            samples=tuple(self.samples[i] for i in indices),
            class_indices=tuple(self.class_indices[i] for i in indices),
        )

    def limited(self, limit: int | None) -> "Dataset":
        """Return at most ``limit`` samples, evenly spaced over the list, so that every class keeps its share."""
        if limit is None or limit >= len(self):
            return self
        return self.subset([i * len(self) // limit for i in range(limit)])


def unreadable_notes(dataset: Dataset) -> list[str]:
    """Return a sentence about :attr:`Dataset.unreadable` for a report, or nothing."""
    count = len(dataset.unreadable)
    if not count:
        return []
    return [
        f"left out: {count} broken links or pipes with an image's name (first: '{dataset.unreadable[0]}'); list them "
        "with: edgecv data check"
    ]


def check_inside(path: Path, root: Path) -> Path:
    """Return the file that ``path`` leads to, its links followed.

    Raises:
        UsageError: It is not inside ``root`` (already resolved), its links go round in a circle, or its name is longer
            than the file system takes.
    """
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as e:  # RuntimeError: how Python 3.11 and 3.12 tell a circle of links
        raise UsageError(f"'{shorten(path)}' cannot be followed ({_reason(e)}); check the name and its links.") from e
    if not target.is_relative_to(root):
        raise UsageError(f"'{shorten(path)}' leads outside the data folder '{root}'; copy the file into it.")
    return target


def _reason(error: OSError | RuntimeError) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or "its links go round in a circle"


def shorten(path: Path | str, characters: int = 200) -> str:
    """Return a path for a message, cut when nobody would read it to its end."""
    text = str(path)
    return text if len(text) <= characters else f"{text[:characters]}…"
