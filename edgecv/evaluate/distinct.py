"""Images that count: each content once, and none that a judged model was calibrated with.

Statistics take images for independent draws; a copy is not one. Equality is by SHA-256 of the file's bytes. A picture
saved again is another file to it: a manifest keeps the hashes of calibration images alone, no pictures to compare
with, so nearly equal ones are found only where both sets are at hand (``edgecv data check SET --against OTHER``).
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgecv.data.ahead import map_ahead
from edgecv.data.dataset import Dataset
from edgecv.errors import UsageError
from edgecv.files import MAX_IMAGE_BYTES, check_regular_file, sha256_file
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Distinct:
    """The images of a data set without copies.

    Attributes:
        positions: Of each content's first image, in order.
        hashes: Their SHA-256 digests, 32 bytes each.
        copies: How many images were left out.
        conflicting: How many of those have another label than the one that stayed.
    """

    positions: tuple[int, ...]
    hashes: tuple[bytes, ...]
    copies: int
    conflicting: int

    def notes(self) -> list[str]:
        """Return a sentence about the copies for a report, or nothing."""
        if not self.copies:
            return []
        total = len(self.positions) + self.copies
        text = f"{self.copies} of {total} images are copies of others (equal bytes); each picture is judged once"
        if self.conflicting:
            text += f"; {self.conflicting} of them have another class than the one judged: edgecv data check lists them"
        return [text]


@dataclass(frozen=True, slots=True)
class Leak:
    """Images of a data set that a model was calibrated with."""

    count: int
    first: str


def find_distinct(dataset: Dataset, progress: Progress = no_progress) -> Distinct:
    """Hash every image, in threads.

    Raises:
        UsageError: A file is missing, empty or no regular file.
    """
    first: dict[bytes, int] = {}
    conflicting = 0
    paths = [path for path, _ in dataset.samples]
    with closing(map_ahead(_hash, paths)) as hashes:
        for i, digest in enumerate(hashes):
            kept = first.setdefault(digest, i)
            conflicting += dataset.class_indices[kept] != dataset.class_indices[i]
            progress("looking for copies", i + 1, len(paths))
    return Distinct(tuple(first.values()), tuple(first), len(paths) - len(first), conflicting)


def check_leak(dataset: Dataset, distinct: Distinct, manifests: Sequence[Manifest], *, allow: bool) -> Leak | None:
    """Compare the images' SHA-256 with those recorded in the manifests.

    Args:
        dataset: What ``distinct`` was found in.
        distinct: From :func:`find_distinct`.
        manifests: Of the models that are judged.
        allow: Judge nevertheless.

    Returns:
        None when nothing leaks; the leak when ``allow``, to be stated in the report.

    Raises:
        UsageError: Something leaks and ``allow`` is false; the message has the count and the first file.
    """
    used = {sha for manifest in manifests for sha in manifest.calibration}
    leaked = [i for i, digest in zip(distinct.positions, distinct.hashes, strict=True) if digest.hex() in used]
    if not leaked:
        return None
    first = dataset.samples[leaked[0]][0]
    if not allow:
        raise UsageError(
            f"{len(leaked)} of {len(distinct.positions)} images were used to calibrate the model (first: '{first}'), "
            "so they would flatter it; judge on other images, or add --allow-leak to see the figures nevertheless."
        )
    return Leak(len(leaked), str(first))


def _hash(path: Path) -> bytes:
    check_regular_file(path, "image", MAX_IMAGE_BYTES)
    return bytes.fromhex(sha256_file(path))
