"""Pruned until it is measured to be fast enough: time is not in proportion to MACs, so candidates are run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv.benchmark.latency import compare_latency
from edgecv.benchmark.plan import Preset
from edgecv.benchmark.report import BenchReport
from edgecv.benchmark.statistics import Interval
from edgecv.config.pruning import Target
from edgecv.errors import UsageError
from edgecv.nn.export import ExportSettings, export_network
from edgecv.nn.network import Network
from edgecv.nn.prune.search import Units, find_choice
from edgecv.nn.prune.structured import Prunable
from edgecv.progress import Progress, no_progress

MAX_TRIALS = 6
"""Networks exported and timed in one search; a bracket narrows by at least half with each."""

CLOSE_ENOUGH = 0.04
"""Of the target: a candidate this little faster than asked ends the search."""

SEARCH = Preset("search", min_queries=64, min_seconds=2.0, max_seconds=20.0, max_warm_up_seconds=2.0)
"""Shorter than ``rapid``: the ratio inside interleaved rounds needs fewer runs than a latency of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Meter:
    """Times networks against the original.

    Attributes:
        original: The original, exported.
        folder: For exported candidates.
        images: Photographs an export is checked on.
        provider: Policy of :mod:`edgecv.runtime.providers`.
        threads: Intra-op threads: a number, or ``auto``.
        seed: Of inputs and resampling.
    """

    original: Path
    folder: Path
    images: Sequence[Path]
    provider: str
    threads: str
    seed: int

    def export(self, network: Network, name: str) -> Path:
        """Write a network as ``.onnx``, checked against PyTorch."""
        path = self.folder / name
        export_network(network, path, self.images, ExportSettings())
        return path

    def ratio(self, network: Network, progress: Progress = no_progress) -> Interval:
        """Return time of ``network`` over time of the original, with interval."""
        path = self.export(network, "candidate.onnx")
        return time_ratio(self.compare(path, SEARCH, progress))

    def compare(self, candidate: Path, preset: str | Preset, progress: Progress = no_progress) -> BenchReport:
        """Time the original and a candidate in interleaved rounds."""
        return compare_latency(
            [self.original, candidate],
            provider=self.provider,
            threads=self.threads,
            preset=preset,
            seed=self.seed,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate of a search: the share of MACs aimed at, and the time measured over the original's."""

    aim: float
    time: Interval
    choice: Units


def time_ratio(report: BenchReport) -> Interval:
    """Return the second result's time over the first's: the inverse of its speed-up."""
    speedup = report.results[1].speedup
    if speedup is None:
        ratio = report.results[1].latency_p50_ms / report.results[0].latency_p50_ms
        return Interval(ratio, 0.0, float("inf"))
    return Interval(1 / speedup.estimate, 1 / speedup.high, 1 / speedup.low, speedup.level)


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
