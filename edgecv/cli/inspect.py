"""``edgecv inspect``: what is in a model file, what it costs, where it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import BatchSize, Debug, Force, Json, Provider, Quiet, Seed, Threads, Trust
from edgecv.cli.output import emit, progress_bar
from edgecv.text import megabytes

if TYPE_CHECKING:
    from edgecv.pipeline.inspection import Inspection
    from edgecv.pipeline.roofline import Roofline


def inspect(
    model: Annotated[Path | None, typer.Argument(help="The .onnx; default the current one.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Every layer, in the order of the graph.")] = False,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="Time against the machine's measured peak, layer by layer.")
    ] = False,
    saturation: Annotated[
        bool, typer.Option("--saturation", help="Layers whose int8 sums can clip on x86 without VNNI.")
    ] = False,
    provider: Provider = "cpu",
    batch: BatchSize = 1,
    threads: Threads = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A picture as well: FILE.png.")] = None,
    force: Force = False,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Show layers, costs, memory, receptive field, operators and their provider, what is not portable."""
    from edgecv import workspace
    from edgecv.cli.inspect_tables import cost_notes, roofline_notes
    from edgecv.pipeline.inspection import inspect_model

    path = model or workspace.current_model()
    if output is not None:
        _check_picture(output, path, force=force)
    found = inspect_model(path, saturation=saturation, provider=provider, batch=batch, seed=seed)
    roof = None
    if roofline:
        from edgecv.pipeline.roofline import measure_roofline

        with progress_bar(as_json=as_json, quiet=quiet) as progress:
            roof = measure_roofline(path, provider=provider, threads=threads, batch=batch, seed=seed, progress=progress)
    if output is not None:
        _write_picture(found, output)
    emit(
        _result(found, roof),
        as_json=as_json,
        quiet=quiet,
        tables=_tables(found, roof, every=layers),
        notes=[*_notes(found), *cost_notes(found), *(roofline_notes(roof) if roof else [])],
        verdict=_verdict(found, roof),
        artifact=output,
        next_command=_next(found),
    )


def _check_picture(output: Path, model: Path, *, force: bool) -> None:
    from edgecv.errors import UsageError
    from edgecv.files import check_output
    from edgecv.pipeline.export import require_extra

    if output.suffix.lower() != ".png":
        raise UsageError(f"-o '{output}' is not a .png; inspect writes a picture, and --json prints the figures.")
    require_extra("plot", "matplotlib")
    check_output(output, force=force, inputs=(model,))


def _write_picture(found: "Inspection", output: Path) -> None:
    from edgecv.files import write_bytes
    from edgecv.pipeline.inspection_chart import draw_summary

    write_bytes(output, draw_summary(found.summary, Path(found.model).name))


def _result(found: "Inspection", roof: "Roofline | None") -> dict[str, object]:
    from dataclasses import asdict

    result = {"verdict": _verdict(found, roof), **found.as_json()}
    return result if roof is None else {**result, "roofline": asdict(roof)}


def _tables(
    found: "Inspection", roof: "Roofline | None", *, every: bool
) -> list[tuple[str, list[str], list[list[str]]]]:
    from edgecv.cli.inspect_tables import layer_table, operator_table, roofline_table, weight_table

    if roof is not None:
        return [roofline_table(roof)]
    if found.saturation is not None:
        return _saturation_tables(found)
    if every:
        return [layer_table(found, every=True)]
    return [operator_table(found), weight_table(found), layer_table(found, every=False)]


def _saturation_tables(found: "Inspection") -> list[tuple[str, list[str], list[list[str]]]]:
    assert found.saturation is not None
    rows = sorted(found.saturation["by_layer"], key=lambda row: -row["worst_sum"])
    shown = [row for row in rows if row["pairs_at_risk"]] or rows[:1]
    return [
        (
            f"sums of two products, limit {found.saturation['limit']}",
            ["layer", "worst sum", "highest input", "pairs at risk", "of", "channels at risk", "of"],
            [
                [str(row[key]) for key in ("layer", "worst_sum", "highest_code", "pairs_at_risk", "pairs",
                                           "channels_at_risk", "channels")]
                for row in shown
            ],
        )
    ]  # fmt: skip


def _notes(found: "Inspection") -> list[str]:
    tensors = [f"input {n} {d}" for n, d in found.inputs.items()]
    tensors += [f"output {n} {d}" for n, d in found.outputs.items()]
    stages = "no manifest" if found.stages is None else f"made by {' → '.join(found.stages) or 'no stage'}"
    lines = [
        f"{found.model}: {megabytes(found.bytes)}, opset {found.opset}, IR {found.ir_version}, {stages}",
        "; ".join(tensors),
    ]
    return [*lines, *([found.saturation_line] if found.saturation_line else [])]


def _verdict(found: "Inspection", roof: "Roofline | None" = None) -> str:
    if roof is not None and roof.rows:
        first = roof.rows[0]
        return (
            f"attack first: {first.layer or first.name} ({first.operator}), {first.latency_ms:.3f} ms at "
            f"{100 * first.reached:.0f} % of its roof, {first.gain_ms:.3f} of {roof.kernel_ms:.2f} ms to win"
        )
    if found.saturation is not None:
        at_risk = found.saturation["layers_at_risk"]
        return f"{at_risk} layers can saturate on x86 without VNNI" if at_risk else "no layer can saturate"
    c = found.coverage
    convs, products = c["conv_int8"] + c["conv_float"], c["matmul_int8"] + c["matmul_float"]
    return (
        f"in int8 on ONNX Runtime's CPU provider: {c['conv_int8']} of {convs} convolutions, "
        f"{c['matmul_int8']} of {products} matrix products, {c['other_int8']} other operators"
    )


def _next(found: "Inspection") -> str:
    if found.saturation is not None and found.saturation["layers_at_risk"]:
        return f"edgecv verify {found.model} --data DIR --device qemu-x86:Haswell"
    return "edgecv quantize --int8 --data DIR" if not found.coverage["conv_int8"] else "edgecv verify --data DIR"
