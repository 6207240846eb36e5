"""From raw turns to results: medians, intervals, ratios, and whether to trust them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.benchmark.noise import Noise, reasons
from edgecv.benchmark.plan import Candidate
from edgecv.benchmark.profile import Profile
from edgecv.benchmark.report import Result
from edgecv.benchmark.rounds import Turns, WarmUp
from edgecv.benchmark.statistics import (
    Interval,
    drift,
    median_interval,
    min_samples,
    paired_ratio,
    supported_percentiles,
)

UNSTABLE_WIDTH = 0.03
"""An interval wider than this share of the median is called unstable."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one worker gave.

    Attributes:
        facts: Its first answer.
        warm_up: How it warmed up.
        turns: Everything timed.
        peak_rss_mib: At the end.
        end_to_end: Decode → label figures, if measured.
    """

    facts: Mapping[str, Any]
    warm_up: WarmUp
    turns: Turns
    peak_rss_mib: float
    end_to_end: Mapping[str, Any] | None = None


def make_results(
    candidates: Sequence[Candidate],
    measured: Sequence[Measured],
    profiles: Sequence[Profile | None],
    files: Mapping[Path, tuple[str, int]],
    noise: Noise,
    seed: int,
) -> tuple[Result, ...]:
    """Return one result per candidate; ``speedup`` is against the first, per image."""
    reference = measured[0].turns.medians_ms / candidates[0].batch
    results = []
    for i, (candidate, raw, profile) in enumerate(zip(candidates, measured, profiles, strict=True)):
        speedup = paired_ratio(reference, raw.turns.medians_ms / candidate.batch, seed=seed) if i else None
        results.append(_result(candidate, raw, files[candidate.model], noise, seed, speedup, profile))
    return tuple(results)


def end_to_end_figures(answer: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return decode → label figures from a worker's times: medians of the parts, percentiles of the whole.

    Args:
        answer: ``decode_ns``, ``run_ns``, ``label_ns``, one number per image.
    """
    parts = {k.removesuffix("_ns"): np.asarray(v, np.float64) / 1e6 for k, v in answer.items()}
    whole = np.sum(list(parts.values()), axis=0)
    median = float(np.median(whole))
    return {
        "n": len(whole),
        **{f"{name}_p50_ms": float(np.median(values)) for name, values in parts.items()},
        "total_p50_ms": median,
        "percentiles": {f"total_{k}": v for k, v in _percentiles(whole).items()},
        "images_per_second": 1000 / median,
    }


def _result(
    candidate: Candidate,
    raw: Measured,
    file: tuple[str, int],
    noise: Noise,
    seed: int,
    speedup: Interval | None,
    profile: Profile | None,
) -> Result:
    samples, medians, facts = raw.turns.all_ms, raw.turns.medians_ms, raw.facts
    interval = median_interval(raw.turns.samples_ms, seed=seed)
    moved = drift(medians)
    stable, why = _stability(interval, moved, raw.warm_up, noise, len(medians))
    p50 = float(np.median(samples))
    cold = {k: float(facts[k]) for k in ("start_ms", "import_ms", "load_ms", "first_run_ms")}
    return Result(
        model=str(candidate.model),
        model_sha256=file[0],
        model_bytes=file[1],
        provider=candidate.provider,
        providers=tuple(facts["providers"]),
        node_share=facts["node_share"],
        batch=candidate.batch,
        threads=int(facts["threads"]),
        inputs=facts["inputs"],
        finite_outputs=facts["finite"],
        n=len(samples),
        rounds=len(medians),
        timed_seconds=float(samples.sum()) / 1000,
        latency_p50_ms=p50,
        latency_p50_interval_ms=(interval.low, interval.high) if interval else None,
        percentiles=_percentiles(samples),
        images_per_second=1000 * candidate.batch / p50,
        cpu_seconds_per_run=raw.turns.cpu_seconds / len(samples),
        involuntary_switches=raw.turns.involuntary_switches,
        **cold,
        cold_start_ms=sum(cold.values()),
        rss_before_load_mib=facts["rss_before_load_mib"],
        peak_rss_after_load_mib=facts["peak_rss_after_load_mib"],
        peak_rss_mib=raw.peak_rss_mib,
        warm_up_runs=raw.warm_up.runs,
        warm_up_seconds=raw.warm_up.seconds,
        warm_up_steady=raw.warm_up.steady,
        drift=moved,
        stable=stable,
        unstable_reasons=why,
        speedup=speedup,
        turn_medians_ms=tuple(float(m) for m in medians),
        end_to_end=raw.end_to_end,
        profile=profile,
        notes=tuple(facts["notes"]),
    )


def _stability(
    interval: Interval | None, moved: float, warm: WarmUp, noise: Noise, rounds: int
) -> tuple[bool, tuple[str, ...]]:
    """Return (stable, reasons): unstable without an interval or with one wider than :data:`UNSTABLE_WIDTH`."""
    if interval is None:
        return False, (f"{rounds} rounds are too few for an interval",)
    if interval.relative_width <= UNSTABLE_WIDTH:
        return True, ()
    why = [f"the 95 % interval is {100 * interval.relative_width:.1f} % of the median wide"]
    if not warm.steady:
        why.append(f"latency was not steady after {warm.seconds:.1f} s of warm-up")
    if moved:
        why.append(f"latency drifted by {moved:+.0%} over the run")
    return False, (*why, *(reasons(noise) or ["no cause was seen on this machine"]))


def _percentiles(samples: np.ndarray) -> dict[str, float]:
    return {f"latency_p{p:g}_ms".replace(".", "_"): v for p, v in supported_percentiles(samples).items()}


def needed_for(percentile: float, n: int) -> str:
    """Say why a percentile is missing from ``n`` samples; ``""`` when it is not.

    >>> needed_for(90, 40)
    'p90 needs 64 runs, 40 were made'
    """
    return (
        "" if n >= min_samples(percentile) else f"p{percentile:g} needs {min_samples(percentile)} runs, {n} were made"
    )
