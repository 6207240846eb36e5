"""Calibration images must not judge the model that was calibrated with them."""

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
class Leak:
    """Images of a data set that a model was calibrated with."""

    count: int
    first: str


def check_leak(
    dataset: Dataset, manifests: Sequence[Manifest], *, allow: bool, progress: Progress = no_progress
) -> Leak | None:
    """Compare each image's SHA-256 with those recorded in the manifests.

    Returns:
        None when nothing leaks; the leak when ``allow``, to be stated in the report.

    Raises:
        UsageError: Something leaks and ``allow`` is false; the message has the count and the first file.
    """
    used = {sha for manifest in manifests for sha in manifest.calibration}
    if not used:
        return None
    paths = [path for path, _ in dataset.samples]
    leaked: list[Path] = []
    with closing(map_ahead(_hash, paths)) as hashes:
        for done, (path, sha) in enumerate(zip(paths, hashes, strict=True), 1):
            progress("looking for calibration images", done, len(paths))
            if sha in used:
                leaked.append(path)
    if not leaked:
        return None
    if not allow:
        raise UsageError(
            f"{len(leaked)} of {len(paths)} images were used to calibrate the model (first: '{leaked[0]}'), so they "
            "would flatter it; judge on other images, or add --allow-leak to see the figures nevertheless."
        )
    return Leak(len(leaked), str(leaked[0]))


def _hash(path: Path) -> str:
    check_regular_file(path, "image", MAX_IMAGE_BYTES)
    return sha256_file(path)
