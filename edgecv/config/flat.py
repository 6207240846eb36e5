"""One table for several dataclasses: a stage's own keys and those of the settings inside it stand side by side."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any, TypeVar

from edgecv.errors import UsageError, nearest
from edgecv.typed import convert_fields, shown

T = TypeVar("T")


def flat_fields(cls: Any) -> dict[str, "Field[Any]"]:
    """Return key -> field of a dataclass, those of the dataclasses inside it among its own.

    No two of them have a field of one name.
    """
    found: dict[str, Field[Any]] = {}
    for f in fields(cls):
        found |= flat_fields(f.type) if is_dataclass(f.type) else {f.name: f}
    return found


def build_flat(cls: type[T], table: Any, where: str, elsewhere: Mapping[str, str] | None = None) -> T:
    """Make a dataclass from a flat table.

    Args:
        cls: Every field has a default; those that are dataclasses take the keys of their own fields.
        table: The parsed table.
        where: File and key path, for messages.
        elsewhere: Keys of other tables -> where they belong, to tell who puts one into the wrong table.

    Raises:
        UsageError: Unknown key, a value of another type, out of range, or against what the class checks.
    """
    known = flat_fields(cls)
    if not isinstance(table, dict):
        raise UsageError(f"{where} is {shown(table)}, not a table.")
    check_keys(table, known, where, elsewhere or {})
    values: dict[str, Any] = {}
    for f in fields(cls):  # type: ignore[arg-type]
        keys = flat_fields(f.type) if is_dataclass(f.type) else {f.name}
        given = {k: v for k, v in table.items() if k in keys}
        if is_dataclass(f.type):
            values[f.name] = _inner(f, convert_fields(f.type, given, where), where)  # type: ignore[arg-type]
        else:
            values |= convert_fields(cls, given, where)
    return checked(lambda: cls(**values), where)


def check_keys(table: Mapping[str, Any], known: Collection[str], where: str, elsewhere: Mapping[str, str]) -> None:
    """Raise UsageError for the first unknown key: with the nearest known one, or the table it belongs to."""
    for key in table:
        if key not in known:
            near = nearest(key, known)
            hint = near if near or key not in elsewhere else f" It belongs to {elsewhere[key]}."
            raise UsageError(f"{where}: unknown key '{key[:100]}' ({shown(table[key])}).{hint}")


def checked(make: Callable[[], T], where: str) -> T:
    """Return what ``make`` makes; its UsageError gets the place in front."""
    try:
        return make()
    except UsageError as e:
        raise UsageError(f"{where}: {e}") from e


def _inner(f: "Field[Any]", given: Mapping[str, Any], where: str) -> Any:
    start = f.default_factory
    if start is MISSING:
        return checked(lambda: f.type(**given), where)  # type: ignore[operator]
    return checked(lambda: replace(start(), **given), where)


def flat_values(settings: Any) -> dict[str, Any]:
    """Return key -> value of a dataclass, those of the dataclasses inside it among its own."""
    found: dict[str, Any] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        found |= flat_values(value) if is_dataclass(value) else {f.name: value}
    return found
