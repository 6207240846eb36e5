"""``edgecv quantize``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecv.cli.options import Debug, Force, Json, Output, Provider, Quiet, Seed, Threads, Trust, named_path
from edgecv.cli.output import emit, progress_bar
from edgecv.text import megabytes

COLUMNS = (
    "columns: dB is signal to noise of the network's answer (20 dB: an error of a tenth) with only these weights, this "
    "output, or this layer alone in int8; share is the part of all such errors; gain is the share of the whole error "
    "that goes when the layer stays float, and below zero it grows"
)

EXCLUDED = "excluded by the user"
"""Why a named layer stays float, as the quantizer says it."""


def quantize(
    model: Annotated[Path | None, typer.Argument(help="The .onnx; default the current one.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Static int8: weights and activations.")] = False,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="int8 weights, activations measured while running.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision: half the size.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16, where the provider has kernels for it.")] = False,
    weights_only: Annotated[
        int | None,
        typer.Option(
            "--weights-only",
            metavar="16|8|4",
            help="Bits of stored weights: size, not speed; 4 needs --data (which layers stand it), 16 and 8 nothing.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", parser=named_path, metavar="PATH", help="Images to calibrate on.")
    ] = None,
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="Calibrate on at most so many.")] = 512,
    ranges: Annotated[str, typer.Option("--ranges", help="Activation ranges: mse, percentile, minmax.")] = "mse",
    method: Annotated[
        str,
        typer.Option("--method", help="Rung to walk to: per-channel, ranges, equalize, bias, round, mixed, finetune."),
    ] = "auto",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-float",
            metavar="auto|N|NAME",
            help="Layers to leave float: found where they pay (auto), just N of them, or named (repeatable; a layer "
            "called 7 is name:7). auto and N first climb the whole ladder of --int8, which takes minutes; with "
            "--method RUNG they start from that rung.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Profile whose int8 to write (edgecv devices list); default: any CPU's."),
    ] = None,
    activations: Annotated[
        int,
        typer.Option("--activations", metavar="8|16", help="Bits of activations; 16 only where a provider has them."),
    ] = 8,
    int8_heads: Annotated[
        bool, typer.Option("--int8-heads", help="Also quantize a detector's head, which stays float otherwise.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Error, range and cost of every layer: table, HTML and PNG.")
    ] = False,
    output: Output = None,
    eval_data: Annotated[
        Path | None, typer.Option("--eval-data", parser=named_path, metavar="PATH", help="Labelled images to judge on.")
    ] = None,
    max_drop: Annotated[float | None, typer.Option("--max-drop", min=0, max=100, help="Gate: points of top-1.")] = None,
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Do not time both models.")] = False,
    provider: Provider = "cpu",
    threads: Threads = "auto",
    force: Force = False,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Quantize a model, then say what it cost: size, agreement, verdict, time."""
    from edgecv.errors import GateFailedError, UsageError
    from edgecv.pipeline import QuantizeRequest, quantize_model

    if weights_only not in (None, 16, 8, 4):
        raise UsageError(f"--weights-only takes 16, 8 or 4 bits, not {weights_only}.")
    modes = {"int8": int8, "dynamic": dynamic, "fp16": fp16, "bf16": bf16, f"weights{weights_only}": weights_only}
    chosen = [mode for mode, wanted in modes.items() if wanted]
    if len(chosen) != 1:
        raise UsageError("say which one: --int8, --dynamic, --fp16, --bf16 or --weights-only 16|8|4.")
    request = QuantizeRequest(
        model=model,
        mode=chosen[0],
        data=data,
        images=images,
        ranges=ranges,
        method=method,
        device=device,
        activations=activations,
        int8_heads=int8_heads,
        explain=explain,
        keep_float=tuple(keep_float or ()),
        output=output,
        eval_data=eval_data,
        max_drop=max_drop,
        bench=not no_bench,
        provider=provider,
        threads=threads,
        force=force,
        seed=seed,
    )
    try:
        with progress_bar(as_json=as_json, quiet=quiet) as progress:
            result = quantize_model(request, progress)
    except GateFailedError as failed:
        if failed.report is not None:
            _show(failed.report, as_json, quiet)
        raise
    _show(result, as_json, quiet)
    parity = result["parity"]
    if max_drop is not None and parity and parity["verdict"] == "undecided":
        raise typer.Exit(4)


def _show(result: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    trusted = result["verdict"] == "pass"
    tables, notes = explanation_table(result["explanation"])
    emit(
        result,
        as_json=as_json,
        quiet=quiet,
        tables=tables,
        notes=[f"model: {result['source']}", *quantize_notes(result), *notes],
        verdict=quantize_verdict(result),
        artifact=Path(result["artifact"]) if result["artifact"] else None,
        next_command="edgecv predict IMAGE" if trusted else "edgecv verify --data DIR --max-drop 1",
    )


def explanation_table(
    data: Mapping[str, Any] | None,
) -> tuple[list[tuple[str, Sequence[str], list[list[str]]]], list[str]]:
    """Return the table of the worst layers, and a line with what it means and where all of them are."""
    if data is None:
        return [], []
    from edgecv.pipeline.explain import Explanation
    from edgecv.pipeline.explain_page import summary, worst_table

    explanation = Explanation.from_dict(data)
    files = f"; all {len(explanation.rows)} layers: {' and '.join(data['files'])}" if data["files"] else ""
    return [worst_table(explanation)], [COLUMNS, f"explained: {summary(explanation)}{files}"]


def quantize_notes(result: Mapping[str, Any]) -> list[str]:
    """Return size, int8 coverage, agreement and time of a quantize report as lines."""
    before, after = result["bytes_before"], result["bytes_after"]
    notes = [f"size: {megabytes(before)} -> {megabytes(after)} ({before / after:.1f}x smaller)"]
    summary = result["quantization"]
    if coverage := summary.get("coverage"):
        convs, products = (
            (coverage[f"{k}_int8"], coverage[f"{k}_int8"] + coverage[f"{k}_float"]) for k in ("conv", "matmul")
        )
        notes.append(
            f"int8 in ONNX Runtime: {convs[0]} of {convs[1]} convolutions, "
            f"{products[0]} of {products[1]} matrix products"
        )
    notes += ladder_notes(summary)
    if rewrites := summary.get("rewrites"):
        fast = [r for r in rewrites if r["name"] != "order_channels"]  # which is for the same bits everywhere
        kept, undone = ([r["name"] for r in fast if r["kept"] is k] for k in (True, False))
        notes.append(f"for speed: {', '.join(kept) or 'nothing'}" + (f" (undone: {', '.join(undone)})" * bool(undone)))
    notes += [*summary.get("notes", []), *result["notes"]]
    if parity := result["parity"]:
        notes += parity["notes"]
        where = "" if parity["judged"] else " (the calibration images: a smoke test, not a verdict)"
        notes.append(f"agreement: {parity['agreement']:.2%} of {parity['n']} images{where}")
        if parity["verdict"] == "undecided":
            notes.append(f"undecided: {parity['reason']}")
    if latency := result["latency"]:
        notes.append(f"time: {latency['verdict']}")
    return notes


def ladder_notes(summary: Mapping[str, Any]) -> list[str]:
    """Return a line for each rung that was tried, and one for the layers kept float."""
    notes = []
    for step in summary.get("ladder", ()):
        name = f"rung {step['rung']}:"
        if step["sqnr_db"] is None:
            notes.append(f"{name} nothing gained")
            continue
        gain = "" if step["gain_db"] is None else f" ({step['gain_db']:+.2f}{'' if step['kept'] else ', not kept'})"
        same = "" if step["agreement"] is None else f", agreement {step['agreement']:.1%}"
        gate = f", gate: {step['verdict']}" if step["verdict"] else ""
        notes.append(f"{name} {step['sqnr_db']:.2f} dB{gain}{same}{gate}, {step['seconds']:.0f} s")
    if notes:
        held_out = summary["settings"]["held_out"]
        notes[-1] += f" (on {held_out} images that measure only)" if held_out else " (on the images that calibrate)"
    if named := [layer for layer, why in summary.get("kept_float", {}).items() if why == EXCLUDED]:
        notes.append(f"kept float as asked: {', '.join(named)}")
    if (mixed := summary.get("mixed")) and mixed["kept"]:
        layers = ", ".join(layer for move in mixed["kept"] for layer in move["layers"])
        notes.append(f"kept float: {layers}" + _slower(mixed["slowdown"]))
    return notes


def _slower(slowdown: list[float] | None) -> str:
    if slowdown is None:
        return ""
    time, low, high = (f"{ratio - 1:+.1%}" for ratio in slowdown)
    return f"; {time} time (95 % interval {low} to {high})"


def quantize_verdict(result: Mapping[str, Any]) -> str:
    """Return the one line that says whether to trust the quantized model, and whether it is worth having here."""
    return "; ".join(filter(None, (_parity_verdict(result), _slower_verdict(result))))


def _slower_verdict(result: Mapping[str, Any]) -> str:
    """Return the advice to keep the float model, with the operators that lose the time; empty when it is not slower."""
    latency = result["latency"]
    if not latency or not latency["slower"]:
        return ""
    from edgecv.benchmark.blame import describe_losses

    lost = describe_losses(latency["slower_in"])
    return str(latency["verdict"]) + (f"; time is lost in {lost}" if lost else "")


def _parity_verdict(result: Mapping[str, Any]) -> str:
    parity = result["parity"]
    if not parity or not parity["judged"]:
        return "not judged: add --eval-data DIR (labelled images, none of them used to calibrate)"
    text = str(parity["verdict"])
    if parity["drop_interval"] is not None:
        low, high = parity["drop_interval"]
        text += f": top-1 drop {parity['drop_points']:.2f} points [{low:.2f}, {high:.2f}], n = {parity['n']}"
    else:
        text += f": {parity['n']} images without labels show agreement only"
    if parity["verdict"] == "undecided" and parity["images_needed"]:
        text += f"; about {parity['images_needed']} images would decide"
    return text
