"""A fresh module from an architecture's name and the arguments a manifest may hold; no weights are looked for."""

import ast
import inspect
from collections.abc import Mapping
from typing import Any

import timm
import torchvision
from torch import nn

from edgecv.errors import UsageError
from edgecv.nn.names import check_name, is_checkpoint, is_own
from edgecv.nn.network import check_class_count
from edgecv.nn.networks import MAX_INPUT_PX, build_own
from edgecv.nn.torchvision_networks import TORCHVISION, slow_draws_off


def construct(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build the module ``name`` as its constructor draws it.

    Args:
        name: Of edgecv's own, timm's (a tag is ignored), or ``torchvision:NAME``.
        arguments: ``num_classes``, the input's size under the constructor's own word, dropout rates; and whatever
            edgecv's own networks take. Nothing else passes: arguments come from files, and a constructor can load any.

    Raises:
        UsageError: Unknown name, or an argument that is not allowed or out of range.
    """
    check_name(name)
    if is_checkpoint(name):
        raise UsageError(f"'{name}' is a file, not the name of a network.")
    for key, value in arguments.items():
        check_argument(name, key, value)
    if is_own(name):
        return build_own(name.partition(":")[0], arguments)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    try:
        if name.startswith(TORCHVISION):
            short = name.removeprefix(TORCHVISION)
            module: nn.Module = torchvision.models.get_model(short, weights=None, **slow_draws_off(short), **given)
        else:
            module = timm.create_model(name.partition(".")[0], pretrained=False, **given)
    except (AssertionError, TypeError, ValueError, RuntimeError) as e:
        shown = ", ".join(f"{k}={v!r}"[:40] for k, v in given.items())
        raise UsageError(f"'{name}' cannot be built with {shown}: {' '.join(str(e).split())[:200]}.") from e
    return module


def check_argument(name: str, key: str, value: Any) -> None:
    """Raise UsageError unless ``key`` may be given to the constructor of ``name`` with this value."""
    if key == "num_classes":
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(f"num_classes {value!r} of '{name}' is not a whole number.")
        check_class_count(value)
    elif key in ("img_size", "image_size", "input_size"):
        sides = value if isinstance(value, list | tuple) else [value]
        if len(sides) not in (1, 2) or not all(type(s) is int and 1 <= s <= MAX_INPUT_PX for s in sides):
            raise UsageError(f"{key} {str(value)[:40]!r} of '{name}' is not one or two sizes of 1..{MAX_INPUT_PX} px.")
    elif key in ("drop_rate", "drop_path_rate", "dropout"):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise UsageError(f"{key} {value!r} of '{name}' is not in [0, 1).")
    elif not is_own(name):
        raise UsageError(f"the argument '{key[:40]}' of '{name}' is not one edgecv gives to a constructor.")


def split_arguments(name: str) -> tuple[str, dict[str, Any]]:
    """Split ``dsnet:width=0.5,depth=2`` into name and arguments; other names come back as they are.

    >>> split_arguments("dsnet:width=0.5,depth=2")
    ('dsnet', {'width': 0.5, 'depth': 2})

    Raises:
        UsageError: Not ``key=value`` pairs.
    """
    architecture, colon, text = name.partition(":")
    if not colon or not is_own(architecture):
        return name, {}
    arguments: dict[str, Any] = {}
    for pair in text.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals or not value:
            raise UsageError(f"'{name[:80]}': '{pair[:40]}' is not KEY=VALUE, as in '{architecture}:num_classes=10'.")
        arguments[key] = _literal(value)
    return architecture, arguments


def size_argument(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return the constructor's argument for the input's height and width; empty where any size is taken."""
    if is_own(name):
        if size[0] != size[1]:
            raise UsageError(f"'{name}' takes square images; {size[0]}x{size[1]} is not.")
        return {"input_size": size[0]}
    if name.startswith(TORCHVISION):
        short = name.removeprefix(TORCHVISION)
        if "image_size" not in inspect.signature(torchvision.models.get_model_builder(short)).parameters and not (
            short.startswith("vit_")
        ):
            return {}
        return {"image_size": size[0]}
    config = timm.get_pretrained_cfg(name.partition(".")[0])
    return {"img_size": list(size)} if config is not None and config.fixed_input_size else {}


def _literal(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, int | float | str | bool) else text
