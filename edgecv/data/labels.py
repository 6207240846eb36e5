"""Class names from a text file."""

from pathlib import Path

from edgecv.errors import UsageError
from edgecv.files import MAX_TEXT_BYTES, read_file


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, one a line, in index order; blank lines at the end are skipped.

    Names may repeat (ImageNet has two cranes): predictions show them, and folders of that name are asked for by number.

    Raises:
        UsageError: Unreadable, not UTF-8, empty, or a blank line between names.
    """
    try:
        lines = read_file(path, "label file", MAX_TEXT_BYTES).decode().splitlines()
    except UnicodeDecodeError as e:
        raise UsageError(f"label file '{path}' is not UTF-8 text; write one class name a line.") from e
    names = tuple("\n".join(line.strip() for line in lines).rstrip("\n").split("\n"))
    if names == ("",):
        raise UsageError(f"label file '{path}' has no names; write one class name a line.")
    if "" in names:
        raise UsageError(
            f"line {names.index('') + 1} of label file '{path}' is empty, which would shift every class after it."
        )
    return names
