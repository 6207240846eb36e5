"""``edgecv verify``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import BatchSize, DataDir, Debug, Json, Provider, Quiet, Seed, Threads, Trust
from edgecv.cli.output import emit, progress_bar

if TYPE_CHECKING:
    from edgecv.evaluate.layers import LayerReport
    from edgecv.evaluate.verdict import ParityReport
    from edgecv.pipeline.device_check import DeviceReport

EXIT_CODES = {"pass": 0, "fail": 1, "undecided": 4}
_SHOWN = 5


def verify(
    data: DataDir,
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="REF.onnx CAND.onnx; one: against its parent; none: the current model and its parent."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", min=0, max=100, help="Largest acceptable drop, in points; default 0.5."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Find the first layer that departs.")] = False,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="Judge on calibration images too.")] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Judge CAND there too: qemu-x86:Haswell, an emulated CPU without VNNI."),
    ] = None,
    provider: Provider = "cpu",
    threads: Threads = "auto",
    batch: BatchSize = 8,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Images to use, evenly spaced.")] = None,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Judge whether CAND may replace REF: exit 0 pass, 1 fail, 4 undecided."""
    from dataclasses import asdict

    from edgecv.data.folder import open_dataset
    from edgecv.evaluate.layers import check_tools, first_departing_layer
    from edgecv.evaluate.parent import choose_pair
    from edgecv.evaluate.parity import verify_models

    if layers:
        check_tools()
    if device is not None:
        from edgecv.pipeline.device_check import check_device, verify_on_device

        check_device(device)
    reference, candidate = choose_pair(models or [])
    found: LayerReport | None = None
    there: DeviceReport | None = None
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        report = verify_models(
            reference,
            candidate,
            data,
            max_drop=max_drop,
            provider=provider,
            threads=threads,
            batch_size=batch,
            limit=limit,
            allow_leak=allow_leak,
            seed=seed,
            progress=progress,
        )
        if layers:
            found = first_departing_layer(reference, candidate, open_dataset(data), threads=threads, progress=progress)
        if device is not None:
            there = verify_on_device(
                reference, candidate, data, device,
                max_drop=max_drop, threads=threads, batch_size=batch, limit=limit, seed=seed, progress=progress,
            )  # fmt: skip
    tables: list[tuple[str, Sequence[str], list[list[str]]]] = [("", ("on the same images", "result"), _rows(report))]
    if found:
        tables.append((f"tensors that lost most, {found.n} images", _LAYER_COLUMNS, _layer_rows(found)))
    if there:
        tables.append((f"{there.device}, {there.n} images", ("", "here", "there"), _device_rows(there)))
    emit(
        {
            **report.as_json(),
            "layers": asdict(found) if found else None,
            "device": there.as_json() if there else None,
        },
        as_json=as_json,
        quiet=quiet,
        tables=tables,
        notes=[*_notes(report), *(_layer_notes(found) if found else [])],
        verdict=f"{report.verdict.upper()}: {report.reason}" + (f"; {_device_verdict(there)}" if there else ""),
        next_command=_next(report, data),
    )
    raise typer.Exit(EXIT_CODES[_worse(report.verdict, there)])


_LAYER_COLUMNS = ("tensor", "computed by", "signal to noise", "lost here")


def _rows(r: "ParityReport") -> list[list[str]]:
    rows = [["images", f"{r.n}"]]
    if r.top1:
        rows += [
            ["top-1 of the reference", f"{r.top1['reference']:.2%} (by chance {r.chance:.2%})"],
            ["top-1 of the candidate", f"{r.top1['candidate']:.2%}"],
        ]
    low, high = r.agreement_interval
    rows.append(["same decision", f"{r.agreement:.2%} ({low:.2%} to {high:.2%})"])
    if r.drop_points is not None and r.drop_interval:
        rows += [
            ["right → wrong, wrong → right", f"{r.harmful}, {r.helpful} (of {r.changed} changed)"],
            ["drop", f"{r.drop_points:+.2f} points ({r.drop_interval[0]:+.2f} to {r.drop_interval[1]:+.2f})"],
            ["interval, McNemar p", f"95 % {r.interval_method}, p = {r.mcnemar_p:.2g}"],
        ]
    if r.worst_class:
        worst = r.worst_class
        rows.append(["worst class", f"{worst['label']}: {worst['harmful']} of {worst['n']} lost"])
    if r.kl_mean is None or r.max_abs_diff is None:
        return [*rows, ["outputs", "not finite on any image"]]
    return [
        *rows,
        ["mean KL of probabilities", f"{r.kl_mean:.3g} nats"],
        ["signal to noise of outputs", "equal" if r.sqnr_db is None else f"{r.sqnr_db:.1f} dB"],
        [
            "largest output difference",
            f"{r.max_abs_diff:.3g}" + (f" ({r.max_abs_diff_image})" if r.max_abs_diff else ""),
        ],
    ]


def _notes(r: "ParityReport") -> list[str]:
    notes = [f"candidate {r.candidate['file']}, reference {r.reference['file']}"]
    flips = [f"{flip['kind']}: {flip['image']}: {flip['from']} → {flip['to']}" for flip in r.flips[:_SHOWN]]
    notes += flips
    if r.changed > len(flips):
        notes.append(f"… {r.changed - len(flips)} more changed decisions (see --json)")
    if r.leak:
        notes.append(
            f"LEAK: {r.leak['count']} of {r.n} images were used to calibrate a model (first: {r.leak['first']}); "
            "these figures flatter it"
        )
    if r.default_margin:
        notes.append(f"no --max-drop given: judged by the default of {r.max_drop_points:g} points")
    return notes + [f"note: {note}" for note in r.notes]


def _device_rows(r: "DeviceReport") -> list[list[str]]:
    def noise(value: float | None) -> str:
        return "equal" if value is None else f"{value:.1f} dB"

    return [
        ["same decision as the reference", f"{r.agreement_here:.2%}", f"{r.agreement_there:.2%}"],
        ["signal to noise of outputs", noise(r.sqnr_db_here), noise(r.sqnr_db_there)],
        ["images answered otherwise than here", "", str(r.images_different)],
        ["largest difference from here", "", f"{r.max_abs_diff:.3g}"],
    ]


def _device_verdict(r: "DeviceReport") -> str:
    if r.bit_equal:
        return f"{r.device}: bit-equal on {r.n} images ({r.emulator}, which says nothing about time)"
    return (
        f"{r.device}: answers differ on {r.images_different} of {r.n} images, {r.verdict.upper()} there: {r.reason} "
        f"({r.emulator})"
    )


def _worse(verdict: str, there: "DeviceReport | None") -> str:
    """Return the worse of two verdicts; equal answers need no verdict of their own."""
    if there is None or there.bit_equal:
        return verdict
    return next(v for v in ("fail", "undecided", "pass") if v in (verdict, there.verdict))


def _layer_rows(found: "LayerReport") -> list[list[str]]:
    worst = sorted(found.layers, key=lambda row: -float(str(row["step_db"])))[:_SHOWN]
    return [
        [
            str(row["tensor"]),
            str(row["op_type"]),
            "equal" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB",
            f"{row['step_db']:.1f} dB",
        ]
        for row in worst
    ]


def _layer_notes(found: "LayerReport") -> list[str]:
    first = f"'{found.first_below}'" if found.first_below else "none"
    return [
        f"first tensor under {found.threshold_db:g} dB: {first}; {len(found.layers)} tensors compared, "
        f"{found.not_compared} without a twin"
    ]


def _next(r: "ParityReport", data: Path) -> str:
    pair = f"{r.reference['file']} {r.candidate['file']}"
    if r.verdict == "pass":
        return f"edgecv bench {pair}"
    if r.verdict == "fail":
        return f"edgecv verify {pair} --data {data} --layers"
    if not r.images_needed:
        return f"edgecv eval {r.reference['file']} --data {data} --per-class"
    wanted = f"{r.images_needed} labelled images"
    return f"edgecv verify {pair} --max-drop {r.max_drop_points:g} --data DIR  (with {wanted})"
