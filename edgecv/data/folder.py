"""Finding the images of a data set and their classes: class folders, CSV, a flat folder, a list, one image."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgecv.data.classes import match_classes
from edgecv.data.dataset import Dataset, check_inside
from edgecv.data.lists import read_csv, read_list
from edgecv.errors import UsageError
from edgecv.files import MAX_IMAGE_BYTES, check_regular_file

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
"""File names taken for images, in any case; the rest is skipped and counted."""

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def open_dataset(
    path: Path, labels: Sequence[str] = (), label_ids: Sequence[str] = (), num_classes: int = 0
) -> Dataset:
    """List the images at ``path`` without opening them.

    A folder holds class folders (``root/<class>/**/*.jpg``) or images without classes; a ``.csv`` has the columns
    ``path`` and, if there are classes, ``label``, with paths relative to its own folder; a ``.txt`` has one such
    path a line; any other file is one image. Hidden files are ignored. Links are followed to files inside the
    folder only.

    Args:
        path: Folder, CSV, list, or image.
        labels: The model's label texts by index. With neither labels nor ids nor ``num_classes``, classes are
            kept by name and label indices are None.
        label_ids: The model's folder names by index.
        num_classes: How many classes the model has, where it carries no labels.

    Raises:
        UsageError: Nothing there, no image in it, a folder of splits, images beside class folders, a path that
            leads outside, or a class the model does not know.
    """
    try:
        path.stat()
    except OSError as e:
        raise UsageError(f"data '{path}' cannot be read ({e.strerror}); check the path.") from e
    if path.is_dir():
        found = _from_folder(path)
    elif path.suffix.lower() == ".csv":
        found = read_csv(path)
    elif path.suffix.lower() in (".txt", ".lst"):
        found = read_list(path)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        check_regular_file(path, "image", MAX_IMAGE_BYTES)
        found = Dataset(path.parent, ((path, None),), (), (-1,))
    else:
        raise UsageError(f"data '{path}' is neither a folder, a .csv, a .txt list nor an image; name one of these.")
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
    folders, files = _children(root, root.resolve())
    images = [p for p in files if _is_image(p)]
    skipped = len(files) - len(images)
    if not folders:
        if not images:
            raise UsageError(f"data folder '{root}' holds no images{_skipped(skipped)}; {_WANTED}")
        return Dataset(root, tuple((p, None) for p in images), (), (-1,) * len(images), skipped=skipped)
    names = [f.name for f in folders]
    if all(name.lower() in SPLIT_NAMES for name in names) and _holds_folders(folders[0]):
        raise UsageError(f"data folder '{root}' holds splits ({', '.join(names)}); name one of them: {folders[-1]}")
    if images:
        raise UsageError(
            f"data folder '{root}' holds both images ('{images[0].name}') and folders ('{names[0]}'), so their classes "
            "are unclear; move those images into a class folder, or out."
        )
    samples: list[tuple[Path, None]] = []
    classes: list[str] = []
    indices: list[int] = []
    for folder in folders:
        inside = list(_walk(folder, root.resolve()))
        pictures = [p for p in inside if _is_image(p)]
        skipped += len(inside) - len(pictures)
        if pictures:
            samples += [(p, None) for p in pictures]
            indices += [len(classes)] * len(pictures)
            classes.append(folder.name)
    if not samples:
        raise UsageError(f"the {len(folders)} folders in '{root}' hold no images{_skipped(skipped)}; {_WANTED}")
    return Dataset(root, tuple(samples), tuple(classes), tuple(indices), skipped=skipped)


_WANTED = "give a folder of class folders with images, a flat folder of images, or a CSV with path,label."


def _children(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Return the (folders, regular files) in ``folder``, sorted by name; hidden ones left out."""
    folders, files = [], []
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as e:
        raise UsageError(f"data folder '{folder}' cannot be read: {e.strerror}.") from e
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if entry.is_symlink():
            check_inside(path, root)
            if entry.is_dir():
                raise UsageError(f"'{path}' is a link to a folder; name the real folder or copy it here.")
        if entry.is_dir():
            folders.append(path)
        else:
            files.append(path)
    return folders, files


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    folders, files = _children(folder, root)
    yield from files
    for inner in folders:
        yield from _walk(inner, root)


def _holds_folders(folder: Path) -> bool:
    return bool(_children(folder, folder.resolve())[0])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _skipped(count: int) -> str:
    return f" (skipped {count} other files)" if count else ""
