"""What to time and for how long: candidates and presets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv.errors import UsageError, nearest
from edgecv.runtime.host import usable_cores

MAX_CANDIDATES = 64
"""Each candidate is a process that stays loaded to the end; more than this is a slip of the keyboard."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing to time, in a process of its own.

    Attributes:
        model: The ONNX file.
        provider: A policy of :mod:`edgecv.runtime.providers`: ``cpu``, ``cuda,cpu``, …
        batch: Images per run.
        threads: Intra-op threads: a number, or ``auto``.
    """

    model: Path
    provider: str = "cpu"
    batch: int = 1
    threads: str = "auto"

    @property
    def label(self) -> str:
        """Short name for progress and errors."""
        return f"{self.model.name} on {self.provider} (batch {self.batch}, threads {self.threads})"


@dataclass(frozen=True, slots=True)
class Preset:
    """How long each candidate is timed.

    Attributes:
        name: What the user types.
        min_queries: Fewest timed runs.
        min_seconds: Least time spent inside timed runs, in seconds.
        max_seconds: Stop here even when ``min_queries`` is not reached, in seconds of timed runs.
        min_turns: Fewest turns (rounds of the interleaving).
        turn_ms: Length aimed at for one turn, in milliseconds.
        min_runs: Fewest timed runs in a turn.
        max_warm_up_seconds: Give up waiting for a steady latency after this long, in seconds.
    """

    name: str
    min_queries: int
    min_seconds: float
    max_seconds: float
    min_turns: int = 20
    turn_ms: float = 100.0
    min_runs: int = 3
    max_warm_up_seconds: float = 3.0


PRESETS = {
    "rapid": Preset("rapid", min_queries=64, min_seconds=6, max_seconds=60),
    "quick": Preset("quick", min_queries=128, min_seconds=10, max_seconds=60, max_warm_up_seconds=5),
    "official": Preset(
        "official", min_queries=1024, min_seconds=60, max_seconds=600, turn_ms=200, max_warm_up_seconds=20
    ),
}
"""Queries and seconds of MLPerf's mobile app (mlcommons/mobile_app_open, flutter/assets/tasks.pbtxt, image
classification: rapid, quick and normal, which is called official here), per candidate."""


def find_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        UsageError: There is no such preset; the nearest one is shown.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset '{name}'; choose one of {', '.join(PRESETS)}.{nearest(name, PRESETS)}")
    return PRESETS[name]


def plan_candidates(
    models: Sequence[Path],
    providers: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (1,),
    threads: Sequence[str] = ("auto",),
) -> list[Candidate]:
    """Return every combination, models innermost, so that those to be compared run next to each other.

    Combinations that would come out the same (``auto`` and the number it stands for) are kept once.

    Raises:
        UsageError: A thread count that is none, or more than :data:`MAX_CANDIDATES` combinations.
    """
    counts = list({_thread_count(t): t for t in reversed(threads)}.values())[::-1]
    plan = [
        Candidate(model, provider, batch, count)
        for provider in dict.fromkeys(providers)
        for batch in dict.fromkeys(batches)
        for count in counts
        for model in models
    ]
    if len(plan) > MAX_CANDIDATES:
        raise UsageError(
            f"{len(plan)} combinations of models, providers, batches and threads are more than {MAX_CANDIDATES}; "
            "time fewer in one call."
        )
    return plan


def _thread_count(text: str) -> int:
    if text == "auto":
        return usable_cores()
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise UsageError(f"--threads '{text}' is neither auto nor a number from 1 to 1024.")
    return int(text)
