"""MACs and parameters of a network, and of copies of it with fewer channels, without memory for their weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgecv.nn.prune.groups import ChannelGroup
from edgecv.nn.prune.removal import Choice, remove_units


@dataclass(frozen=True, slots=True)
class Size:
    """What a network costs.

    Attributes:
        macs: Multiply-accumulates of one image.
        params: Parameters.
    """

    macs: int
    params: int

    def share_of(self, other: "Size", measure: str) -> float:
        """Return this over ``other``: ``macs``, or ``params``."""
        mine, theirs = (self.macs, other.macs) if measure == "macs" else (self.params, other.params)
        return mine / theirs if theirs else 1.0


def measure_size(module: nn.Module, input_size: Sequence[int]) -> Size:
    """Count one image through ``module``, on whatever device its weights are."""
    device = next(module.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(torch.empty((1, *input_size), device=device))
    return Size(counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters()))


class Sizer:
    """Counts what would be left of a network."""

    def __init__(self, module: nn.Module, groups: Sequence[ChannelGroup], input_size: Sequence[int]) -> None:
        """Copy the network to the meta device, where it takes neither memory nor time; on the CPU where it cannot."""
        self._groups, self._input_size = groups, input_size
        self._outline = copy.deepcopy(module).eval().to("meta")
        try:
            self.whole = measure_size(self._outline, input_size)
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            self._outline = copy.deepcopy(module).eval()
            self.whole = measure_size(self._outline, input_size)

    def size(self, choice: Choice) -> Size:
        """Return the size without the chosen units."""
        smaller = copy.deepcopy(self._outline)
        remove_units(smaller, self._groups, choice)
        return measure_size(smaller, self._input_size)
