"""``edgecv inspect``: what is in a model file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import Debug, Json, Quiet, Seed
from edgecv.cli.output import emit
from edgecv.text import megabytes

if TYPE_CHECKING:
    from edgecv.pipeline.inspection import Inspection

_SHOWN = 12


def inspect(
    model: Annotated[Path | None, typer.Argument(help="The .onnx; default the current one.")] = None,
    saturation: Annotated[
        bool, typer.Option("--saturation", help="Layers whose int8 sums can clip on x86 without VNNI.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Show operators, weights and how much of a model runs in int8."""
    from edgecv import workspace
    from edgecv.pipeline.inspection import inspect_model

    found = inspect_model(model or workspace.current_model(), saturation=saturation, seed=seed)
    emit(
        {"verdict": _verdict(found), **found.as_json()},
        as_json=as_json,
        quiet=quiet,
        tables=_saturation_tables(found) if saturation else _tables(found),
        notes=_notes(found),
        verdict=_verdict(found),
        next_command=_next(found),
    )


def _tables(found: "Inspection") -> list[tuple[str, list[str], list[list[str]]]]:
    operators = [[name, str(count)] for name, count in list(found.operators.items())[:_SHOWN]]
    if len(found.operators) > _SHOWN:
        operators.append([f"{len(found.operators) - _SHOWN} others", str(sum(list(found.operators.values())[_SHOWN:]))])
    weights = [
        [name, str(row["arrays"]), f"{row['elements']:,}", megabytes(row["bytes"])]
        for name, row in found.weights.items()
    ]
    return [
        ("", ["operator", "count"], operators),
        ("", ["weights", "arrays", "elements", "size"], weights),
    ]


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
    lines = [f"{found.model}: {megabytes(found.bytes)}, opset {found.opset}, {stages}", "; ".join(tensors)]
    return [*lines, *([found.saturation_line] if found.saturation_line else [])]


def _verdict(found: "Inspection") -> str:
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
