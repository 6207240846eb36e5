"""The options of a training, made from :class:`edgecv.config.training.TrainSettings` for every command that trains."""

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer

from edgecv.config.training import TrainSettings

F = TypeVar("F", bound=Callable[..., Any])


def training_options(**defaults: Any) -> Callable[[F], F]:
    """Replace a command's parameter ``settings: TrainSettings`` by one option for each field.

    ``learning_rate`` becomes ``--learning-rate``; a list (``augment``) is given with commas or by repeating the option.

    Args:
        defaults: Settings whose default differs in this command.
    """
    start = replace(TrainSettings(), **defaults)

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapper(*args: Any, **options: Any) -> Any:
            chosen = {f.name: _value(f.type, options.pop(f.name)) for f in fields(TrainSettings)}
            return command(*args, settings=TrainSettings(**chosen), **options)

        signature = inspect.signature(command)
        parameters = []
        for parameter in signature.parameters.values():
            parameters += _options(start) if parameter.name == "settings" else [_keyword(parameter)]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper  # type: ignore[return-value]

    return decorate


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _options(start: TrainSettings) -> list[inspect.Parameter]:
    return [_option(f.name, f.type, f.metadata, getattr(start, f.name)) for f in fields(TrainSettings)]


def _option(name: str, hint: Any, limits: Any, default: Any) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if hint is bool else [flag]
    extra: dict[str, Any] = {"help": limits["help"]}
    if choices := limits["choices"]:
        extra["metavar"] = "|".join(choices)
    if get_origin(hint) is tuple:
        extra["metavar"] = "LIST"
        hint, default = list[str], [",".join(map(str, default))] if default else []
    annotation = Annotated[hint, typer.Option(*names, **extra)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _value(hint: Any, value: Any) -> Any:
    """Return an option's value as the dataclass has it: lists are split at commas."""
    if get_origin(hint) is not tuple:
        return value
    kind = get_args(hint)[0]
    words = [word.strip() for text in value or () for word in text.split(",") if word.strip()]
    if kind is int:
        if bad := [w for w in words if not (w.isascii() and w.isdigit())]:
            raise typer.BadParameter(f"'{bad[0]}' is not a whole number; give a list such as 30,60.")
        return tuple(int(w) for w in words)
    return () if words == ["none"] else tuple(words)
