"""Finding the images of a data set and their classes: class folders, a zip of them, CSV, a flat folder, a list."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecv.data.archive import unpack_archive
from edgecv.data.classes import match_classes
from edgecv.data.dataset import Dataset, check_inside, shorten
from edgecv.data.lists import read_csv, read_list
from edgecv.errors import UsageError
from edgecv.files import MAX_IMAGE_BYTES, check_regular_file
from edgecv.progress import Progress, no_progress

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
"""File names taken for images, in any case; the rest is skipped and counted."""

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def open_dataset(
    path: Path,
    labels: Sequence[str] = (),
    label_ids: Sequence[str] = (),
    num_classes: int = 0,
    progress: Progress = no_progress,
) -> Dataset:
    """List the images at ``path`` without opening them.

    A folder holds class folders (``root/<class>/**/*.jpg``) or images without classes; a ``.zip`` is such a folder
    packed, see :mod:`edgecv.data.archive`; a ``.csv`` has the columns ``path`` and, if there are classes, ``label``,
    with paths relative to its own folder; a ``.txt`` has one such path a line; any other file is one image. Hidden
    files are ignored. Links are followed to files inside the folder only.

    Args:
        path: Folder, CSV, list, or image.
        labels: The model's label texts by index. With neither labels nor ids nor ``num_classes``, classes are
            kept by name and label indices are None.
        label_ids: The model's folder names by index.
        num_classes: How many classes the model has, where it carries no labels.
        progress: Told while an archive is unpacked.

    Raises:
        UsageError: Nothing there, no image in it, a folder of splits, images beside class folders, a path that
            leads outside, or a class the model does not know.
    """
    if path.suffix.lower() == ".tar":
        raise UsageError(f"'{path}' names shards, which training alone reads; unpack some into class folders for this.")
    try:
        path.stat()
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name
        raise UsageError(f"data {shorten(path)!r} cannot be read ({getattr(e, 'strerror', e)}); check the path.") from e
    if path.is_dir():
        found = _from_folder(path)
    elif path.suffix.lower() == ".zip":
        found = _from_folder(unpack_archive(path, IMAGE_SUFFIXES, progress))
    elif path.suffix.lower() == ".csv":
        found = read_csv(path)
    elif path.suffix.lower() in (".txt", ".lst"):
        found = read_list(path)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        check_regular_file(path, "image", MAX_IMAGE_BYTES)
        found = Dataset(path.parent, ((path, None),), (), (-1,))
    else:
        raise UsageError(
            f"data '{path}' is neither a folder, a .zip, a .csv, a .txt list nor an image; name one of these."
        )
    if not found.class_names or not (labels or label_ids or num_classes):
        return found
    matched = match_classes(found.class_names, labels, label_ids, num_classes)
    indices = [matched[name] for name in found.class_names]
    return replace(
        found,
        samples=tuple((p, indices[c]) for (p, _), c in zip(found.samples, found.class_indices, strict=True)),
        num_classes=len(labels) or len(label_ids) or num_classes,
    )


def _from_folder(root: Path) -> Dataset:
    top = _list_folder(root, root.resolve())
    skipped, unreadable = top.skipped, list(top.unreadable)
    if not top.folders:
        if not top.images:
            raise UsageError(f"data folder '{root}' holds no images{_left_out(skipped, unreadable)}; {_WANTED}")
        samples = tuple((p, None) for p in top.images)
        return Dataset(root, samples, (), (-1,) * len(samples), skipped=skipped, unreadable=tuple(unreadable))
    _check_class_folders(root, top)
    images: list[Path] = []
    classes: list[str] = []
    indices: list[int] = []
    for folder in top.folders:
        before = len(images)
        for found in _walk(folder, root.resolve()):
            images += found.images
            unreadable += found.unreadable
            skipped += found.skipped
        if len(images) > before:
            indices += [len(classes)] * (len(images) - before)
            classes.append(folder.name)
    if not images:
        left_out = _left_out(skipped, unreadable)
        raise UsageError(f"the {len(top.folders)} folders in '{root}' hold no images{left_out}; {_WANTED}")
    samples = tuple((p, None) for p in images)
    return Dataset(root, samples, tuple(classes), tuple(indices), skipped=skipped, unreadable=tuple(unreadable))


_WANTED = "give a folder of class folders with images, a flat folder of images, or a CSV with path,label."


def _check_class_folders(root: Path, top: "_Listing") -> None:
    names = [f.name for f in top.folders]
    if all(name.lower() in SPLIT_NAMES for name in names) and _holds_folders(top.folders[0]):
        raise UsageError(f"data folder '{root}' holds splits ({', '.join(names)}); name one of them: {top.folders[-1]}")
    if top.images:
        raise UsageError(
            f"data folder '{root}' holds both images ('{top.images[0].name}') and folders ('{names[0]}'), so their "
            "classes are unclear; move those images into a class folder, or out."
        )


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one folder holds, each sorted by name; hidden entries are left out."""

    folders: list[Path]
    images: list[Path]
    unreadable: list[Path]
    skipped: int


def _list_folder(folder: Path, root: Path) -> _Listing:
    folders, images, unreadable, skipped = [], [], [], 0
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as e:
        raise UsageError(f"data folder '{shorten(folder)}' cannot be read: {e.strerror}.") from e
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        kind = _kind(entry)
        if entry.is_symlink() and kind:  # a link that leads nowhere is never opened
            check_inside(path, root)
            if stat.S_ISDIR(kind):
                raise UsageError(f"'{path}' is a link to a folder; name the real folder or copy it here.")
        if stat.S_ISDIR(kind):
            folders.append(path)
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            skipped += 1
        elif stat.S_ISREG(kind):
            images.append(path)
        else:
            unreadable.append(path)
    return _Listing(folders, images, unreadable, skipped)


def _kind(entry: os.DirEntry[str]) -> int:
    """Return the file type bits of what the entry leads to; 0 for a link that leads nowhere."""
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError as e:
        if entry.is_symlink():
            return 0
        raise UsageError(f"'{shorten(entry.path)}' in the data folder cannot be read: {e.strerror}.") from e


def _walk(folder: Path, root: Path) -> Iterator[_Listing]:
    """Yield ``folder`` and every folder in it; a list, not recursion, so that depth costs no stack."""
    waiting = [folder]
    while waiting:
        found = _list_folder(waiting.pop(), root)
        yield found
        waiting += reversed(found.folders)


def _holds_folders(folder: Path) -> bool:
    return bool(_list_folder(folder, folder.resolve()).folders)


def _left_out(skipped: int, unreadable: Sequence[Path]) -> str:
    counts = [
        f"{count} {what}"
        for count, what in ((skipped, "other files"), (len(unreadable), "broken links or pipes"))
        if count
    ]
    return f" (left out: {', '.join(counts)})" if counts else ""
