"""``edgecv export``."""

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.options import Debug, Force, Json, Output, Quiet, Seed, Trust, named_path
from edgecv.cli.output import emit, progress_bar


def export(
    model: Annotated[
        str,
        typer.Argument(help="Network name (edgecv models), torchvision:NAME, a checkpoint, or an .onnx to adopt."),
    ],
    weights: Annotated[Path | None, typer.Option("--weights", help="State dict, .safetensors or .pth.")] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Seeded random weights.")] = False,
    arch: Annotated[str, typer.Option("--arch", help="Network of a checkpoint given as MODEL.")] = "",
    output: Output = None,
    data: Annotated[
        Path | None, typer.Option("--data", parser=named_path, metavar="PATH", help="Images to check the export on.")
    ] = None,
    input_kind: Annotated[str, typer.Option("--input", help="uint8 (N,H,W,3), or float (N,3,H,W).")] = "uint8",
    softmax: Annotated[bool, typer.Option("--softmax", help="Put probabilities in.")] = False,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Accept any height and width.")] = False,
    opset: Annotated[int | None, typer.Option("--opset", min=13, max=23, help="ONNX opset; default 18.")] = None,
    device: Annotated[str, typer.Option("--device", help="Device profile that limits opset and IR version.")] = "",
    labels: Annotated[Path | None, typer.Option("--labels", help="Class names, one a line.")] = None,
    mean: Annotated[str, typer.Option("--mean", help="Adopting: mean of 0..1 pixels, e.g. 0.485,0.456,0.406.")] = "",
    std: Annotated[str, typer.Option("--std", help="Adopting: standard deviation, as --mean.")] = "",
    input_size: Annotated[str, typer.Option("--input-size", help="Adopting: HEIGHT,WIDTH in pixels.")] = "",
    interpolation: Annotated[str, typer.Option("--interpolation", help="Adopting: resize filter.")] = "bicubic",
    crop_pct: Annotated[float, typer.Option("--crop-pct", help="Adopting: share kept by the crop.")] = 0.875,
    force: Force = False,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Export a network to ONNX, checked against PyTorch on real images; or adopt a foreign .onnx."""
    from edgecv.pipeline import ExportRequest, export_model

    request = ExportRequest(
        model=model,
        weights=weights,
        random_init=random_init,
        arch=arch,
        output=output,
        data=data,
        input_kind=input_kind,
        softmax=softmax,
        dynamic_size=dynamic_size,
        opset=opset,
        device=device,
        labels=labels,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        input_size=_size(input_size),
        interpolation=interpolation,
        crop_pct=crop_pct,
        force=force,
        seed=seed,
    )
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        result = export_model(request, progress)
    checks = result["checks"]
    rows = [
        [f"{c['batch']}", f"{c['size'][0]}x{c['size'][1]}", f"{c['n']}", f"{c['top1_agreement']:.1%}",
         f"{c['max_abs_diff']:.2g}"]
        for c in checks
    ]  # fmt: skip
    worst = min(c["top1_agreement"] for c in checks)
    emit(
        result,
        as_json=as_json,
        quiet=quiet,
        tables=[
            (
                f"{result['against']} against the .onnx in ONNX Runtime",
                ["batch", "size", "images", "same top-1", "max |diff|"],
                rows,
            )
        ],
        notes=result["notes"],
        verdict=f"verified: same top-1 on {worst:.1%} of {checks[0]['n']} images, largest difference "
        f"{max(c['max_abs_diff'] for c in checks):.2g}",
        artifact=Path(result["artifact"]),
        next_command="edgecv bench" if result.get("quantized") else "edgecv quantize --int8 --data DIR",
    )


def _numbers(text: str, option: str) -> tuple[float, float, float] | None:
    from edgecv.errors import UsageError

    if not text:
        return None
    try:
        values = tuple(float(x) for x in text.split(","))
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a list of numbers such as 0.485,0.456,0.406.") from None
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UsageError(f"{option} '{text}' has {len(values)} numbers; give one, or one a channel (3).")
    return values[0], values[1], values[2]


def _size(text: str) -> tuple[int, int] | None:
    from edgecv.errors import UsageError

    if not text:
        return None
    parts = text.replace("x", ",").split(",")
    if not all(p.strip().isascii() and p.strip().isdigit() for p in parts) or len(parts) not in (1, 2):
        raise UsageError(f"--input-size '{text}' is not HEIGHT,WIDTH in pixels such as 224,224.")
    return int(parts[0]), int(parts[-1])
