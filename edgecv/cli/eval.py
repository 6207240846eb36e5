"""``edgecv eval``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import BatchSize, DataDir, Debug, Json, Provider, Quiet, Seed, Threads, Trust
from edgecv.cli.output import emit, progress_bar

if TYPE_CHECKING:
    from edgecv.evaluate.accuracy import AccuracyReport


def evaluate(
    data: DataDir,
    models: Annotated[list[Path] | None, typer.Argument(help="ONNX files; the current model when none.")] = None,
    tta: Annotated[str, typer.Option("--tta", help="Average views of each image: flip, or fivecrop.")] = "none",
    per_class: Annotated[bool, typer.Option("--per-class", help="Show every class.")] = False,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="Judge on calibration images too.")] = False,
    provider: Provider = "cpu",
    threads: Threads = "auto",
    batch: BatchSize = 8,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Images to use, evenly spaced.")] = None,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Measure accuracy on labelled images, with the interval their number allows."""
    from edgecv.evaluate.accuracy import evaluate_models
    from edgecv.workspace import current_model

    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        reports = evaluate_models(
            models or [current_model()],
            data,
            tta=tta,
            provider=provider,
            threads=threads,
            batch_size=batch,
            limit=limit,
            allow_leak=allow_leak,
            seed=seed,
            progress=progress,
        )
    tables = [_summary(reports)]
    if per_class:
        tables += [
            (report.file, ("class, worst first", "images", "right", "95 %"), _classes(report)) for report in reports
        ]
    best = max(reports, key=lambda r: float(r.top["1"]["accuracy"]))
    low, high = best.top["1"]["interval"]
    emit(
        {"models": [report.as_json() for report in reports], "n": best.n, "host": best.host},
        as_json=as_json,
        quiet=quiet,
        tables=tables,
        notes=_notes(reports),
        verdict=f"{best.file}: top-1 {best.top['1']['accuracy']:.2%} ({low:.2%} to {high:.2%}) on {best.n} images",
        next_command=_next(reports, data),
    )


def _summary(reports: list["AccuracyReport"]) -> tuple[str, tuple[str, ...], list[list[str]]]:
    ranks = sorted({k for report in reports for k in report.top}, key=int)
    rows = []
    for report in reports:
        cells = [report.top.get(k) for k in ranks]
        shown = [f"{c['accuracy']:.2%} ({c['interval'][0]:.1%} to {c['interval'][1]:.1%})" if c else "" for c in cells]
        rows.append([report.file, *shown, f"{report.expected_calibration_error:.3f}"])
    columns = ("model", *(f"top-{k} (95 %)" for k in ranks), "calibration error")
    views = "" if reports[0].tta == "none" else f", {reports[0].tta} averaged"
    return f"{reports[0].n} images{views}", columns, rows


def _classes(report: "AccuracyReport") -> list[list[str]]:
    return [
        [
            row["label"],
            f"{row['n']}",
            f"{row['correct']} ({row['accuracy']:.0%})",
            f"{row['interval'][0]:.0%} to {row['interval'][1]:.0%}",
        ]
        for row in report.per_class
    ]


def _notes(reports: list["AccuracyReport"]) -> list[str]:
    notes = []
    for report in reports:
        if report.leak:
            notes.append(
                f"LEAK: {report.leak['count']} of {report.n} images were used to calibrate {report.file} "
                f"(first: {report.leak['first']}); its figures are flattered"
            )
        if report.not_finite:
            notes.append(f"{report.file}: NaN or infinite outputs on {report.not_finite} images, counted as wrong")
        notes += [f"note: {note}" for note in report.notes]
    if reports[0].partial:
        notes.append("some classes of the model have no image here; decisions are among all classes nevertheless")
    return notes


def _next(reports: list["AccuracyReport"], data: Path) -> str:
    if len(reports) == 2:
        return f"edgecv verify {reports[0].file} {reports[1].file} --data {data}"
    return "edgecv bench"
