"""Data sets given as a list of files: CSV or one path a line, relative to the list's own folder."""

import csv
from pathlib import Path

from edgecv.data.dataset import Dataset, check_inside
from edgecv.errors import UsageError
from edgecv.files import check_regular_file, read_file

MAX_LIST_BYTES = 1 << 30  # ImageNet's 1.3 million training images make a CSV of 60 MB


def read_csv(path: Path) -> Dataset:
    """Read a CSV with the columns ``path`` and, if there are classes, ``label``; others are ignored.

    Raises:
        UsageError: Not UTF-8 CSV, no such column, an empty label, a path that is missing, named twice, absolute,
            or leads outside the CSV's folder.
    """
    check_regular_file(path, "data list", MAX_LIST_BYTES)
    rows: list[tuple[Path, str | None]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            if "path" not in (reader.fieldnames or ()):
                raise UsageError(
                    f"data list '{path}' has no column 'path' (found: {', '.join(reader.fieldnames or ['nothing'])}); "
                    "its first line must be: path,label"
                )
            has_labels = "label" in (reader.fieldnames or ())
            rows = [(_listed(path, row["path"], reader.line_num), row.get("label")) for row in reader]
    except (csv.Error, UnicodeDecodeError) as e:
        raise UsageError(f"data list '{path}' is not a readable UTF-8 CSV ({e}); write it again.") from e
    if not has_labels:
        return _unlabelled(path, [p for p, _ in rows])
    labels = [(label or "").strip() for _, label in rows]
    if "" in labels:
        raise UsageError(f"data list '{path}' has no label for '{rows[labels.index('')][0].name}'; fill it in.")
    _check_list(path, [p for p, _ in rows])
    names = sorted(set(labels))
    position = {name: i for i, name in enumerate(names)}
    return Dataset(
        path.parent,
        tuple((p, None) for p, _ in rows),
        tuple(names),
        tuple(position[label] for label in labels),
    )


def read_list(path: Path) -> Dataset:
    """Read a text file with one path a line; the same rules as for :func:`read_csv`."""
    try:
        text = read_file(path, "data list", MAX_LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UsageError(f"data list '{path}' is not UTF-8 text ({e}); write it again.") from e
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    return _unlabelled(path, [_listed(path, line, i) for i, line in lines if line])


def _unlabelled(path: Path, paths: list[Path]) -> Dataset:
    _check_list(path, paths)
    return Dataset(path.parent, tuple((p, None) for p in paths), (), (-1,) * len(paths))


def _check_list(path: Path, paths: list[Path]) -> None:
    if not paths:
        raise UsageError(f"data list '{path}' names no image; write one path a line.")
    seen: set[Path] = set()
    for p in paths:
        if p in seen:
            raise UsageError(f"data list '{path}' names '{p}' twice; an image counts once.")
        seen.add(p)


def _listed(list_path: Path, name: str | None, line: int) -> Path:
    folder = list_path.parent
    entry = Path((name or "").strip())
    if not entry.parts or entry.is_absolute() or "\0" in str(entry):
        raise UsageError(
            f"line {line} of '{list_path}': {str(entry)!r} is not a path relative to the list's own folder."
        )
    path = folder / entry
    check_inside(path, folder.resolve())
    if not path.is_file():
        raise UsageError(f"line {line} of '{list_path}' names '{entry}', which is not a file in '{folder}'.")
    return path
