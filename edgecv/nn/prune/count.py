"""What copies of a network with fewer channels would cost, without memory for their weights."""

import copy
from collections.abc import Sequence

from torch import nn

from edgecv.nn.prune.groups import ChannelGroup
from edgecv.nn.prune.removal import Choice, remove_units
from edgecv.nn.size import Size, measure_size


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
