"""Writing recipes: every key with its help from the settings' own fields, so that the file explains itself."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from edgecv.config.flat import flat_fields, flat_values
from edgecv.config.recipe import STAGES, Recipe
from edgecv.config.stages import Gates

_COLUMN = 36
"""Where comments begin, as far as values leave room."""


def recipe_text(recipe: Recipe, heading: Sequence[str] = ()) -> str:
    """Return the TOML of a recipe; reading it gives the same recipe.

    >>> from edgecv.config.stages import TrainStage
    >>> recipe_text(Recipe(name="x", model="lenet5", train=TrainStage())).splitlines()[1]
    'name = "x"                          # What its files are called.'

    Args:
        recipe: What to write.
        heading: Lines of comment at the top.
    """
    lines = [f"# {line}" if line else "" for line in heading]
    top = {f.name: f for f in fields(recipe) if f.name not in STAGES and f.name != "gates"}
    lines += [_line(name, getattr(recipe, name), f.metadata["help"]) for name, f in top.items()]
    for stage in recipe.stages:
        values = getattr(recipe, stage)
        help_text = (type(values).__doc__ or "").splitlines()[0].replace("``", "")
        lines += ["", f"# {help_text}", f"[{stage}]", *_lines(values)]
    gates_help = (Gates.__doc__ or "").splitlines()[0]
    return "\n".join([*lines, "", f"# {gates_help}", "[gates]", *_lines(recipe.gates)]) + "\n"


def _lines(settings: Any) -> list[str]:
    values = flat_values(settings)
    return [_line(key, values[key], f.metadata["help"]) for key, f in flat_fields(type(settings)).items()]


def _line(key: str, value: Any, help_text: str) -> str:
    written = f"# {key} = ..." if value is None else f"{key} = {_toml(value)}"
    return f"{written:<{_COLUMN}}# {help_text}" if len(written) < _COLUMN else f"{written}  # {help_text}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
