"""TOML to frozen dataclasses: an unknown key or a wrong type is an error naming file, key and the nearest valid one."""

import tomllib
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import edgecv
from edgecv.errors import UsageError, nearest
from edgecv.files import MAX_TEXT_BYTES, read_file

T = TypeVar("T")

MAX_NESTING = 64
"""Brackets one inside the other; tomllib recurses and would die deep in a hostile file."""


def read_table(path: Path, what: str) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        UsageError: Not a regular file, too large, not UTF-8, not TOML, or nested too deeply.
    """
    data = read_file(path, what, MAX_TEXT_BYTES)
    try:
        text = data.decode()
        if max(text.count("["), text.count("{")) > 10_000 or _depth(text) > MAX_NESTING:
            raise UsageError(f"{what} '{path}' is nested deeper than {MAX_NESTING} levels.")
        return tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise UsageError(f"{what} '{path}' is not valid TOML: {e}.") from e


def build(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Make a dataclass from a TOML table, nested tables into nested dataclasses.

    Args:
        cls: A frozen dataclass.
        table: The parsed table.
        where: File and key path, for messages.

    Raises:
        UsageError: Unknown or missing key, or a value of another type.
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key '{key}'.{nearest(key, known)}")
        values[key] = _convert(hints[key], value, f"{where}: {key}")
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}: the key '{name}' is missing.")
    return cls(**values)


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


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        hint = next(a for a in get_args(hint) if a is not type(None))
        origin = get_origin(hint)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise UsageError(f"{where} is {type(value).__name__}, not a table.")
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{where} is {type(value).__name__}, not a list.")
        return tuple(_convert(get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    expected: Any = origin or hint
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise UsageError(f"{where} is {value!r}, not of type {expected.__name__}.")
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth = max(0, depth - 1)
    return deepest
