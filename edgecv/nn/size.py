"""MACs and parameters of a network, counted without running it where that can be."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


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


def count_macs(module: nn.Module, input_size: Sequence[int]) -> int:
    """Return the multiply-accumulates of one image by torch's counter, without running anything."""
    training, on_meta = module.training, next(module.parameters()).is_meta
    outline = module if on_meta else copy.deepcopy(module).to("meta")
    try:
        return measure_size(outline.eval(), input_size).macs
    finally:
        module.train(training)
