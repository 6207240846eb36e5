"""``edgecv run``."""

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.options import Debug, Force, Json, Quiet, named_path
from edgecv.cli.output import emit, progress_bar
from edgecv.cli.quantize import quantize_notes, quantize_verdict


def run_recipe(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a path to a .toml.")],
    calib: Annotated[
        Path | None, typer.Option("--calib", parser=named_path, metavar="PATH", help="Images to calibrate on.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", parser=named_path, metavar="PATH", help="Labelled images to judge on.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(),
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the whole chain as a recipe says: export, quantize, verify, bench."""
    from edgecv.config.recipe import load_recipe
    from edgecv.pipeline.recipe import run_recipe as run

    loaded = load_recipe(recipe)
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        result = run(loaded, output, calibration=calib, evaluation=evaluation, force=force, progress=progress)
    quantized = result["quantize"]
    final = quantized or result["export"]
    emit(
        result,
        as_json=as_json,
        quiet=quiet,
        notes=result["export"]["notes"] + (quantize_notes(quantized) if quantized else []),
        verdict=quantize_verdict(quantized) if quantized else "exported and verified against PyTorch",
        artifact=Path(final["artifact"]),
        next_command=f"edgecv predict --model {final['artifact']} IMAGE",
    )
    if loaded.verify and quantized["parity"]["verdict"] == "undecided":
        raise typer.Exit(4)
