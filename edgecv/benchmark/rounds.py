"""Interleaved rounds: every candidate gets one short turn per round, one process at a time, the order rotating.

A machine's speed drifts by tens of percent within minutes. Turns that lie next to each other see the same
machine, so the ratio inside a round holds where two separate measurements would not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgecv.benchmark.plan import Preset
from edgecv.benchmark.statistics import MIN_TURNS, Floats
from edgecv.progress import Progress, no_progress


class Worker(Protocol):
    """What a round needs of :class:`edgecv.benchmark.child.Child`."""

    def ask(self, do: str, *, expected_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its answer."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a candidate's warm-up went.

    Attributes:
        runs: Runs made.
        seconds: Time taken.
        steady: Whether the last windows agreed; False means that it was given up.
        last_median_ms: Median run of the last window.
    """

    runs: int
    seconds: float
    steady: bool
    last_median_ms: float


@dataclass(frozen=True, slots=True)
class Turns:
    """Everything timed of one candidate.

    Attributes:
        samples_ms: One array of run latencies per round.
        cpu_seconds: CPU time of the process, over all threads, in the timed runs.
        involuntary_switches: Times a thread was taken off its core in the timed runs.
    """

    samples_ms: tuple[Floats, ...]
    cpu_seconds: float
    involuntary_switches: int

    @property
    def all_ms(self) -> Floats:
        """Every sample, in order."""
        return np.concatenate(self.samples_ms)

    @property
    def medians_ms(self) -> Floats:
        """Median of each turn; shape ``(rounds,)``."""
        return np.array([np.median(s) for s in self.samples_ms])


def warm_up(worker: Worker, preset: Preset) -> WarmUp:
    """Run a worker until its latency is steady, or the preset's patience ends."""
    seconds = preset.max_warm_up_seconds
    return WarmUp(**worker.ask("warm_up", expected_s=seconds, max_seconds=seconds))


def run_rounds(
    workers: Sequence[Worker],
    warm_ups: Sequence[WarmUp],
    preset: Preset,
    *,
    after_round: Callable[[], None] = lambda: None,
    progress: Progress = no_progress,
) -> list[Turns]:
    """Give turns until every worker has what the preset asks for.

    Args:
        workers: Warm workers.
        warm_ups: Theirs, in the same order: a run's length decides how many fit a turn.
        preset: Queries, seconds, rounds.
        after_round: Called after each round (noise sampling).
        progress: Told about the candidate that is furthest behind, in percent.

    Returns:
        One :class:`Turns` per worker, all with the same number of rounds.
    """
    taken: list[list[dict[str, Any]]] = [[] for _ in workers]
    plans = plan_turns([w.last_median_ms for w in warm_ups], preset)
    done = 0.0
    while done < 1.0:
        progress("timing, % done", int(100 * done), 100)
        first = len(taken[0]) % len(workers)
        for i in (*range(first, len(workers)), *range(first)):
            turn_ms, runs = plans[i]
            expected_s = (turn_ms + (runs + 1) * warm_ups[i].last_median_ms) / 1000
            taken[i].append(workers[i].ask("turn", expected_s=10 * expected_s, turn_ms=turn_ms, min_runs=runs))
        after_round()
        done = min(_progress_of(t, preset) for t in taken)
    progress("timing, % done", 100, 100)
    return [_collect(t) for t in taken]


def plan_turns(run_ms: Sequence[float], preset: Preset) -> list[tuple[float, int]]:
    """Return each candidate's turn: its length in milliseconds and its fewest runs.

    The slowest candidate decides how many rounds there will be; quicker ones get longer turns, so that all reach
    the preset's seconds together.
    """
    runs = [_runs_per_turn(ms, preset) for ms in run_ms]
    rounds = [_rounds_needed(ms, n, preset) for ms, n in zip(run_ms, runs, strict=True)]
    turn_ms = max(preset.turn_ms, 1000 * preset.min_seconds / max(preset.min_turns, min(rounds)))
    return [(turn_ms, n) for n in runs]


def _runs_per_turn(run_ms: float, preset: Preset) -> int:
    # A run so slow that the rounds an interval needs would not fit is timed once a turn.
    fits = run_ms * preset.min_runs * max(preset.min_turns, MIN_TURNS) <= preset.max_seconds * 1000
    return preset.min_runs if fits else 1


def _rounds_needed(run_ms: float, runs: int, preset: Preset) -> float:
    turn_ms = max(preset.turn_ms, runs * run_ms)
    queries = max(runs, preset.turn_ms / run_ms)
    wanted = max(1000 * preset.min_seconds / turn_ms, preset.min_queries / queries)
    return min(wanted, 1000 * preset.max_seconds / turn_ms)


def _progress_of(turns: Sequence[dict[str, Any]], preset: Preset) -> float:
    queries = sum(len(t["samples_ns"]) for t in turns)
    seconds = sum(sum(t["samples_ns"]) for t in turns) / 1e9
    wanted = min(queries / preset.min_queries, seconds / preset.min_seconds, len(turns) / preset.min_turns)
    return max(wanted, seconds / preset.max_seconds)


def _collect(turns: Sequence[dict[str, Any]]) -> Turns:
    return Turns(
        samples_ms=tuple(np.array(t["samples_ns"], np.float64) / 1e6 for t in turns),
        cpu_seconds=float(sum(t["cpu_seconds"] for t in turns)),
        involuntary_switches=int(sum(t["involuntary_switches"] for t in turns)),
    )
