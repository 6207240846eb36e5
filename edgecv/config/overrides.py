"""``edgecv run --set train.epochs=3``: single keys of a recipe, changed on the command line."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from edgecv.errors import UsageError


def override(table: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return a parsed recipe with some keys changed; what they say is checked as if the file said it.

    >>> override({"train": {"epochs": 9}}, ["train.epochs=3", "model=lenet5"])
    {'train': {'epochs': 3}, 'model': 'lenet5'}

    Args:
        table: The parsed file.
        changes: ``key=value`` or ``stage.key=value``, the value as TOML writes it; a word needs no quotes.

    Raises:
        UsageError: No ``=``, or more than one dot in the key.
    """
    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    for change in changes:
        key, equals, text = change.partition("=")
        *stage, name = key.strip().split(".")
        if not equals or not name or len(stage) > 1:
            raise UsageError(f"--set '{change[:100]}' is not KEY=VALUE or STAGE.KEY=VALUE, as train.epochs=3.")
        place = changed.setdefault(stage[0], {}) if stage else changed
        if not isinstance(place, dict):
            raise UsageError(f"--set '{change[:100]}': '{stage[0]}' is no stage.")
        place[name] = _value(text.strip())
    return changed


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
