"""Which units go at a given strength, with widths that fill vector registers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgecv.config.pruning import DEPTHWISE_WIDTH
from edgecv.nn.prune.groups import ChannelGroup

SMALLEST_SHARE = 1 / 8
"""Of a group's units always stay: a layer cut further is a bottleneck that no healing widens."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How to choose.

    Attributes:
        scope: ``global``: units of all groups compete; ``layer``: every group gives the same share.
        lanes: float32 numbers in a vector register of the device.
    """

    scope: str
    lanes: int


def choose_units(
    groups: Sequence[ChannelGroup], scores: Sequence[Tensor], which: Sequence[int], strength: float, rule: Rule
) -> dict[int, list[int]]:
    """Return the units to remove: those with the lowest scores.

    Args:
        groups: All groups.
        scores: ``(units,)`` each, from :func:`edgecv.nn.prune.criteria.score_groups`.
        which: Indices of the groups that can be cut.
        strength: Share of units to remove, 0..1, before rounding.
        rule: Scope and rounding.
    """
    threshold = _quantile([scores[i] for i in which], strength) if rule.scope == "global" and which else 0.0
    choice = {}
    for i in which:
        group, order = groups[i], torch.argsort(scores[i], stable=True).tolist()
        weak = strength * group.units if rule.scope == "layer" else float((scores[i] <= threshold).sum())
        kept = round_width(group, group.units - weak if strength > 0 else group.units, rule.lanes)
        if kept < group.units:
            choice[i] = sorted(order[: group.units - kept])
    return choice


def round_width(group: ChannelGroup, kept: float, lanes: int) -> int:
    """Return how many units of a group stay, near ``kept``: a multiple of :func:`width_step`, or all of them."""
    step = width_step(group, lanes)
    least = min(group.units, step * math.ceil(max(1, group.units * SMALLEST_SHARE) / step))
    rounded = step * round(kept / step)
    if group.units - kept <= abs(kept - rounded):
        return group.units
    return min(group.units, max(rounded, least))


def width_step(group: ChannelGroup, lanes: int) -> int:
    """Return the units by which a group may shrink.

    Its width is to be a multiple of the register's ``lanes``, and of :data:`edgecv.config.pruning.DEPTHWISE_WIDTH`
    where a depthwise convolution takes part; a group too narrow for that takes the largest power of two that leaves it
    at least four widths to choose from. Heads go one by one.
    """
    if group.attributes:
        return 1
    wanted = max(lanes, DEPTHWISE_WIDTH) if group.depthwise else lanes
    multiple = min(wanted, 1 << max(0, int(math.log2(max(1, group.width // 4)))))
    blocks = group.width // group.units  # a unit is one channel of each block of a grouped layer
    return multiple // math.gcd(multiple, blocks)


def _quantile(scores: Sequence[Tensor], share: float) -> float:
    everything = torch.cat(list(scores)).sort().values
    return float(everything[min(len(everything) - 1, max(0, math.ceil(share * len(everything)) - 1))])
