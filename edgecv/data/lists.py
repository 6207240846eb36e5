"""Data sets given as a list of files: CSV or one path a line, relative to the list's own folder."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecv.data.dataset import Dataset, check_inside, shorten
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
    listed = _reader(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            if "path" not in (reader.fieldnames or ()):
                raise UsageError(
                    f"data list '{path}' has no column 'path' (found: {', '.join(reader.fieldnames or ['nothing'])}); "
                    "its first line must be: path,label"
                )
            has_labels = "label" in (reader.fieldnames or ())
            rows = [(listed(row["path"], reader.line_num), row.get("label")) for row in reader]
    except (csv.Error, UnicodeDecodeError) as e:
        raise UsageError(f"data list '{path}' is not a readable UTF-8 CSV ({e}); write it again.") from e
    if not has_labels:
        return _unlabelled(path, [p for p, _ in rows])
    _check_any(path, rows)
    labels = [(label or "").strip() for _, label in rows]
    if "" in labels:
        raise UsageError(f"data list '{path}' has no label for '{rows[labels.index('')][0].name}'; fill it in.")
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
    listed = _reader(path)
    return _unlabelled(path, [listed(line, i) for i, line in lines if line])


def _unlabelled(path: Path, paths: list[Path]) -> Dataset:
    _check_any(path, paths)
    return Dataset(path.parent, tuple((p, None) for p in paths), (), (-1,) * len(paths))


def _check_any(path: Path, rows: Sequence[object]) -> None:
    if not rows:
        raise UsageError(f"data list '{path}' names no image; write one path a line.")


def _reader(list_path: Path) -> Callable[[str | None, int], Path]:
    """Return what turns the name on a line into a path: an existing file under the list's folder, not met before."""
    folder = list_path.parent
    root = folder.resolve()
    seen: dict[Path, str] = {}

    def read(name: str | None, line: int) -> Path:
        where = f"line {line} of '{list_path}'"
        text = (name or "").strip()
        shown = repr(shorten(text))
        if not Path(text).parts or Path(text).is_absolute() or "\0" in text:
            raise UsageError(f"{where}: {shown} is not a path relative to the list's own folder.")
        path = folder / text
        try:
            target = check_inside(path, root)
            exists = path.is_file()
        except OSError as e:  # a name longer than the file system takes
            raise UsageError(f"{where}: {shown} cannot be read ({e.strerror}); correct the name.") from e
        if not exists:
            raise UsageError(f"{where} names {shown}, which is not a file in '{folder}'.")
        if target in seen:
            raise UsageError(
                f"data list '{list_path}' names '{seen[target]}' twice, on line {line} as {shown}; "
                "an image counts once."
            )
        seen[target] = text
        return path

    return read
