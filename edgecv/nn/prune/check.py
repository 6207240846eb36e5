"""Which groups really can be cut: the smaller network must run, and answer what the masked one answers.

The second is exact: a unit whose readers have zero weights for it might as well not be there. It finds channels that
were matched wrongly (behind shuffles, slices, channel attention), which would run and be nonsense.
"""

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgecv.nn.prune.groups import ChannelGroup, Traced
from edgecv.nn.prune.removal import Choice, mask_units, remove_units

_TOLERANCE = 1e-6
"""Of the largest answer, in float64: adding in another order changes the 15th digit."""


def sound_groups(traced: Traced, input_size: Sequence[int], seed: int = 0) -> tuple[list[int], list[int]]:
    """Return the indices of the groups that can be cut, and of those that cannot.

    Args:
        traced: From :func:`edgecv.nn.prune.groups.trace_groups`.
        input_size: ``(3, height, width)``.
        seed: Of the image tried.
    """
    everything = list(range(len(traced.groups)))
    network = copy.deepcopy(traced.module).requires_grad_(False).double()
    pixels = torch.randn((1, *input_size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if _run(network, pixels) is None:  # code that insists on float32
        network, pixels = network.float(), pixels.float()
    sound = _halve(network, traced.groups, everything, pixels)
    return sound, [i for i in everything if i not in set(sound)]


def _halve(network: nn.Module, groups: Sequence[ChannelGroup], which: list[int], pixels: Tensor) -> list[int]:
    """Return those of ``which`` that pass, found by halves: most networks pass as a whole."""
    if not which or _passes(network, groups, which, pixels):
        return which
    if len(which) == 1:
        return []
    middle = len(which) // 2
    good = _halve(network, groups, which[:middle], pixels)
    right = _halve(network, groups, which[middle:], pixels)
    if right and not _passes(network, groups, good + right, pixels):  # each half is sound, the two together are not
        for index in right:
            if _passes(network, groups, [*good, index], pixels):
                good = [*good, index]
        return good
    return good + right


def _passes(network: nn.Module, groups: Sequence[ChannelGroup], which: list[int], pixels: Tensor) -> bool:
    choice = {i: _tried(groups[i]) for i in which}
    if _removed(network, groups, choice, pixels) is None:
        return False
    comparable = {i: units for i, units in choice.items() if not _normalises(network, groups[i])}
    if not comparable:
        return True
    removed = _removed(network, groups, comparable, pixels)
    masked = copy.deepcopy(network)
    mask_units(masked, groups, comparable)
    expected = _run(masked, pixels)
    if removed is None or expected is None or removed.shape != expected.shape:
        return False
    tolerance = _TOLERANCE if pixels.dtype == torch.float64 else 1e-3
    return bool((removed - expected).abs().max() <= tolerance * expected.abs().max())


def _tried(group: ChannelGroup) -> list[int]:
    return sorted({0, 2 * group.units // 3} if group.units > 2 else {0})


def _removed(network: nn.Module, groups: Sequence[ChannelGroup], choice: Choice, pixels: Tensor) -> Tensor | None:
    smaller = copy.deepcopy(network)
    try:
        remove_units(smaller, groups, choice)
    except (ValueError, IndexError, KeyError, RuntimeError, StopIteration):
        return None
    return _run(smaller, pixels)


def _run(network: nn.Module, pixels: Tensor) -> Tensor | None:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = network(pixels)
    except Exception:  # a forward written for other widths raises anything
        return None
    return answer if isinstance(answer, Tensor) else None


def _normalises(network: nn.Module, group: ChannelGroup) -> bool:
    """Whether a norm takes its statistics over the channels themselves, so that fewer change the answer by right."""
    parts = dict(network.named_modules())
    for edit in group.edits:
        name = edit.name.rpartition(".")[0] if edit.side == "parameter" else edit.name
        kind = type(parts[name])
        if "norm" in kind.__name__.lower() and not issubclass(kind, nn.modules.batchnorm._NormBase):
            return True
    return False
