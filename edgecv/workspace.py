"""The workspace: the current model of this folder (``.edgecv/current``), and the user's cache."""

import json
import os
from pathlib import Path

from edgecv.errors import UsageError
from edgecv.files import MAX_TEXT_BYTES, read_file, write_bytes

_FOLDER = Path(".edgecv")
_CURRENT = _FOLDER / "current"


def set_current_model(path: Path) -> str:
    """Remember ``path`` as the last artifact written in this folder.

    Returns:
        ``""``, or why it could not be remembered: the artifact itself is written, so this is no error.
    """
    try:
        _FOLDER.mkdir(exist_ok=True)
        here = Path.cwd()
        target = path.resolve()
        shown = target.relative_to(here) if target.is_relative_to(here) else target
        write_bytes(_CURRENT, json.dumps({"model": str(shown)}).encode() + b"\n")
    except (OSError, UsageError) as e:
        return f"not remembered as the current model ({e}): name it in the next command"
    return ""


def current_model() -> Path:
    """Return the last artifact an edgecv command wrote in this folder.

    Raises:
        UsageError: There is none, it is gone, or the record is damaged.
    """
    if not _CURRENT.exists():
        raise UsageError("no current model in this folder; name one, or make one with: edgecv export MODEL")
    try:
        path = Path(json.loads(read_file(_CURRENT, "record", MAX_TEXT_BYTES))["model"])
        found = path.is_file()
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as e:
        raise UsageError(f"'{_CURRENT}' is damaged; name the model, or delete that file.") from e
    if not found:
        raise UsageError(f"the current model '{path}' is gone; name another, or run: edgecv export MODEL")
    return path


def user_cache(kind: str) -> Path:
    """Return the folder for what can be fetched or made again, under ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecv" / kind
