"""Which layers of a network can be factorized, and why the others are left alone."""

import fnmatch
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.errors import UsageError, nearest
from edgecv.nn.factorize.geometry import Geometry, Pair, read_geometry
from edgecv.nn.factorize.layers import replace_layer

Layers = dict[str, nn.Conv2d | nn.Linear]


@dataclass(frozen=True, slots=True)
class Found:
    """One layer that can be replaced.

    Attributes:
        name: In the network.
        geometry: Its shapes.
        size: Height and width of its input; of a linear layer (vectors, 1).
    """

    name: str
    geometry: Geometry
    size: Pair


def find_layers(
    module: nn.Module, input_size: Sequence[int], patterns: Sequence[str] = (), classes: int | None = None
) -> tuple[list[Found], dict[str, str]]:
    """Return the layers that can be replaced, in the order in which they run, and why each other is left alone.

    Args:
        module: In eval mode.
        input_size: ``(3, height, width)``.
        patterns: Names or patterns of the layers wanted, at their word; none: all but the first layer and those that
            give the scores of the classes.
        classes: How many scores there are.

    Raises:
        UsageError: A pattern matches no convolution or linear layer.
    """
    layers: Layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and n}
    _check_patterns(patterns, layers)
    sizes = _sizes(module, input_size, layers)
    spared = {} if patterns else _ends(list(sizes), layers, classes)
    found, left_alone = [], {}
    for name, layer in sorted(layers.items(), key=lambda item: list(sizes).index(item[0]) if item[0] in sizes else -1):
        if patterns and not _matches(name, patterns):
            continue
        why = spared.get(name) or _obstacle(name, layer, module, sizes)
        if why:
            left_alone[name] = why
        else:
            found.append(Found(name, read_geometry(layer), sizes[name]))
    deaf = _unreplaceable(module, input_size, [f.name for f in found])
    left_alone |= dict.fromkeys(deaf, "the network's code reaches into it")
    return [f for f in found if f.name not in deaf], left_alone


def _check_patterns(patterns: Sequence[str], layers: Layers) -> None:
    for pattern in patterns:
        if not any(_matches(name, [pattern]) for name in layers):
            raise UsageError(f"--layers '{pattern}' matches no convolution or linear layer.{nearest(pattern, layers)}")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, p) or name.startswith(f"{p}.") for p in patterns)


def _ends(order: Sequence[str], layers: Layers, classes: int | None) -> dict[str, str]:
    """Return the first layer to run and every one that gives as many values as there are classes, or else the last."""
    spared = {order[0]: "it is the first layer"} if order else {}
    heads = [n for n in order if classes and _width(layers[n]) == classes]
    # Other layers may be as wide as the classifier by chance: only what stands behind all others is one.
    behind = [n for i, n in enumerate(order) if n in heads and all(m in heads for m in order[i:])]
    return spared | dict.fromkeys(behind or order[-1:], "it gives the scores")


def _width(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features


def _obstacle(name: str, layer: nn.Conv2d | nn.Linear, module: nn.Module, sizes: dict[str, Pair]) -> str:
    try:
        read_geometry(layer)
    except ValueError as e:
        return str(e)
    if name not in sizes:
        return "the network does not call it"
    owners = [n for n, p in module.named_parameters(remove_duplicate=False) if p is layer.weight]
    return "it shares its weight" if len(owners) > 1 else ""


def _sizes(module: nn.Module, input_size: Sequence[int], layers: Layers) -> dict[str, Pair]:
    """Return the input size of every layer that is called, in the order of the first calls."""
    sizes: dict[str, Pair] = {}

    def hook(name: str) -> Any:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shape = inputs[0].shape
            size = (shape[-2], shape[-1]) if isinstance(layer, nn.Conv2d) else (inputs[0].numel() // shape[-1], 1)
            sizes.setdefault(name, size)

        return note

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        _answer(module, input_size)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def _unreplaceable(module: nn.Module, input_size: Sequence[int], names: Sequence[str]) -> set[str]:
    """Return the layers whose place must be taken by the layer itself, because other code reads their attributes."""
    if not names or _works(module, input_size, names):
        return set()
    if len(names) == 1:
        return set(names)
    middle = len(names) // 2
    return _unreplaceable(module, input_size, names[:middle]) | _unreplaceable(module, input_size, names[middle:])


def _works(module: nn.Module, input_size: Sequence[int], names: Sequence[str]) -> bool:
    expected = _answer(module, input_size)
    with _wrapped(module, names):
        try:
            return torch.equal(expected, _answer(module, input_size))
        except Exception:  # code that reads an attribute of the layer raises anything
            return False


@contextmanager
def _wrapped(module: nn.Module, names: Sequence[str]) -> Iterator[None]:
    layers = {name: module.get_submodule(name) for name in names}
    try:
        for name, layer in layers.items():
            replace_layer(module, name, nn.Sequential(layer))
        yield
    finally:
        for name, layer in layers.items():
            replace_layer(module, name, layer)


def _answer(module: nn.Module, input_size: Sequence[int]) -> Tensor:
    pixels = torch.randn((1, *input_size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = module(pixels)
    first = answer if isinstance(answer, Tensor) else next(iter(answer))
    assert isinstance(first, Tensor)
    return first
