"""A report as rows and lines of text; the command line prints them."""

from collections.abc import Sequence
from pathlib import Path

from edgecv.benchmark.noise import Noise
from edgecv.benchmark.profile import Slice
from edgecv.benchmark.report import BenchReport, Result, short_names
from edgecv.benchmark.results import needed_for
from edgecv.benchmark.statistics import Interval

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, column names, rows

TOP = 10
"""Rows of a profile shown; the JSON has them all."""


def result_tables(report: BenchReport) -> list[Table]:
    """Return latency, then cold start and size; one row per result in each."""
    columns = ("model", "provider", "batch", "threads", "p50 ms", "p90 ms", "images/s", "ratio")
    costs = ("model", "load ms", "first run ms", "cold start ms", "peak RSS MiB", "CPU ms a run", "size MB")
    names = short_names(report.results)
    return [
        ("", columns, [_row(r) for r in report.results]),
        ("", costs, [(n, *_costs(r)) for n, r in zip(names, report.results, strict=True)]),
    ]


def profile_tables(report: BenchReport) -> list[Table]:
    """Return, for each profiled result, its time by operator, by layer and by provider."""
    tables: list[Table] = []
    for name, result in zip(short_names(report.results), report.results, strict=True):
        if result.profile is None:
            continue
        p = result.profile
        title = f"{name}: {p.kernel_ms_per_run:.3g} ms in kernels a run, over {p.runs} runs"
        tables.append(_slices(f"{title}, by operator", "operator", p.by_operator))
        tables.append(_slices(f"{name}, slowest layers of {len(p.by_layer)}", "layer", p.by_layer))
        tables.append(_slices(f"{name}, by provider", "provider", p.by_provider))
    return tables


def result_notes(report: BenchReport) -> list[str]:
    """Return what the table does not say: comparisons, instability, missing percentiles, end to end, copies."""
    notes = list(report.verdicts) if len(report.verdicts) > 1 else []
    for name, r in zip(short_names(report.results), report.results, strict=True):
        notes += [f"{name}: {note}" for note in _notes(r)]
    return notes


def noise_notes(report: BenchReport) -> list[str]:
    """Return one line on how it was measured and one on what else the machine did."""
    p, results = report.preset, report.results
    runs = [r.n for r in results]
    span = f"{min(runs)}" if min(runs) == max(runs) else f"{min(runs)}–{max(runs)}"
    turns = f"{results[0].rounds} {'interleaved ' if len(results) > 1 else ''}turns each"
    how = f"measured: preset {p.name}, {span} runs in {turns}, inputs: {results[0].inputs}"
    return [f"{how}, seed {report.seed}", f"machine: {report.host['cpu']}, {_noise(report.noise)}"]


def _row(r: Result) -> tuple[str, ...]:
    low_high = r.latency_p50_interval_ms
    half = (low_high[1] - low_high[0]) / 2 if low_high else 0.0
    p90 = r.percentiles.get("latency_p90_ms")
    return (
        Path(r.model).name,
        ",".join(r.providers),
        str(r.batch),
        str(r.threads),
        f"{_ms(r.latency_p50_ms)} ±{_ms(half, like=r.latency_p50_ms)}" if low_high else _ms(r.latency_p50_ms),
        _ms(p90) if p90 else "–",
        f"{r.images_per_second:,.1f}" if r.images_per_second < 1000 else f"{r.images_per_second:,.0f}",
        _ratio(r.speedup),
    )


def _costs(r: Result) -> tuple[str, ...]:
    return (
        f"{r.load_ms:.0f}",
        _ms(r.first_run_ms),
        f"{r.cold_start_ms:.0f}",
        f"{r.peak_rss_mib:.0f}",
        _ms(1000 * r.cpu_seconds_per_run),
        f"{r.model_bytes / 1e6:.2f}",
    )


def _ratio(speedup: Interval | None) -> str:
    return "1" if speedup is None else f"{speedup.estimate:.2f} [{speedup.low:.2f}–{speedup.high:.2f}]"


def _ms(value: float, like: float | None = None) -> str:
    size = value if like is None else like
    digits = 1 if size >= 100 else 2 if size >= 1 else 4
    return f"{value:.{digits}f}"


def _notes(r: Result) -> list[str]:
    notes = [*r.notes]
    if not r.stable:
        notes.append(f"unstable: {'; '.join(r.unstable_reasons)}")
    elif not r.warm_up_steady:
        notes.append(f"latency was not steady after {r.warm_up_seconds:.1f} s of warm-up")
    if not r.finite_outputs:
        notes.append("its outputs hold NaN or Inf")
    if missing := needed_for(90, r.n):
        notes.append(missing)
    if len(r.node_share) > 1:
        notes.append("nodes: " + ", ".join(f"{share:.0%} on {name}" for name, share in r.node_share.items()))
    if r.profile and r.profile.copy_nodes:
        notes.append(f"{r.profile.copy_nodes} memory copy nodes, {_ms(r.profile.copy_ms_per_run)} ms a run")
    if e := r.end_to_end:
        notes.append(
            f"decode → label {_ms(e['total_p50_ms'])} ms ({e['images_per_second']:.1f} images/s, n = {e['n']}): "
            f"decode and preprocess {_ms(e['decode_p50_ms'])}, run {_ms(e['run_p50_ms'])}, "
            f"label {_ms(e['label_p50_ms'])} ms"
        )
    return notes


def _noise(noise: Noise) -> str:
    parts = []
    if noise.other_work_cores is not None:
        parts.append(f"other processes kept {noise.other_work_cores:.1f} cores busy")
    if noise.steal_share is not None:
        parts.append(f"{noise.steal_share:.1%} stolen by the host")
    if noise.load_average:
        parts.append(f"load {noise.load_average[0]:.1f} → {noise.load_average[1]:.1f}")
    if noise.clock_mhz:
        low, high = noise.clock_mhz
        parts.append(f"{high:.0f} MHz" if high == low else f"{low:.0f}–{high:.0f} MHz")
    if noise.temperature_c is not None:
        parts.append(f"up to {noise.temperature_c:.0f} °C")
    return ", ".join(parts) or "nothing to read about its load here"


def _slices(title: str, what: str, slices: Sequence[Slice]) -> Table:
    rows = [
        (s.name, *((s.operator, s.provider.removesuffix("ExecutionProvider")) if s.operator else (str(s.nodes),)),
         _ms(s.ms_per_run), f"{s.share:.1%}")
        for s in slices[:TOP]
    ]  # fmt: skip
    middle = ("operator", "provider") if what == "layer" else ("nodes",)
    return title, (what, *middle, "ms a run", "share"), rows
