"""A student made from its teacher: depthwise-separable, and as wide as a budget of MACs allows."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecv.errors import UsageError
from edgecv.nn.adapt import adapt, head_names
from edgecv.nn.checkpoint import load_network
from edgecv.nn.construct import construct
from edgecv.nn.depthwise import ACTIVATIONS, apply, attributes_of, is_plain, set_widths
from edgecv.nn.models import Size, build_outline
from edgecv.nn.names import is_checkpoint
from edgecv.nn.network import Network
from edgecv.nn.size import count_macs
from edgecv.nn.structure import replay

LEAST_WIDTH, MOST_WIDTH = 1 / 32, 4.0
SEARCH_STEPS = 10
CLOSE_ENOUGH = 0.98
"""The search ends with a student of this share of its budget: channels come in steps, few networks get nearer."""

LEAST_CHANNELS = 4
"""Of any layer, and the finest step of its width."""

COLOURS = 3


def student_of(
    like: str | Network,
    *,
    macs: float = 0.1,
    num_classes: int | None = None,
    input_size: int | Size | None = None,
    seed: int = 0,
) -> Network:
    """Return the depthwise-separable version of a CNN, untrained.

    Each k×k convolution that is not depthwise already becomes depthwise k×k, norm, activation, pointwise 1×1; norm and
    activation are the network's own kind. The first layer, which mixes colours, stays whole. Stages, blocks and
    shortcuts stay; all widths are multiplied by the one factor, found by bisection, that meets the budget.

    Args:
        like: A network's name, a checkpoint of edgecv's, or a network.
        macs: Multiply-accumulates of the student: as a share of ``like``'s in (0, 1], or a number of MACs above 1.
        num_classes: Of the student; default as ``like``.
        input_size: Pixels; default as ``like``. MACs are counted at this size.
        seed: Seed of the weights.

    Returns:
        The student in train mode; its ``structure`` says how it is rebuilt.

    Raises:
        UsageError: ``like`` cannot be turned, or not made so small.
    """
    if not 0 < macs < 1e15:
        raise UsageError(f"--macs {macs:g} is neither a share in (0, 1] nor a number of MACs.")
    original = _outline(like, num_classes, input_size)
    reference = count_macs(original.module, original.input.input_size)
    target = macs * reference if macs <= 1 else macs
    heads = set(head_names(original.name, original.arguments))
    plan = _search(original, heads, target)
    step = {"step": "depthwise", **plan}
    torch.manual_seed(seed)
    module = replay(construct(original.name, original.arguments), original.structure, original.module.state_dict())
    module = apply(module, step, {}).train()
    counted = count_macs(module, original.input.input_size)
    made = {
        "like": original.name,
        "macs": counted,
        "macs_share": round(counted / reference, 4),
        "width": plan["width"],
        "seed": seed,
    }
    return replace(
        original,
        module=module,
        source={"weights": "untrained", "seed": str(seed)},
        structure=(*original.structure, step),
        stages=({"name": "student", "settings": made, "tools": {}},),
    )


def _outline(like: str | Network, num_classes: int | None, input_size: int | Size | None) -> Network:
    if isinstance(like, str) and not is_checkpoint(like):
        return build_outline(like, num_classes=num_classes, input_size=input_size)
    network = load_network(Path(like)) if isinstance(like, str) else like
    network = replace(network, module=copy.deepcopy(network.module).to("meta"))
    return adapt(network, num_classes, (input_size, input_size) if isinstance(input_size, int) else input_size)


def _search(original: Network, heads: set[str], target: float) -> dict[str, Any]:
    """Return the plan of the widest student within ``target`` MACs."""
    low, high = LEAST_WIDTH, MOST_WIDTH
    (least, best), (most, widest) = _plan(original, heads, low), _plan(original, heads, high)
    if least > target:
        raise UsageError(
            f"a student like '{original.name}' has at least {least / 1e6:.3g} M MACs, over the {target / 1e6:.3g} M "
            "asked for; raise --macs or name a smaller network, such as dsnet."
        )
    if most <= target:
        return widest
    longest = max(m.out_channels for m in original.module.modules() if isinstance(m, nn.Conv2d))
    for number in range(SEARCH_STEPS):
        if (high - low) * longest < LEAST_CHANNELS:
            break  # no layer has a width in between
        share = 0.5
        if number % 2 == 0:  # MACs grow with the square of the width: guess where the root of the target lies
            share = (target**0.5 - least**0.5) / (most**0.5 - least**0.5)
        middle = low + (high - low) * share
        macs, plan = _plan(original, heads, middle)
        if macs <= target:
            low, least, best = middle, macs, plan
        else:
            high, most = middle, macs
        if least >= CLOSE_ENOUGH * target:
            break
    return best


def _plan(original: Network, heads: set[str], width: float) -> tuple[int, dict[str, Any]]:
    """Narrow a copy while an image without memory runs through it; return the student's MACs and its plan."""
    module = copy.deepcopy(original.module)
    plan: dict[str, Any] = {
        "width": round(width, 5),
        "norm": "batch" if any(isinstance(m, nn.BatchNorm2d) for m in module.modules()) else "none",
        "act": _activation(module),
        "modules": {},
        "separable": [],
    }
    with _narrowing(module, heads, width, plan), _refusing(original.name), torch.no_grad():
        module.train()  # auxiliary heads run only then
        module(torch.empty((2, *original.input.input_size), device="meta"))
    if not plan["separable"]:
        raise UsageError(
            f"'{original.name}' has no convolution to split: none beyond the first is both larger than 1x1 and not "
            "depthwise already; use it as the student itself."
        )
    with _refusing(original.name), torch.no_grad():
        module = apply(module, {"step": "depthwise", **plan}, {})
        return count_macs(module, original.input.input_size), plan


@contextmanager
def _narrowing(module: nn.Module, heads: set[str], width: float, plan: dict[str, Any]) -> Iterator[None]:
    """Set each layer's width just before it runs: what comes in is known only then (sums, concatenations)."""

    def hook(name: str) -> Callable[..., None]:
        def narrow(part: nn.Module, inputs: tuple[Any, ...]) -> None:
            if name in plan["modules"]:
                return
            if _splits(part) and name not in heads:
                if not is_plain(part):
                    raise ValueError(f"'{name}' is a {type(part).__name__}")
                plan["separable"].append(name)
            widths = _widths(part, inputs[0], 1.0 if name in heads else width, whole=name in heads)
            plan["modules"][name] = widths
            set_widths(part, name, widths)

        return narrow

    handles = [
        part.register_forward_pre_hook(hook(name)) for name, part in module.named_modules() if attributes_of(part)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _widths(part: nn.Module, x: torch.Tensor, width: float, *, whole: bool) -> dict[str, int]:
    if isinstance(part, nn.Conv2d):
        channels = x.shape[1]
        if part.groups == part.in_channels and part.out_channels % part.in_channels == 0 and part.groups > 1:
            return {
                "in_channels": channels,
                "out_channels": channels * (part.out_channels // part.in_channels),
                "groups": channels,
            }
        out = part.out_channels if whole else narrowed(part.out_channels, width)
        return {"in_channels": channels, "out_channels": out, "groups": 1 if _splits(part) else part.groups}
    if isinstance(part, nn.Linear):
        out = part.out_features if whole else narrowed(part.out_features, width)
        return {"in_features": x.shape[-1], "out_features": out}
    channels_last = isinstance(part, nn.LayerNorm) and type(part).__name__ != "LayerNorm2d"
    return {attributes_of(part)[0]: x.shape[-1 if channels_last else 1]}


def narrowed(channels: int, width: float) -> int:
    """Return ``channels * width`` in steps of 8, below 24 in steps of 4, at least 4: whole SIMD registers.

    >>> narrowed(64, 0.5), narrowed(64, 0.3), narrowed(16, 0.1)
    (32, 20, 4)
    """
    wanted = channels * width
    step = 8 if wanted >= 24 else LEAST_CHANNELS
    return max(LEAST_CHANNELS, round(wanted / step) * step)


def _splits(part: nn.Module) -> bool:
    return (
        isinstance(part, nn.Conv2d)
        and max(part.kernel_size) > 1
        and part.groups < part.in_channels
        and part.in_channels != COLOURS
    )


def _activation(module: nn.Module) -> str:
    """Return the commonest activation of a network; ReLU where it calls functions."""
    aliases = {"swish": "silu", "swishme": "silu", "hardswishme": "hardswish", "mishme": "mish", "gelutanh": "gelu"}
    names = (aliases.get(n, n) for n in (type(m).__name__.lower() for m in module.modules()))
    found = Counter(n for n in names if n in ACTIVATIONS).most_common(1)
    return found[0][0] if found else "relu"


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, AssertionError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as e:
        raise UsageError(
            f"'{name}' cannot be turned into a depthwise-separable student: its layers need fixed widths "
            f"({' '.join(str(e).split())[:120]}); name a student, such as dsnet or mobilenetv3_small_100."
        ) from e
