"""Quantize a model with its gate: size, agreement and time, before and after, on the user's images and machine."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgecv
from edgecv import workspace
from edgecv.errors import GateFailedError, UsageError
from edgecv.evaluate.statistics import LEVEL
from edgecv.files import check_output, sha256_file
from edgecv.manifest import Manifest
from edgecv.pipeline.export import require_extra
from edgecv.pipeline.quantize_request import (
    QuantizeRequest,
    calibration_set,
    check_disjoint,
    check_request,
    input_batches,
)
from edgecv.pipeline.quantize_verdict import failure_of, judge, parity_entry, time_both
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts, package_versions, usable_cores

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgecv.data.dataset import Dataset
    from edgecv.pipeline.quantize_int8 import Judge, Outcome
    from edgecv.quantize.static import QuantizedModel


def quantize_model(request: QuantizeRequest, progress: Progress = no_progress) -> dict[str, Any]:
    """Quantize, judge, time, write the file, make it the current model, and return the report.

    Raises:
        UsageError: Nothing to calibrate on, a model that cannot be quantized, calibration images in the judging set.
        EnvironmentRefusedError: The ``tools`` extra or ONNX Runtime is not installed.
        GateFailedError: The drop is above ``max_drop`` for certain; no file is written, the error holds the report.
    """
    require_extra("tools", "onnx", "onnx_ir")
    source = request.model or workspace.current_model()
    check_request(request, source)
    output = request.output or source.with_name(f"{source.stem}.{request.mode}.onnx")
    _check_outputs(request, source, output)
    from edgecv.graph.model_file import load_model, require_manifest, save_model
    from edgecv.quantize.checks import check_float_model

    model = load_model(source)
    check_float_model(model)  # before the manifest: adopting a quantized model would not make it one to quantize
    manifest = require_manifest(model, source)
    dataset = calibration_set(request, manifest)
    check_disjoint(request, dataset)
    with _folder_beside(output) as folder:
        candidate = Path(folder) / output.name

        def judge_quantized(quantized: "QuantizedModel", pass_level: float) -> dict[str, Any] | None:
            save_model(quantized.model, candidate, _derive(manifest, source, request, quantized, dataset))
            return judge(request, source, candidate, dataset, pass_level, progress)

        found = _run_mode(request, model, manifest, dataset, judge_quantized, progress)
        report = _report(request, source, output, found, dataset)
        made = _derive(manifest, source, request, found.quantized, dataset)
        save_model(found.quantized.model, candidate, made)  # the last one judged may have been another rung's
        report["bytes_after"] = candidate.stat().st_size
        if found.parity is not None and found.parity["judged"]:
            if found.parity["verdict"] == "fail":
                raise GateFailedError(failure_of(found.parity, output), report | {"artifact": None})
            made = replace(made, parity=(*made.parity, parity_entry(found.parity, source)))
        save_model(found.quantized.model, output, made)
    report["bytes_after"] = output.stat().st_size
    if found.explanation is not None:
        from edgecv.pipeline.explain_page import write_explanation

        report["explanation"]["files"] = [str(path) for path in write_explanation(found.explanation, output)]
    if forgotten := workspace.set_current_model(output):
        report["notes"] = [forgotten]
    if request.bench:
        report["latency"] = time_both(request, source, output, progress)
    return report


def _folder_beside(output: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix=".edgecv-", dir=output.parent)
    except OSError as e:
        raise UsageError(f"nothing can be written into '{output.parent}' ({e.strerror}); name another with -o.") from e


def _check_outputs(request: QuantizeRequest, source: Path, output: Path) -> None:
    check_output(output, force=request.force, inputs=(source,))
    if request.explain:
        require_extra("plot", "matplotlib")
        from edgecv.pipeline.explain_page import explanation_files

        for path in explanation_files(output):
            check_output(path, force=request.force, inputs=(source,))


def _report(
    request: QuantizeRequest, source: Path, output: Path, found: "Outcome", dataset: "Dataset | None"
) -> dict[str, Any]:
    parity = found.parity
    return {
        "source": str(source),
        "artifact": str(output),
        "verdict": parity["verdict"] if parity is not None and parity["judged"] else "not judged",
        "notes": [],
        "mode": request.mode,
        "bytes_before": source.stat().st_size,
        "bytes_after": None,
        "quantization": dict(found.quantized.summary),
        "explanation": None if found.explanation is None else found.explanation.to_dict() | {"files": []},
        "parity": parity,
        "latency": None,
        "host": host_facts(
            threads=usable_cores() if request.threads == "auto" else int(request.threads),
            seed=request.seed,
            n=len(dataset) if dataset else 0,
        ),
    }


def _run_mode(
    request: QuantizeRequest,
    model: "ir.Model",
    manifest: Manifest,
    dataset: "Dataset | None",
    judge_quantized: "Judge",
    progress: Progress,
) -> "Outcome":
    from edgecv.pipeline.quantize_int8 import Outcome, quantize_int8

    if request.mode == "int8" and request.activations == 8 and dataset is not None:
        return quantize_int8(request, model, manifest, dataset, judge_quantized, progress)
    quantized = _convert(request, model, manifest, dataset, progress)
    return Outcome(quantized, judge_quantized(quantized, LEVEL))


def _convert(
    request: QuantizeRequest, model: "ir.Model", manifest: Manifest, dataset: "Dataset | None", progress: Progress
) -> "QuantizedModel":
    """Run a mode without a ladder."""
    if request.mode == "dynamic":
        from edgecv.quantize.dynamic import quantize_dynamic

        return quantize_dynamic(model, exclude=request.keep_float, progress=progress)
    batches = None if dataset is None else input_batches(dataset, manifest)
    if request.activations == 16 and dataset is not None and batches is not None:
        from edgecv.quantize.wide import quantize_wide

        return quantize_wide(
            model,
            manifest,
            batches,
            exclude=request.keep_float,
            int8_heads=request.int8_heads,
            n_images=len(dataset),
            progress=progress,
        )
    if request.mode.startswith("weights"):
        from edgecv.quantize.weight_only import store_weights

        bits = int(request.mode.removeprefix("weights"))
        return store_weights(model, manifest, batches, bits=bits, exclude=request.keep_float, progress=progress)
    if request.mode == "bf16":
        from edgecv.quantize.bfloat16 import convert_bfloat16

        return convert_bfloat16(
            model, manifest, batches, provider=request.provider, exclude=request.keep_float, progress=progress
        )
    from edgecv.quantize.float16 import convert_float16

    return convert_float16(model, manifest, batches, exclude=request.keep_float, progress=progress)


def _derive(
    manifest: Manifest,
    source: Path,
    request: QuantizeRequest,
    quantized: "QuantizedModel",
    dataset: "Dataset | None",
) -> Manifest:
    tools = {"edgecv": edgecv.__version__} | package_versions("onnxruntime", "onnxruntime-gpu", "onnx", "onnx-ir")
    settings = {"mode": request.mode, "seed": request.seed, **quantized.summary.get("settings", {})}
    images = () if dataset is None else tuple(sorted(sha256_file(path) for path, _ in dataset.samples))
    derived = replace(
        manifest,
        made_from={"file": source.name, "sha256": sha256_file(source)},
        calibration=tuple(sorted({*manifest.calibration, *images})),
        parity=(),
    )
    return derived.with_stage("quantize", settings, tools)
