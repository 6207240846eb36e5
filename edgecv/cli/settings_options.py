"""Options made from settings: every field of a settings dataclass is one option of each command that takes it."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(**starts: Any) -> Callable[[F], F]:
    """Replace each named parameter of a command by one option for each field of its settings.

    ``learning_rate`` becomes ``--learning-rate``; a list (``augment``) is given with commas or by repeating the option.

    Args:
        starts: Parameter name -> settings with the defaults of this command, such as ``settings=TrainSettings()``.
            No two of them have a field of one name.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapper(*args: Any, **options: Any) -> Any:
            for name, start in starts.items():
                chosen = {f.name: _value(f.type, options.pop(f.name)) for f in fields(start)}
                options[name] = type(start)(**chosen)
            return command(*args, **options)

        signature = inspect.signature(command)
        parameters = []
        for parameter in signature.parameters.values():
            start = starts.get(parameter.name)
            parameters += [_keyword(parameter)] if start is None else _options(start)
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper  # type: ignore[return-value]

    return decorate


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _options(start: Any) -> list[inspect.Parameter]:
    return [_option(f.name, f.type, f.metadata, getattr(start, f.name)) for f in fields(start)]


def _option(name: str, hint: Any, limits: Any, default: Any) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    names = [f"{flag}/--no-{flag[2:]}"] if hint is bool else [flag]
    extra: dict[str, Any] = {"help": limits["help"]}
    if choices := limits["choices"]:
        extra["metavar"] = "|".join(choices)
    if get_origin(hint) is tuple:
        extra["metavar"] = "LIST"
        hint, default = list[str], [",".join(map(str, default))] if default else []
    annotation = Annotated[hint, typer.Option(*names, **extra)]
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
