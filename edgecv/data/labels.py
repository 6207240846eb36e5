"""Class names from a text file."""

from pathlib import Path

from edgecv.errors import UsageError
from edgecv.files import MAX_TEXT_BYTES, read_file


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one a line, in index order; blank lines are skipped.

    Raises:
        UsageError: Unreadable, not UTF-8, empty, or a name that stands twice.
    """
    try:
        lines = read_file(path, "label file", MAX_TEXT_BYTES).decode().splitlines()
    except UnicodeDecodeError as e:
        raise UsageError(f"label file '{path}' is not UTF-8 text; write one class name a line.") from e
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise UsageError(f"label file '{path}' has no names; write one class name a line.")
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UsageError(f"label file '{path}' has '{twice}' twice; folders could not be told apart.")
    return names
