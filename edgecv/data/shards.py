"""Images packed into tar files, as WebDataset lays them out: for sets too large to lie about as single files.

A sample is ``KEY.jpg`` (or another image) and ``KEY.cls`` (its class number) in one uncompressed tar; ``classes.txt``
beside the tars names a class a line. Each tar is looked through once for where its images lie; then single images are
read from their place, so that order, resuming and workers are those of every other data set, and nothing is unpacked.
"""

import hashlib
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from edgecv.data.dataset import Dataset
from edgecv.data.folder import IMAGE_SUFFIXES
from edgecv.errors import UsageError
from edgecv.files import MAX_IMAGE_BYTES, MAX_TEXT_BYTES, check_regular_file, read_file, write_atomically
from edgecv.progress import Progress, no_progress
from edgecv.workspace import user_cache

MAX_SHARD_BYTES = 1 << 40
MAX_SHARDS = 1_000_000
MIXED_SHARDS = 8
"""Shards whose images are shuffled together: few enough to stay in the page cache, usual ones have 0.1 to 1 GB."""

_CLASSES = "classes.txt"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_LABEL_BYTES = 16
_PLACE = np.dtype([("offset", "<i8"), ("bytes", "<i8"), ("label", "<i4"), ("shard", "<i4")])


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """Labelled images inside tar files, in the order of the tars.

    Attributes:
        root: The folder of the tars.
        paths: The tars.
        places: Structured (N,): ``offset``, ``bytes``, ``label`` and ``shard`` (position in ``paths``) of each image.
        class_names: By class number.
    """

    root: Path
    paths: tuple[Path, ...]
    places: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> bytes:
        """Return the bytes of one image file.

        Raises:
            UsageError: The tar is gone or shorter than it was.
        """
        place = self.places[index]
        try:
            with self.paths[place["shard"]].open("rb") as f:
                f.seek(int(place["offset"]))
                data: bytes = f.read(int(place["bytes"]))
        except OSError as e:
            raise UsageError(f"{self.name(index)} cannot be read: {e.strerror}.") from e
        if len(data) != place["bytes"]:
            raise UsageError(f"{self.name(index)} is cut off: the tar became shorter; fetch it again.")
        return data

    def name(self, index: int) -> str:
        """Return what to call one image in a message."""
        place = self.places[index]
        return f"the image at byte {place['offset']} of '{self.paths[place['shard']]}'"

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Shards":
        """Return the images at ``indices``, in that order."""
        return replace(self, places=self.places[np.asarray(indices, np.int64)])

    def limited(self, limit: int | None) -> "Shards":
        """Return at most ``limit`` images, evenly spaced."""
        if limit is None or limit >= len(self):
            return self
        return self.subset(np.arange(limit) * len(self) // limit)


def are_shards(path: Path) -> bool:
    """Return whether ``path`` names tars: ``train-{000..099}.tar`` or one ``.tar``."""
    return path.suffix.lower() == ".tar"


def open_shards(pattern: Path, progress: Progress = no_progress) -> Shards:
    """Find the images in the tars that ``pattern`` names.

    Args:
        pattern: A tar, or several by one range of numbers in its name, as in ``train-{000..099}.tar``.
        progress: Told after each tar.

    Raises:
        UsageError: A tar is missing, damaged or compressed, an image has no class, or a class has no name.
    """
    paths = _expand(pattern)
    parts = []
    for i, path in enumerate(paths):
        part = _places(path)
        part["shard"] = i
        parts.append(part)
        progress("looking through shards", i + 1, len(paths))
    places = np.concatenate(parts)
    return Shards(pattern.parent, paths, places, _class_names(pattern.parent / _CLASSES, int(places["label"].max())))


def single_files(data: Dataset | Shards) -> Dataset:
    """Return a data set of single files as it is.

    Raises:
        UsageError: It is one of shards.
    """
    if isinstance(data, Shards):
        raise UsageError(
            f"'{data.paths[0]}' is a shard, which training alone reads; name a folder of images for the other steps."
        )
    return data


def hold_out(shards: Shards, share: float, seed: int) -> tuple[Shards, Shards]:
    """Return the images to train on and a ``share`` of each class to judge by; a function of the seed.

    Raises:
        UsageError: A share that leaves one side without images.
    """
    drawn = np.random.default_rng(seed).random(len(shards))
    judged = np.zeros(len(shards), bool)
    for label in range(len(shards.class_names)):
        members = np.flatnonzero(shards.places["label"] == label)
        judged[members[np.argsort(drawn[members], kind="stable")[: round(share * len(members))]]] = True
    if judged.all() or not judged.any():
        raise UsageError(f"a share of {share:g} of {len(shards)} images leaves none to train on or to judge by.")
    return shards.subset(np.flatnonzero(~judged)), shards.subset(np.flatnonzero(judged))


def shard_order(shards: Shards, generator: np.random.Generator, rank: int, world: int) -> np.ndarray:
    """Return one rank's indices in random order: tars are shuffled, and images among :data:`MIXED_SHARDS` tars.

    Each rank has an equal part of the images, from tars that no other rank reads but for those at the borders.
    """
    count = len(shards) // world
    part = shards.places["shard"][rank * count : (rank + 1) * count]
    turn = generator.permutation(len(shards.paths))
    window = turn[part] // MIXED_SHARDS
    found: np.ndarray = np.lexsort((generator.random(count), window)) + rank * count
    return found


def _expand(pattern: Path) -> tuple[Path, ...]:
    ranges = list(_RANGE.finditer(pattern.name))
    if not ranges:
        return (pattern,)
    found = ranges[0]
    first, last, digits = int(found[1]), int(found[2]), len(found[1])
    if len(ranges) > 1 or not 0 <= last - first < MAX_SHARDS:
        raise UsageError(f"'{pattern}' must have one range of numbers, first to last, as in train-{{000..099}}.tar.")
    start, end = pattern.name[: found.start()], pattern.name[found.end() :]
    return tuple(pattern.with_name(f"{start}{i:0{digits}d}{end}") for i in range(first, last + 1))


def _places(path: Path) -> np.ndarray:
    """Return where the images of one tar lie, from the record in the user's cache when the tar is unchanged."""
    size = check_regular_file(path, "shard", MAX_SHARD_BYTES)
    stamp = f"{path.resolve()}\0{size}\0{path.stat().st_mtime_ns}"
    record = user_cache("shards") / f"{hashlib.sha256(stamp.encode('utf-8', 'surrogateescape')).hexdigest()}.npy"
    try:
        known = np.load(record, allow_pickle=False)
        if known.dtype == _PLACE and known.ndim == 1 and len(known):
            return np.asarray(known)
    except (OSError, ValueError, EOFError):
        pass
    found = _scan(path)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, lambda temporary: _save(temporary, found))
    except (OSError, UsageError):
        pass  # only slower the next time
    return found


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as f:
        np.save(f, array, allow_pickle=False)


def _scan(path: Path) -> np.ndarray:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, suffix = _split_name(member.name)
                if not member.isreg() or member.issparse():
                    continue
                if suffix in IMAGE_SUFFIXES:
                    images[key] = _checked_image(path, member, key in images)
                elif suffix == ".cls":
                    labels[key] = _read_label(path, tar, member)
    except (tarfile.TarError, OSError, EOFError) as e:
        raise UsageError(f"shard '{path}' is damaged or no uncompressed tar ({e}); pack it again.") from e
    if missing := images.keys() - labels.keys():
        raise UsageError(f"shard '{path}' holds no '{min(missing)}.cls' beside the image; each needs its class number.")
    if not images:
        raise UsageError(f"shard '{path}' holds no images; it must hold KEY.jpg and KEY.cls of each.")
    return np.array([(*images[key], labels[key], 0) for key in images], _PLACE)


def _split_name(name: str) -> tuple[str, str]:
    """Return key and suffix as WebDataset does: the key ends at the first dot of the file's name."""
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, (dot + suffix).lower()


def _checked_image(path: Path, member: tarfile.TarInfo, twice: bool) -> tuple[int, int]:
    if twice:
        raise UsageError(f"shard '{path}' holds two images of the key of '{member.name}'; give each its own.")
    if not 0 < member.size <= MAX_IMAGE_BYTES:
        raise UsageError(f"shard '{path}': '{member.name}' has {member.size} bytes, not 1 to {MAX_IMAGE_BYTES}.")
    return member.offset_data, member.size


def _read_label(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = tar.extractfile(member) if member.size <= _MAX_LABEL_BYTES else None
    text = file.read().strip() if file else b""
    if not text.isdigit() or int(text) > np.iinfo(np.int32).max:
        raise UsageError(f"shard '{path}': '{member.name}' is not a class number (0, 1, …).")
    return int(text)


def _class_names(path: Path, largest: int) -> tuple[str, ...]:
    if not path.exists():
        raise UsageError(f"'{path}' is missing: it names the classes of the shards, one a line, class 0 first.")
    try:
        lines = read_file(path, "class list", MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise UsageError(f"'{path}' is not UTF-8 text; write it again.") from e
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) != len(names):
        raise UsageError(f"'{path}' names a class twice.")
    if largest >= len(names):
        raise UsageError(f"the shards beside '{path}' have class {largest}, and it names {len(names)} classes from 0.")
    return names
