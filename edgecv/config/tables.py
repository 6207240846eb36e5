"""Reading TOML that may come from anywhere, and finding the files that ship with edgecv."""

import re
import tomllib
from pathlib import Path
from typing import Any

import edgecv
from edgecv.errors import UsageError, nearest
from edgecv.files import read_file

MAX_TOML_BYTES = 256 << 10
"""A recipe has 5 KiB."""

MAX_NESTING = 64
"""Brackets one inside the other; tomllib recurses and would die deep in a hostile file."""

MAX_KEY_PARTS = 100
"""Dots of one key; tomllib's time grows with their square: 2.8 s for a key of 40 KiB."""


def read_table(path: Path, what: str) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        UsageError: Not a regular file, too large, not UTF-8, not TOML, or nested too deeply.
    """
    data = read_file(path, what, MAX_TOML_BYTES)
    try:
        text = data.decode()
        if max(text.count("["), text.count("{")) > 10_000 or _depth(text) > MAX_NESTING:
            raise UsageError(f"{what} '{path}' is nested deeper than {MAX_NESTING} levels.")
        if _most_dots(text) >= MAX_KEY_PARTS:
            raise UsageError(f"{what} '{path}' has a key or value with {MAX_KEY_PARTS} dots or more.")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as e:  # of ValueError: not UTF-8, not TOML, a number of thousands of digits
        raise UsageError(f"{what} '{path}' is not valid TOML: {e}.") from e


def find_shipped(folder: str, name: str) -> Path:
    """Return ``name`` as a path, or the file of that name among those shipped in ``folder`` (devices, recipes).

    Raises:
        UsageError: There is no such file; the nearest names are given.
    """
    if name.endswith(".toml"):
        return Path(name)
    known = {p.stem: p for p in shipped_files(folder)}
    if name not in known:
        raise UsageError(f"no {folder[:-1]} '{name}'.{nearest(name, known)} Known: {', '.join(sorted(known))}.")
    return known[name]


def shipped_files(folder: str) -> list[Path]:
    """Return the TOML files of ``folder``: inside the installed package, or at the top of a source checkout."""
    package = Path(edgecv.__file__).parent
    for place in (package / "_data" / folder, package.parent / folder):
        if place.is_dir():
            return sorted(place.glob("*.toml"))
    return []


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth = max(0, depth - 1)
    return deepest


def _most_dots(text: str) -> int:
    """Return the most dots between two signs that end a key; inside a string they count too, in a comment not."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return max((part.count(".") for line in lines for part in re.split(r"[=,\[\]{}]", line)), default=0)
