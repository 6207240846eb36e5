"""The workspace: which model is the current one in this folder (``.edgecv/current``)."""

import json
from pathlib import Path

from edgecv.errors import UsageError
from edgecv.files import MAX_TEXT_BYTES, read_file, write_bytes

_FOLDER = Path(".edgecv")
_CURRENT = _FOLDER / "current"


def set_current_model(path: Path) -> None:
    """Remember ``path`` as the last artifact written in this folder."""
    _FOLDER.mkdir(exist_ok=True)
    try:
        shown = path.resolve().relative_to(Path.cwd())
    except ValueError:
        shown = path.resolve()
    write_bytes(_CURRENT, json.dumps({"model": str(shown)}).encode() + b"\n")


def current_model() -> Path:
    """Return the last artifact an edgecv command wrote in this folder.

    Raises:
        UsageError: There is none, it is gone, or the record is damaged.
    """
    if not _CURRENT.exists():
        raise UsageError("no current model in this folder; name one, or make one with: edgecv export MODEL")
    try:
        path = Path(json.loads(read_file(_CURRENT, "record", MAX_TEXT_BYTES))["model"])
    except (ValueError, KeyError, TypeError) as e:
        raise UsageError(f"'{_CURRENT}' is damaged; name the model, or delete that file.") from e
    if not path.is_file():
        raise UsageError(f"the current model '{path}' is gone; name another, or run: edgecv export MODEL")
    return path
