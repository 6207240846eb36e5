"""``edgecv demo``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.options import Debug, Json, Quiet, Seed, named_path
from edgecv.cli.output import emit, progress_bar, say
from edgecv.cli.quantize import quantize_notes, quantize_verdict
from edgecv.cli.run import show_run


def demo(
    part: Annotated[
        str | None, typer.Argument(metavar="[digits|photographs]", help="One of the two; default both.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            parser=named_path,
            metavar="PATH",
            help="Your own images instead of the sample photographs; leaves the digits out.",
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
    """The whole chain with no downloads: handwritten digits from training to int8, then real weights on photographs."""
    from edgecv.pipeline.demo import run_digits, run_photographs

    parts = _parts(part, data)
    result: dict[str, Any] = {}
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        if "digits" in parts:
            tell = _nothing if as_json or quiet else say
            result["digits"] = run_digits(output, seed=seed, progress=progress, tell=tell)
    if "digits" in parts and not as_json:
        show_run(result["digits"], as_json=False, quiet=quiet)
    if "photographs" in parts:
        with progress_bar(as_json=as_json, quiet=quiet) as progress:
            result["photographs"] = run_photographs(output, data, seed=seed, progress=progress)
    if as_json:
        emit(result, as_json=True)
    elif "photographs" in parts:
        _show_photographs(result["photographs"], quiet=quiet)


def _parts(part: str | None, data: Path | None) -> tuple[str, ...]:
    from edgecv.errors import UsageError, nearest
    from edgecv.pipeline.demo import PARTS

    if part is not None and part not in PARTS:
        raise UsageError(f"the demo has no part '{part}'; it has {' and '.join(PARTS)}.{nearest(part, PARTS)}")
    if part == "digits" and data is not None:
        raise UsageError("--data is for the photographs; the digits come with scikit-learn. Leave one of them out.")
    if data is not None:
        return ("photographs",)
    return PARTS if part is None else (part,)


def _show_photographs(result: Mapping[str, Any], *, quiet: bool) -> None:
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
        as_json=False,
        quiet=quiet,
        tables=[("EfficientNet-Lite0 with its real ImageNet weights", ["photograph", "float32", "int8"], rows)],
        notes=notes,
        verdict=quantize_verdict(quantized),
        artifact=artifact,
        next_command=f"edgecv predict --model {artifact} {photograph}",
    )


def _shown(prediction: dict[str, Any]) -> str:
    return f"{prediction['label'].split(',')[0]} {prediction['probability']:.1%}"


def _nothing(line: str) -> None:
    """Say nothing."""
