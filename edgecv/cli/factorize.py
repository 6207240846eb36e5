"""``edgecv factorize``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.before_after import COLUMNS, before_after_rows
from edgecv.cli.options import Debug, Force, Json, Quiet, Seed, named_path
from edgecv.cli.output import emit, progress_bar, say
from edgecv.cli.settings_options import settings_options
from edgecv.config.factorization import FactorizeSettings
from edgecv.config.training import TrainSettings

_SHOWN = 4
"""Layers left alone that are named; the rest is counted."""


@settings_options(settings=FactorizeSettings(), training=TrainSettings(epochs=10))
def factorize(
    model: Annotated[str, typer.Argument(help="A checkpoint of edgecv, or a network by name (edgecv models).")],
    settings: FactorizeSettings,
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
        Path | None, typer.Option("--output", "-o", help="Run folder; default runs/MODEL-factorized.")
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="State dict of a network given by name.")] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Seeded random weights.")] = False,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Do not export and time both networks.")] = False,
    bench_threads: Annotated[
        str, typer.Option("--bench-threads", help="Intra-op threads of what is timed: a number, or auto.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where healing in this folder stopped.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Replace layers by cheaper ones of low rank; healed by the unfactorized self."""
    from edgecv.pipeline.factorize import FactorizeRequest, factorize_model
    from edgecv.pipeline.train import say_nothing

    request = FactorizeRequest(
        model=model, settings=settings, training=training, data=data, eval_data=eval_data, hold_out=hold_out,
        output=output, weights=weights, random_init=random_init, bench=not no_bench, threads=bench_threads,
        resume=resume, force=force, seed=seed,
    )  # fmt: skip
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        report = factorize_model(request, progress, say_nothing if as_json or quiet else say)
    emit(
        report,
        as_json=as_json,
        quiet=quiet,
        tables=[
            ("", ["layer", "method", "rank", "energy", "MACs"], _layers(report)),
            ("", COLUMNS, before_after_rows(report)),
        ],
        notes=_notes(report),
        verdict=_verdict(report),
        artifact=Path(report["artifact"]),
        next_command=f"edgecv export {report['artifact']}",
    )


def _layers(report: Mapping[str, Any]) -> list[list[str]]:
    return [
        [r["layer"], r["method"], "x".join(map(str, r["rank"])), f"{r['energy']:.3f}",
         f"{r['macs_after'] / r['macs_before']:.2f}x"]
        for r in report["layers"]
    ]  # fmt: skip


def _notes(report: Mapping[str, Any]) -> list[str]:
    notes = list(report["notes"])
    reasons: dict[str, list[str]] = {}
    for name, why in report["left_alone"].items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        notes.append(f"left alone ({why}): {', '.join(names[:_SHOWN])}{more}")
    if report["settings"]["to"] and report["energy"] is not None:
        notes.append(f"{report['settings']['to']}: {report['energy']:.3f} of each kernel's energy is kept")
    return notes


def _verdict(report: Mapping[str, Any]) -> str:
    before, after, latency = report["before"], report["after"], report["latency"]
    macs, params = (after[key] / before[key] for key in ("macs", "params"))
    parts = [f"{macs:.1%} of the MACs, {params:.1%} of the parameters"]
    if latency:
        ratio = latency["ratio"]
        interval = f"(95 % interval {ratio['low']:.1%} to {ratio['high']:.1%}, {latency['provider']})"
        parts.append(f"{ratio['estimate']:.1%} of the time {interval}")
        if ratio["high"] >= 1:
            doubt = "slower here" if ratio["low"] > 1 else "not certainly faster here"
            parts.append(f"{doubt}, for all its fewer MACs: try --by latency, or keep the original")
    if before["top1"] is None:
        parts.append("not healed, accuracy not judged: add --data DIR")
    else:
        change = 100 * (after["top1"] - before["top1"])
        parts.append(
            f"held-out top-1 {before['top1']:.2%} -> {after['top1']:.2%} ({change:+.2f} points) after healing, "
            f"{report['unhealed_top1']:.2%} before it"
        )
    return "; ".join(parts)
