"""Pruned until it is measured to be fast enough: time is not in proportion to MACs, so candidates are run."""

from dataclasses import dataclass

from edgecv.benchmark.statistics import Interval
from edgecv.config.pruning import Target
from edgecv.errors import UsageError
from edgecv.nn.meter import Meter
from edgecv.nn.prune.search import Units, find_choice
from edgecv.nn.prune.structured import Prunable
from edgecv.progress import Progress, no_progress

MAX_TRIALS = 6
"""Networks exported and timed in one search; a bracket narrows by at least half with each."""

CLOSE_ENOUGH = 0.04
"""Of the target: a candidate this little faster than asked ends the search."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate of a search: the share of MACs aimed at, and the time measured over the original's."""

    aim: float
    time: Interval
    choice: Units


def find_fast_choice(
    prunable: Prunable, target: Target, meter: Meter, *, start: float = 0.0, progress: Progress = no_progress
) -> tuple[Trial, tuple[Trial, ...]]:
    """Return the largest network measured to take at most the target's share of the time, and all that were tried.

    Args:
        prunable: What to cut.
        target: ``latency``.
        meter: Measures.
        start: Share of MACs to try first; 0: the target's share of the time.
        progress: See :mod:`edgecv.progress`.

    Raises:
        UsageError: No width is fast enough.
    """
    searched, trials = prunable.searched, list[Trial]()
    least = searched.share(searched.choose(1.0), "macs")
    slow, fast = 1.0, least
    aim = max(start or target.share, least)
    for number in range(MAX_TRIALS):
        progress("export and time candidates", number, MAX_TRIALS)
        choice = find_choice(searched, "macs", aim, str(target))
        trial = Trial(aim, meter.ratio(prunable.cut(choice)), choice)
        trials.append(trial)
        ratio = trial.time.estimate
        if target.share * (1 - CLOSE_ENOUGH) <= ratio <= target.share or (aim <= least and ratio > target.share):
            break
        slow, fast = (min(slow, aim), fast) if ratio > target.share else (slow, max(fast, aim))
        guess = aim * target.share * (1 - CLOSE_ENOUGH / 2) / ratio
        aim = guess if fast < guess < slow else least if ratio > target.share and fast == least else (fast + slow) / 2
    progress("export and time candidates", MAX_TRIALS, MAX_TRIALS)
    good = [t for t in trials if t.time.estimate <= target.share]
    if not good:
        best = min(trials, key=lambda t: t.time.estimate)
        raise UsageError(
            f"--to {target} cannot be reached: at {best.aim:.2f} of the MACs the network still takes "
            f"{best.time.estimate:.2f} of the time (measured); ask for more, or use a smaller input (--input-size)."
        )
    return max(good, key=lambda t: t.aim), tuple(trials)
