"""Parsed TOML or JSON to frozen dataclasses: unknown key, missing key or wrong type is an error that names it."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgecv.errors import UsageError, nearest

T = TypeVar("T")


def build(cls: type[T], table: Any, where: str) -> T:
    """Make a dataclass from a parsed table, nested tables into nested dataclasses.

    Args:
        cls: A frozen dataclass whose annotations are str, bool, int, float, Any, dataclasses, ``tuple`` and ``Mapping``
            of those, or one of them ``| None``.
        table: The parsed table.
        where: File and key path, for messages.

    Raises:
        UsageError: Unknown or missing key, a value of another type, or a number that is not finite.
    """
    values = convert_fields(cls, table, where)
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}: the key '{f.name}' is missing.")
    return cls(**values)


def convert_fields(cls: type, table: Any, where: str) -> dict[str, Any]:
    """Return the values of a parsed table as a dataclass has them; keys may be missing.

    Raises:
        UsageError: As :func:`build`, but for missing keys.
    """
    if not isinstance(table, dict):
        raise UsageError(f"{where} is {_kind(table)}, not a table.")
    hints = get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise UsageError(f"{where}: unknown key '{key}' ({shown(value)}).{nearest(str(key), hints)}")
        values[key] = _convert(hints[key], value, f"{where}: {key}")
    return values


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        return _convert(next(a for a in get_args(hint) if a is not type(None)), value, where)
    if is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        return _tuple(get_args(hint), value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise UsageError(f"{where} is {_kind(value)}, not a table.")
        return {str(k): _convert(get_args(hint)[1], v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(hint, value, where)


def _tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where} is {_kind(value)}, not a list.")
    if hints[-1] is not Ellipsis and len(value) != len(hints):
        raise UsageError(f"{where} has {len(value)} values, not {len(hints)}.")
    return tuple(_convert(hints[0], v, f"{where}[{i}]") for i, v in enumerate(value))


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = _float(value, where)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"{where} is {shown(value)}, not of type {hint.__name__}.")
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"{where} holds half a character (a lone surrogate), which no text file can.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where} is {value}, not a finite number.")
    return value


def _kind(value: Any) -> str:
    return type(value).__name__


def _float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise UsageError(f"{where} is {shown(value)}, more than any float.") from None


def shown(value: Any) -> str:
    """Return a value for a message, cut when nobody would read it to its end."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:60]}…"
