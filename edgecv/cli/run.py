"""``edgecv run``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.options import Debug, Json, Quiet, named_path
from edgecv.cli.output import emit, progress_bar, say


def run_recipe(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a path to a .toml.")],
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH", help="Images to train on, in place of the recipe's.")
    ] = None,
    calib: Annotated[
        Path | None, typer.Option("--calib", parser=named_path, metavar="PATH", help="Images to calibrate on.")
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", "--eval-data", parser=named_path, metavar="PATH", help="Labelled images to judge on."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key: train.epochs=3 (repeatable)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is finished and what would run.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; default runs/NAME.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again what is finished; replace other files.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the whole chain as a recipe says; what is finished is not run again."""
    from edgecv.config.recipe import load_recipe
    from edgecv.errors import GateFailedError
    from edgecv.pipeline.recipe import run_recipe as run
    from edgecv.pipeline.recipe_plan import plan_recipe

    named = {"data": data, "calib": calib, "eval_data": evaluation}
    loaded = load_recipe(recipe, tuple(changes or ()), {k: str(v) for k, v in named.items() if v is not None})
    folder = output or Path("runs") / loaded.name
    if dry_run:
        with progress_bar(as_json=as_json, quiet=quiet) as progress:
            plan = plan_recipe(loaded, folder, progress)
        _show_plan(plan, loaded.name, folder, as_json=as_json, quiet=quiet)
        return
    tell = _nothing if as_json or quiet else say
    try:
        with progress_bar(as_json=as_json, quiet=quiet) as progress:
            report = run(loaded, folder, force=force, progress=progress, tell=tell)
    except GateFailedError as failed:
        if failed.report is not None:
            show_run(failed.report, as_json=as_json, quiet=quiet)
        raise
    show_run(report, as_json=as_json, quiet=quiet)
    if report["verdict"] == "undecided":
        raise typer.Exit(4)


def show_run(report: Mapping[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print a run's tables, verdict, last model and what to type next."""
    from edgecv.pipeline.recipe_report import COLUMNS, GATE_COLUMNS, gate_rows, stage_rows

    artifact = report["artifact"]
    tables = [(report["title"], COLUMNS, stage_rows(report["stages"]))]
    if report["gates"]:
        tables.append(("", GATE_COLUMNS, gate_rows(report["gates"])))
    exported = bool(artifact) and artifact.endswith(".onnx")
    emit(
        report,
        as_json=as_json,
        quiet=quiet,
        tables=tables,
        notes=[*report["notes"], f"report: {Path(report['folder']) / 'report.md'}"],
        verdict=_verdict(report),
        artifact=Path(artifact) if artifact else None,
        next_command=f"edgecv predict --model {artifact} IMAGE" if exported else f"edgecv export {artifact}",
    )


def _verdict(report: Mapping[str, Any]) -> str:
    gates = [g for g in report["gates"] if g["verdict"] == report["verdict"]]
    if report["verdict"] == "no gates":
        return "finished; the recipe has no gates"
    why = "; ".join(f"{g['gate']} {g['limit']:g}: {g['reason']}" for g in gates)
    return f"{report['verdict'].upper()}" + (f": {why}" if why else "")


def _show_plan(plan: list[dict[str, Any]], name: str, folder: Path, *, as_json: bool, quiet: bool) -> None:
    rows = [[row["stage"], row["state"], (row["key"] or "-")[:12], _inputs(row["inputs"])] for row in plan]
    todo = [row["stage"] for row in plan if row["state"] != "finished"]
    emit(
        {"recipe": name, "folder": str(folder), "stages": plan},
        as_json=as_json,
        quiet=quiet,
        tables=[(f"{name}, into {folder}", ("stage", "", "key", "inputs"), rows)],
        verdict=f"{len(todo)} of {len(plan)} stages would run" + (f": {', '.join(todo)}" if todo else ""),
    )


def _inputs(inputs: Mapping[str, str]) -> str:
    return ", ".join(f"{role} {_short(value)}" for role, value in inputs.items() if value)


def _short(value: str) -> str:
    """Return the beginning of each hash in a text."""
    words = value.split()
    return " ".join(w[:12] if len(w) == 64 and set(w) <= set("0123456789abcdef") else w for w in words)


def _nothing(line: str) -> None:
    """Say nothing."""
