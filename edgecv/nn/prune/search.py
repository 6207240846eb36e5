"""The choice of units that leaves a network as large as asked, and no larger."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from edgecv.errors import UsageError
from edgecv.nn.prune.choose import Rule, choose_units, width_step
from edgecv.nn.prune.count import Sizer
from edgecv.nn.prune.groups import Traced

_HALVINGS = 12
"""Of the strength: finer than one channel in a thousand of a layer's 4096."""

NAMES = {"macs": "MACs", "params": "parameters"}

_FULL = 0.01
"""Of the size asked for: a network this near to it is not widened further."""

Units = dict[int, list[int]]


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """A network ready to be cut to any size.

    Attributes:
        traced: Copy and groups.
        scores: Of every unit.
        which: Indices of the groups that can be cut.
        sizer: Counts.
        rule: Scope and rounding.
    """

    traced: Traced
    scores: Sequence[Tensor]
    which: Sequence[int]
    sizer: Sizer
    rule: Rule

    def choose(self, strength: float) -> Units:
        """Return the units that go at a strength of 0..1."""
        return choose_units(self.traced.groups, self.scores, self.which, strength, self.rule)

    def share(self, choice: Units, measure: str) -> float:
        """Return what remains of ``macs`` or ``params``."""
        return self.sizer.size(choice).share_of(self.sizer.whole, measure)


def find_choice(searched: Searched, measure: str, share: float, asked: str) -> Units:
    """Return the units to remove so that at most ``share`` of a measure remains, as close to it as widths allow.

    Args:
        searched: What to cut.
        measure: ``macs`` or ``params``.
        share: In (0, 1).
        asked: The user's words, for the message.

    Raises:
        UsageError: Cut to the least widths, the network is still larger.
    """
    low, high = 0.0, 1.0
    heavy, light = Units(), searched.choose(1.0)
    least = searched.share(light, measure)
    if least > share:
        raise UsageError(
            f"--to {asked} cannot be reached: with every layer that can be cut at its least width {least:.3f} of the "
            f"{NAMES[measure]} remain; ask for more."
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        choice = searched.choose(middle)
        if searched.share(choice, measure) <= share:
            high, light = middle, choice
        else:
            low, heavy = middle, choice
    fitting = _give_back(heavy, light, lambda choice: searched.share(choice, measure) <= share)
    return _fill(searched, fitting, measure, share)


def _give_back(heavy: Units, light: Units, fits: Callable[[Units], bool]) -> Units:
    """Return ``light`` with as many groups as fit taken from ``heavy``: several layers may step at one strength."""
    different = [i for i in light if light[i] != heavy.get(i, [])]
    few, many = 0, len(different)
    while many - few > 1:
        middle = (few + many) // 2
        if fits(_mixed(heavy, light, different[:middle])):
            few = middle
        else:
            many = middle
    return _mixed(heavy, light, different[:few])


def _mixed(heavy: Units, light: Units, given_back: Sequence[int]) -> Units:
    mixed = {**light, **{i: heavy.get(i, []) for i in given_back}}
    return {i: units for i, units in mixed.items() if units}


def _fill(searched: Searched, choice: Units, measure: str, share: float) -> Units:
    """Give single steps of width back to the groups that lost the most important units, while the network fits."""
    filled = dict(choice)
    for i in sorted(choice, key=lambda i: -float(searched.scores[i][choice[i]].max())):
        if searched.share(filled, measure) > share * (1 - _FULL):
            break
        ordered = sorted(filled[i], key=lambda unit: float(searched.scores[i][unit]))
        group = searched.traced.groups[i]
        trial = {**filled, i: sorted(ordered[: -(width_step(group, searched.rule.lanes))])}
        trial = {k: units for k, units in trial.items() if units}
        if searched.share(trial, measure) <= share:
            filled = trial
    return filled
