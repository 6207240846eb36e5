"""``edgecv prune``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.before_after import COLUMNS, before_after_rows, megabytes_row
from edgecv.cli.options import Debug, Force, Json, Quiet, Seed, named_path
from edgecv.cli.output import emit, progress_bar, say
from edgecv.cli.settings_options import settings_options
from edgecv.config.pruning import PruneSettings
from edgecv.config.training import TrainSettings


@settings_options(settings=PruneSettings(), training=TrainSettings(epochs=10))
def prune(
    model: Annotated[str, typer.Argument(help="A checkpoint of edgecv, or a network by name (edgecv models).")],
    settings: PruneSettings,
    training: TrainSettings,
    data: Annotated[
        Path | None,
        typer.Option("--data", parser=named_path, metavar="PATH", help="Labelled images to heal on; else not healed."),
    ] = None,
    eval_data: Annotated[
        Path | None,
        typer.Option("--eval-data", parser=named_path, metavar="PATH", help="Images to judge on; else held out."),
    ] = None,
    hold_out: Annotated[float, typer.Option("--hold-out", help="Share of each class held out to judge on.")] = 0.1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; default runs/MODEL-pruned.")
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="State dict of a network given by name.")] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Seeded random weights.")] = False,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Do not export and time both networks.")] = False,
    bench_threads: Annotated[
        str, typer.Option("--bench-threads", help="ONNX Runtime's threads in measurements: a number, or auto.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a pruning in this folder stopped.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Make a network smaller: fewer channels and heads, or zero weights; healed by its unpruned self."""
    from edgecv.errors import GateFailedError
    from edgecv.pipeline.prune import PruneRequest, prune_model
    from edgecv.pipeline.train import say_nothing

    request = PruneRequest(
        model=model, settings=settings, training=training, data=data, eval_data=eval_data, hold_out=hold_out,
        output=output, weights=weights, random_init=random_init, bench=not no_bench, threads=bench_threads,
        resume=resume, force=force, seed=seed,
    )  # fmt: skip
    try:
        with progress_bar(as_json=as_json, quiet=quiet) as progress:
            report = prune_model(request, progress, say_nothing if as_json or quiet else say)
    except GateFailedError as failed:
        if failed.report is not None:
            _show(failed.report, as_json, quiet)
        raise
    _show(report, as_json, quiet)


def _show(report: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    emit(
        report,
        as_json=as_json,
        quiet=quiet,
        tables=[("", COLUMNS, _rows(report))],
        notes=_notes(report),
        verdict=_verdict(report),
        artifact=Path(report["artifact"]),
        next_command=f"edgecv export {report['artifact']}",
    )


def _rows(report: Mapping[str, Any]) -> list[list[str]]:
    rows = before_after_rows(report)
    if zeros := report["sparsity"]:
        names = [("zip", "zipped, MB"), ("zstd", "zstd, MB")]
        packed = zeros["compressed_before"], zeros["compressed_after"]
        rows += [megabytes_row(text, packed[0][key], packed[1][key]) for key, text in names if key in packed[0]]
    return rows


def _notes(report: Mapping[str, Any]) -> list[str]:
    notes = list(report["notes"])
    if left := report["left_alone"]:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        notes.append(f"left alone, their channels cannot be matched soundly: {', '.join(left[:3])}{more}")
    trials = report["trials"]
    return notes + [f"tried {t['macs']:.3f} of the MACs: {t['time']['estimate']:.3f} of the time" for t in trials]


def _verdict(report: Mapping[str, Any]) -> str:
    before, after, latency = report["before"], report["after"], report["latency"]
    if zeros := report["sparsity"]:
        packed = zeros["compressed_after"]["zip"] / zeros["compressed_before"]["zip"]
        parts = [f"{zeros['share']:.1%} of the weights are zero", "no faster in ONNX Runtime", f"zipped {packed:.1%}"]
    else:
        macs, params = (after[key] / before[key] for key in ("macs", "params"))
        parts = [f"{macs:.1%} of the MACs, {params:.1%} of the parameters"]
    if latency and not zeros:
        ratio = latency["ratio"]
        parts.append(
            f"{ratio['estimate']:.1%} of the time (95 % interval {ratio['low']:.1%} to {ratio['high']:.1%}, "
            f"{latency['provider']})" + (f", target {report['target']}" if report["target"] else "")
        )
    if before["top1"] is None:
        parts.append("not healed, accuracy not judged: add --data DIR")
    else:
        change = 100 * (after["top1"] - before["top1"])
        parts.append(f"held-out top-1 {before['top1']:.2%} -> {after['top1']:.2%} ({change:+.2f} points) after healing")
    return "; ".join(parts)
