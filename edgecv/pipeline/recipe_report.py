"""What a run of a recipe came to, for people: key figures of each stage, gates, and two files beside the models."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.files import write_bytes
from edgecv.text import megabytes

if TYPE_CHECKING:
    from edgecv.pipeline.recipe_gates import GateResult

JSON_FILE = "report.json"
TEXT_FILE = "report.md"

COLUMNS = ("stage", "key figures", "time", "")
GATE_COLUMNS = ("gate", "limit", "measured", "verdict")

Report = Mapping[str, Any]


def figures_of(stage: str, report: Report) -> str:
    """Return the figures of a stage that a reader wants first, as one line."""
    return FIGURES[stage](report)


def gate_sentence(gate: "GateResult") -> str:
    """Return one gate as a sentence without its full stop."""
    return f"gate {gate.gate} {gate.limit:g}: {gate.verdict}, {gate.reason}"


def stage_rows(stages: Sequence[Report]) -> list[list[str]]:
    """Return the rows of the table of stages, for :data:`COLUMNS`."""
    return [[s["stage"], s["figures"], duration(s["seconds"]), s["state"]] for s in stages]


def gate_rows(gates: Sequence[Report]) -> list[list[str]]:
    """Return the rows of the table of gates, for :data:`GATE_COLUMNS`."""
    return [[g["gate"], f"{g['limit']:g}", g["reason"], g["verdict"]] for g in gates]


def warnings_of(reports: Mapping[str, Report]) -> list[str]:
    """Return what a stage made worse, from the reports of all stages."""
    found = []
    quantized = reports.get("quantize")
    if quantized and quantized["bytes_after"] >= quantized["bytes_before"]:
        found.append(
            "the quantized file is larger than the float one: so small a network is mostly its manifest and graph"
        )
    speedup = reports["bench"]["results"][-1]["speedup"] if "bench" in reports else None
    if speedup and speedup["high"] < 1:
        found.append(
            f"the quantized model is slower here ({speedup['estimate']:.2f}x): keep the float one for this machine, or "
            "see where it loses time: edgecv bench FLOAT INT8 --profile"
        )
    return found


def write_reports(folder: Path, report: Report) -> None:
    """Write the report as JSON and as Markdown."""
    write_bytes(folder / JSON_FILE, json.dumps(report, indent=2, default=str).encode() + b"\n")
    write_bytes(folder / TEXT_FILE, _markdown(report).encode(errors="backslashreplace"))


def duration(seconds: float) -> str:
    """Return a time for a person.

    >>> duration(7.25), duration(75), duration(4000)
    ('7.2 s', '1 min 15 s', '1 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _markdown(report: Report) -> str:
    lines = [f"# {report['title'] or report['recipe']}", ""]
    lines += _table(COLUMNS, stage_rows(report["stages"]))
    if report["gates"]:
        lines += _table(GATE_COLUMNS, gate_rows(report["gates"]))
    lines += [f"Note: {note}.\n" for note in report["notes"]]
    files = [f"- `{s['artifact']}`" for s in report["stages"] if s.get("artifact")]
    host = report["host"]
    lines += [f"Verdict: **{report['verdict']}**.", "", *files, "", f"Machine: {host.get('cpu', '')}.", ""]
    lines += [f"The reports of all stages are in `{JSON_FILE}`, training curves in `stages/`.", ""]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in cells),
        "",
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _train(report: Report) -> str:
    epochs = f"epoch {report['best_epoch']} of {report['epochs']}"
    return f"top-1 {_share(report['top1'])} (n {report['n']}), {epochs}, {report['images_per_second']:.0f} images/s"


def _cut(report: Report) -> str:
    before, after = report["before"], report["after"]
    text = f"MACs {before['macs'] / 1e6:.3g} → {after['macs'] / 1e6:.3g} M ({after['macs'] / before['macs']:.2f})"
    if after["top1"] is not None:
        text += f", top-1 {_share(before['top1'])} → {_share(after['top1'])}"
    if report.get("latency"):
        text += f", time {report['latency']['ratio']['estimate']:.2f}"
    return text


def _export(report: Report) -> str:
    same = min(c["top1_agreement"] for c in report["checks"])
    worst = max(c["max_abs_diff"] for c in report["checks"])
    return f"{megabytes(report['model_bytes'])}, decides as {report['against']} on {same:.0%}, difference {worst:.1g}"


def _quantize(report: Report) -> str:
    text = f"{megabytes(report['bytes_before'])} → {megabytes(report['bytes_after'])}"
    parity = report["parity"]
    return text if parity is None else f"{text}, same decision on {_share(parity['agreement'])} of {parity['n']}"


def _verify(report: Report) -> str:
    if report["drop_points"] is None:
        return f"same decision on {_share(report['agreement'])} of {report['n']}"
    low, high = report["drop_interval"]
    drop = f"drop {report['drop_points']:+.2f} points [{low:+.2f}, {high:+.2f}]"
    return f"{report['verdict'].upper()}: {drop}, top-1 {_share(report['top1']['candidate'])} of {report['n']}"


def _eval(report: Report) -> str:
    return f"top-1 {_share(report['top']['1']['accuracy'])} of {report['n']}"


def _bench(report: Report) -> str:
    times = " / ".join(f"{r['latency_p50_ms']:.3g} ms" for r in report["results"])
    speedup = report["results"][-1]["speedup"]
    if not speedup:
        return times
    return f"{times}, {speedup['estimate']:.2f}x [{speedup['low']:.2f}, {speedup['high']:.2f}] as fast"


FIGURES: dict[str, Callable[[Report], str]] = {
    "train": _train,
    "distill": _train,
    "prune": _cut,
    "factorize": _cut,
    "export": _export,
    "quantize": _quantize,
    "verify": _verify,
    "eval": _eval,
    "bench": _bench,
}
"""Stage -> its figures; every stage of a recipe has an entry."""
