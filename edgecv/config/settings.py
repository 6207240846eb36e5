"""Settings that are options on the command line and keys in a recipe: one field, its range and its help text."""

import types
from dataclasses import field, fields
from typing import Any, Union, get_args, get_origin

from edgecv.errors import UsageError, nearest
from edgecv.typed import shown


def setting(default: Any, text: str, *, low: float | None = None, high: float | None = None, of: str = "") -> Any:
    """Return a dataclass field with its help text and what is allowed.

    Args:
        default: Where nobody says otherwise.
        text: Help, one sentence.
        low: Smallest number allowed.
        high: Largest.
        of: The words allowed, separated by spaces.
    """
    return field(default=default, metadata={"help": text, "min": low, "max": high, "choices": tuple(of.split())})


def check_settings(settings: Any) -> None:
    """Check every field of a frozen dataclass against its type and range; whole numbers become floats where wanted.

    Raises:
        UsageError: A value outside its range or of another type; the message names the setting.
    """
    for f in fields(settings):
        if "help" not in f.metadata:  # settings inside settings have checked themselves
            continue
        object.__setattr__(settings, f.name, _checked(f.name, f.type, f.metadata, getattr(settings, f.name)))


def _checked(name: str, hint: Any, limits: Any, value: Any) -> Any:
    if value is None:
        if type(None) in get_args(hint):
            return None
        raise UsageError(f"{name} is empty.")
    if get_origin(hint) is tuple:
        return tuple(_checked(name, get_args(hint)[0], limits, v) for v in value)
    if get_origin(hint) in (Union, types.UnionType):
        hint = get_args(hint)[0]
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise UsageError(f"{name} is {shown(value)}, not of type {hint.__name__}.")
    low, high, choices = limits["min"], limits["max"], limits["choices"]
    if choices and value not in choices:
        raise UsageError(f"{name} '{value}' is not one of {', '.join(choices)}.{nearest(value, choices)}")
    if low is not None and not low <= value <= high:  # NaN fails too
        raise UsageError(f"{name} {shown(value)} is not within {low:g} to {high:g}.")
    return value
