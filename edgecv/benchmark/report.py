"""What a benchmark found: one result per candidate, the ratio to the first, and a verdict in words; kept as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecv.benchmark.noise import Noise
from edgecv.benchmark.plan import Preset
from edgecv.benchmark.profile import Profile
from edgecv.benchmark.statistics import Interval
from edgecv.errors import UsageError
from edgecv.files import read_file, write_bytes

SCHEMA = 1

_MAX_REPORT_BYTES = 64 << 20

SMALLEST_DIFFERENCE = 0.02
"""Ratios nearer to 1 than this are not called a difference, however narrow the interval: two processes of the very
same file differ by their memory layout alone (Mytkowicz et al., "Producing wrong data without doing anything
obviously wrong", ASPLOS 2009), and no number of rounds averages that out. tests/benchmarks/self_comparison.py
measures it."""


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate's figures.

    Attributes:
        model: The file as it was named.
        model_sha256: Of its bytes.
        model_bytes: Its size, external weights included.
        provider: The policy asked for.
        providers: What ONNX Runtime made of it, in order.
        node_share: Share of the graph's nodes per provider (0..1).
        batch: Images per run.
        threads: Intra-op threads used.
        inputs: ``random`` or ``photographs``.
        finite_outputs: Whether the first run gave neither NaN nor Inf.
        n: Timed runs.
        rounds: Turns they were made in.
        timed_seconds: Time inside them.
        latency_p50_ms: Median run.
        latency_p50_interval_ms: Its 95 % interval; None with too few rounds.
        percentiles: ``latency_p90_ms`` and so on, as far as ``n`` supports them.
        images_per_second: ``batch`` over the median run.
        cpu_seconds_per_run: Over all threads.
        involuntary_switches: Times a thread lost its core in the timed runs.
        start_ms: From the start of the process to its first line (the interpreter).
        import_ms: numpy, ONNX Runtime and edgecv's runtime.
        load_ms: Opening the session; the file is in the page cache.
        first_run_ms: The first run.
        cold_start_ms: The four together.
        rss_before_load_mib: Peak resident memory before the model.
        peak_rss_after_load_mib: After load and first run.
        peak_rss_mib: After the timed runs.
        warm_up_runs: Runs before the clock.
        warm_up_seconds: Their time.
        warm_up_steady: False: given up while latency still moved.
        drift: Relative change of latency over the run; 0 when it shows no clear trend.
        stable: The interval is narrower than 3 % of the median.
        unstable_reasons: What was seen that may explain it when not.
        speedup: Times faster per image than the first candidate, with interval; None for the first itself.
        turn_medians_ms: Median run of each round: what comparisons are made of.
        end_to_end: Decode → label figures, when photographs were given.
        profile: Time by operator and layer, when asked for.
        notes: What the runtime wants said: a provider not obtained, more threads than cores.
    """

    model: str
    model_sha256: str
    model_bytes: int
    provider: str
    providers: tuple[str, ...]
    node_share: Mapping[str, float]
    batch: int
    threads: int
    inputs: str
    finite_outputs: bool
    n: int
    rounds: int
    timed_seconds: float
    latency_p50_ms: float
    latency_p50_interval_ms: tuple[float, float] | None
    percentiles: Mapping[str, float]
    images_per_second: float
    cpu_seconds_per_run: float
    involuntary_switches: int
    start_ms: float
    import_ms: float
    load_ms: float
    first_run_ms: float
    cold_start_ms: float
    rss_before_load_mib: float
    peak_rss_after_load_mib: float
    peak_rss_mib: float
    warm_up_runs: int
    warm_up_seconds: float
    warm_up_steady: bool
    drift: float
    stable: bool
    unstable_reasons: tuple[str, ...]
    speedup: Interval | None
    turn_medians_ms: tuple[float, ...]
    end_to_end: Mapping[str, Any] | None = None
    profile: Profile | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A whole benchmark; the first result is the reference of all ratios.

    Attributes:
        results: In the order the candidates were given.
        preset: How long each was timed.
        seed: Of inputs and resampling.
        noise: What else the machine did meanwhile.
        host: Versions and machine, see :func:`edgecv.runtime.host.host_facts`.
        measured_at: ISO date and time, UTC.
        verdict: The one line to read: the fastest against the reference, or a single result's latency.
        verdicts: One line per result after the first.
    """

    results: tuple[Result, ...]
    preset: Preset
    seed: int
    noise: Noise
    host: Mapping[str, Any]
    measured_at: str
    verdict: str
    verdicts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-serialisable data."""
        return {"schema": SCHEMA, "kind": "bench", **asdict(self)}


def describe(results: Sequence[Result]) -> tuple[str, tuple[str, ...]]:
    """Return (verdict, verdicts) in words, see :class:`BenchReport`."""
    names = short_names(results)
    broken = [name for name, r in zip(names, results, strict=True) if not r.finite_outputs]
    warning = f"; not finite (NaN or Inf): the outputs of {' and of '.join(broken)}" if broken else ""
    if len(results) == 1:
        return _single_verdict(results[0]) + warning, ()
    lines = tuple(
        ratio_verdict(names[0], name, r.speedup) + _doubt(results[0], r)
        for name, r in zip(names[1:], results[1:], strict=True)
    )
    fastest = max(range(1, len(results)), key=lambda i: _speed(results[i]))
    prefix = "fastest: " if len(lines) > 1 and _speed(results[fastest]) > 1 else ""
    return prefix + lines[fastest - 1] + warning, lines


def short_names(results: Sequence[Result]) -> list[str]:
    """Return a name per result that says only what differs between them, always beginning with the file."""
    parts = [
        (Path(r.model).name, f"on {r.provider}", f"batch {r.batch}", f"{r.threads} thread{'s' * (r.threads > 1)}")
        for r in results
    ]
    varying = [i for i in range(4) if i == 0 or len({p[i] for p in parts}) > 1]
    return [", ".join(p[i] for i in varying).replace(", on ", " on ") for p in parts]


def ratio_verdict(reference: str, candidate: str, speedup: Interval | None) -> str:
    """Say in one line which of two is faster here, or that nothing can be shown."""
    if speedup is None:
        return f"too few rounds to compare {candidate} with {reference}: use a longer --preset"
    interval = f"({speedup.level:.0%} interval {speedup.low:.2f}–{speedup.high:.2f})".replace("%", " %")
    if not speedup.excludes(1.0, SMALLEST_DIFFERENCE):
        return f"no difference can be shown between {candidate} and {reference} here {interval}"
    if speedup.estimate > 1:
        return f"{candidate} is {speedup.estimate:.2f}x faster than {reference} here {interval}"
    slower = Interval(1 / speedup.estimate, 1 / speedup.high, 1 / speedup.low, speedup.level)
    interval = f"({slower.level:.0%} interval {slower.low:.2f}–{slower.high:.2f})".replace("%", " %")
    return f"{candidate} is {slower.estimate:.2f}x slower than {reference} here {interval}: keep {reference}"


def _doubt(reference: Result, result: Result) -> str:
    """Return what made either of the two unsteady: a ratio measured beside other work holds for that mixture only."""
    unsteady = result if result.unstable_reasons else reference
    reasons = "; ".join(unsteady.unstable_reasons)
    return f"; unstable ({Path(unsteady.model).name}: {reasons})" if reasons else ""


def _speed(result: Result) -> float:
    return result.speedup.estimate if result.speedup else 0.0


def _single_verdict(result: Result) -> str:
    name, low_high = Path(result.model).name, result.latency_p50_interval_ms
    interval = f" (95 % interval {low_high[0]:.3g}–{low_high[1]:.3g})" if low_high else ""
    return f"{name} takes {result.latency_p50_ms:.3g} ms a run here{interval}, batch {result.batch}" + (
        "" if result.stable else "; unstable"
    )


def save_report(report: BenchReport, path: Path) -> None:
    """Write ``report`` as JSON (temporary file, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
    write_bytes(path, text.encode(errors="backslashreplace") + b"\n")  # half a character in a file's name: \udcff


def load_results(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a report back for comparison: its host facts, and its results as plain data.

    Raises:
        UsageError: Not a file, not JSON, not a benchmark's report, or of a newer schema.
    """
    try:
        raw = json.loads(read_file(path, "report", _MAX_REPORT_BYTES))
    except (ValueError, RecursionError) as e:
        raise UsageError(f"report '{path}' is not JSON ({e}); make one with: edgecv bench -o {path}") from e
    if not isinstance(raw, dict) or raw.get("kind") != "bench":
        raise UsageError(f"'{path}' is not a report of edgecv bench; make one with: edgecv bench -o {path}")
    if not isinstance(raw.get("schema"), int) or raw["schema"] > SCHEMA:
        raise UsageError(f"'{path}' has schema {raw.get('schema')!r}, this edgecv reads up to {SCHEMA}; update edgecv.")
    results = raw.get("results")
    if not isinstance(results, list) or not results or not all(map(_is_result, results)):
        raise UsageError(f"report '{path}' is damaged: its results lack fields or have wrong types; run bench again.")
    return (raw["host"] if isinstance(raw.get("host"), dict) else {}), results


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict):
        return False
    medians = result.get("turn_medians_ms")
    return (
        all(isinstance(result.get(k), str) for k in ("model", "provider"))
        and all(isinstance(result.get(k), int) and result[k] > 0 for k in ("batch", "threads"))
        and isinstance(medians, list)
        and all(isinstance(m, int | float) and 0 < m < 1e12 for m in medians)
    )
