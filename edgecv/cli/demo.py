"""``edgecv demo``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.options import Debug, Json, Quiet, Seed, named_path
from edgecv.cli.output import emit, progress_bar
from edgecv.cli.quantize import quantize_notes, quantize_verdict


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", parser=named_path, metavar="PATH", help="Your own images instead of the sample photographs."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for models and photographs.")] = Path(
        ".edgecv/demo"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """The whole chain on EfficientNet-Lite0 with its real weights; no downloads."""
    from edgecv.pipeline.demo import run_demo

    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        result = run_demo(output, data, seed=seed, progress=progress)
    exported, quantized = result["export"], result["quantize"]
    rows = [[Path(row["image"]).name, _shown(row["float"]), _shown(row["int8"])] for row in result["predictions"]]
    check = exported["checks"]
    notes = [
        f"export: {exported['exporter']}, {exported['model_bytes'] / 1e6:.1f} MB, same top-1 as PyTorch on "
        f"{min(c['top1_agreement'] for c in check):.0%} of {check[0]['n']} images, "
        f"largest difference {max(c['max_abs_diff'] for c in check):.2g}",
        *quantize_notes(quantized),
        *result["notes"],
    ]
    artifact = Path(quantized["artifact"])
    photograph = result["predictions"][0]["image"]
    emit(
        result,
        as_json=as_json,
        quiet=quiet,
        tables=[("", ["photograph", "float32", "int8"], rows)],
        notes=notes,
        verdict=quantize_verdict(quantized),
        artifact=artifact,
        next_command=f"edgecv predict --model {artifact} {photograph}",
    )


def _shown(prediction: dict[str, Any]) -> str:
    return f"{prediction['label'].split(',')[0]} {prediction['probability']:.1%}"
