"""Quantize a model with its gate: size, agreement and time, before and after, on the user's images and machine."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgecv
from edgecv import workspace
from edgecv.config.recipe import QUANTIZE_MODES
from edgecv.errors import GateFailedError, UsageError
from edgecv.files import check_output, check_regular_file, sha256_file
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts, package_versions, usable_cores
from edgecv.runtime.providers import parse_providers

if TYPE_CHECKING:
    from edgecv.data.dataset import Dataset
    from edgecv.evaluate.verdict import ParityReport
    from edgecv.quantize.static import QuantizedModel

DEFAULT_CALIBRATION_IMAGES = 512
"""Ranges stop moving long before this; more costs time, never memory."""

CALIBRATION_BATCH = 4
"""Images whose activations are in memory at once while ranges are collected."""


@dataclass(frozen=True, slots=True)
class QuantizeRequest:
    """What ``edgecv quantize`` was asked; field for field its options, see ``edgecv quantize --help``.

    ``model`` None means the folder's current model; ``max_drop`` is in percentage points of top-1.
    """

    model: Path | None
    mode: str
    data: "Path | Dataset | None" = None
    images: int = DEFAULT_CALIBRATION_IMAGES
    ranges: str = "mse"
    keep_float: tuple[str, ...] = ()
    output: Path | None = None
    eval_data: "Path | Dataset | None" = None
    max_drop: float | None = None
    bench: bool = True
    provider: str = "cpu"
    preset: str = "rapid"
    threads: str = "auto"
    force: bool = False
    seed: int = 0


def quantize_model(request: QuantizeRequest, progress: Progress = no_progress) -> dict[str, Any]:
    """Quantize, judge, time, write the file, make it the current model, and return the report.

    Raises:
        UsageError: Nothing to calibrate on, a model that cannot be quantized, calibration images in the judging set.
        EnvironmentRefusedError: The ``tools`` extra or ONNX Runtime is not installed.
        GateFailedError: The drop is above ``max_drop`` for certain; no file is written, the error holds the report.
    """
    from edgecv.pipeline.export import require_extra

    require_extra("tools", "onnx", "onnx_ir")
    source = request.model or workspace.current_model()
    _check_request(request, source)
    output = request.output or source.with_name(f"{source.stem}.{request.mode}.onnx")
    check_output(output, force=request.force, inputs=(source,))
    from edgecv.graph.model_file import load_model, require_manifest, save_model
    from edgecv.quantize.checks import check_float_model

    model = load_model(source)
    check_float_model(model)  # before the manifest: adopting a quantized model would not make it one to quantize
    manifest = require_manifest(model, source)
    dataset = _calibration_set(request, manifest)
    _check_disjoint(request, dataset)
    quantized = _run_mode(request, model, manifest, dataset, progress)
    made = _derive(manifest, source, request, quantized, dataset)
    with tempfile.TemporaryDirectory(prefix=".edgecv-", dir=output.parent) as folder:
        candidate = Path(folder) / output.name
        save_model(quantized.model, candidate, made)
        parity = _judge(request, source, candidate, dataset, progress)
        judged = parity is not None and parity["judged"]
        report: dict[str, Any] = {
            "source": str(source),
            "artifact": str(output),
            "verdict": parity["verdict"] if parity is not None and judged else "not judged",
            "notes": [],
            "mode": request.mode,
            "bytes_before": source.stat().st_size,
            "bytes_after": candidate.stat().st_size,
            "quantization": dict(quantized.summary),
            "parity": parity,
            "latency": None,
            "host": host_facts(
                threads=usable_cores() if request.threads == "auto" else int(request.threads),
                seed=request.seed,
                n=len(dataset) if dataset else 0,
            ),
        }
        if parity is not None and judged:
            if parity["verdict"] == "fail":
                raise GateFailedError(_failure(parity, output), report | {"artifact": None})
            made = replace(made, parity=(*made.parity, _parity_entry(parity, source)))
        save_model(quantized.model, output, made)
    report["bytes_after"] = output.stat().st_size
    if forgotten := workspace.set_current_model(output):
        report["notes"] = [forgotten]
    if request.bench:
        report["latency"] = _time(request, source, output, progress)
    return report


def _check_request(request: QuantizeRequest, source: Path) -> None:
    from edgecv.files import MAX_MODEL_BYTES

    check_regular_file(source, "model", MAX_MODEL_BYTES)
    if request.mode not in QUANTIZE_MODES:
        raise UsageError(f"mode '{request.mode}' is not one of {', '.join(QUANTIZE_MODES)}.")
    parse_providers(request.provider)
    if request.mode == "int8" and request.data is None:
        raise UsageError("int8 needs images to calibrate on; add --data DIR (training images, about 100 or more).")
    if request.max_drop is not None and not 0 <= request.max_drop <= 100:
        raise UsageError(f"--max-drop {request.max_drop} is not in 0..100 percentage points.")
    if request.max_drop is not None and request.eval_data is None:
        raise UsageError(
            "--max-drop needs labelled images to judge on; add --eval-data DIR (not the calibration images)."
        )


def _calibration_set(request: QuantizeRequest, manifest: Manifest) -> "Dataset | None":
    from edgecv.data.calibration import draw_calibration
    from edgecv.data.folder import open_dataset

    if request.data is None or request.mode == "dynamic":
        return None
    dataset = open_dataset(request.data) if isinstance(request.data, Path) else request.data
    return draw_calibration(dataset, min(request.images, len(dataset)), seed=request.seed)


def _check_disjoint(request: QuantizeRequest, dataset: "Dataset | None") -> None:
    """Refuse judging images that calibrate, before any work is done."""
    from edgecv.data.folder import open_dataset

    if dataset is None or request.eval_data is None:
        return
    judging = open_dataset(request.eval_data) if isinstance(request.eval_data, Path) else request.eval_data
    calibrating = {sha256_file(path) for path, _ in dataset.samples}
    shared = [path for path, _ in judging.samples if sha256_file(path) in calibrating]
    if shared:
        raise UsageError(
            f"{len(shared)} of the {len(judging)} judging images calibrate too (first: '{shared[0].name}'); "
            "judge on others, or calibrate on a part: edgecv data split"
        )


def _run_mode(
    request: QuantizeRequest, model: Any, manifest: Manifest, dataset: "Dataset | None", progress: Progress
) -> "QuantizedModel":
    if request.mode == "int8" and dataset is not None:
        from edgecv.quantize.static import quantize_static

        return quantize_static(
            model,
            manifest,
            input_batches(dataset, manifest),
            ranges=request.ranges,
            exclude=request.keep_float,
            n_images=len(dataset),
            progress=progress,
        )
    if request.mode == "dynamic":
        from edgecv.quantize.dynamic import quantize_dynamic

        return quantize_dynamic(model, exclude=request.keep_float, progress=progress)
    batches = None if dataset is None else input_batches(dataset, manifest)
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


def input_batches(dataset: "Dataset", manifest: Manifest) -> Callable[[], Iterator[np.ndarray]]:
    """Return a factory of the model's own inputs over ``dataset``, a few images at a time."""
    from edgecv.data.batches import iter_batches
    from edgecv.runtime.preprocess import to_model_input

    def batches() -> Iterator[np.ndarray]:
        size = manifest.input.batch or CALIBRATION_BATCH
        for batch in iter_batches(dataset, manifest.input, size):
            yield to_model_input(batch.images, manifest.input)

    return batches


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


def _judge(
    request: QuantizeRequest,
    source: Path,
    candidate: Path,
    dataset: "Dataset | None",
    progress: Progress,
) -> dict[str, Any] | None:
    """Compare on the judging images; without any, on the calibration images, which is a smoke test and no verdict."""
    from edgecv.evaluate.parity import verify_models

    judged = request.eval_data or dataset
    if judged is None:
        return None
    report: ParityReport = verify_models(
        source,
        candidate,
        judged,
        max_drop=request.max_drop,
        provider=request.provider,
        threads=request.threads,
        allow_leak=request.eval_data is None,
        progress=progress,
    )
    measured = asdict(report) | {"judged": request.eval_data is not None}
    measured["candidate"]["file"] = candidate.name  # it was judged in a folder that is gone by now
    if request.eval_data is None:
        measured |= {"verdict": "not judged", "reason": "calibration images show that it runs, not what it is worth"}
    return measured


def _parity_entry(parity: dict[str, Any], source: Path) -> dict[str, Any]:
    keys = ("n", "agreement", "drop_points", "drop_interval", "max_drop_points", "verdict", "kl_mean", "sqnr_db")
    return {"against": source.name, **{k: parity[k] for k in keys}}


def _failure(parity: dict[str, Any], output: Path) -> str:
    if parity["drop_interval"] is None:
        return f"'{output}' was not written: {parity['reason']}"
    low, high = parity["drop_interval"]
    return (
        f"'{output}' was not written: top-1 drops by {parity['drop_points']:.2f} points [{low:.2f}, {high:.2f}] on "
        f"{parity['n']} images, over the limit of {parity['max_drop_points']}; raise --max-drop, or leave layers float "
        "with --keep-float."
    )


def _time(request: QuantizeRequest, source: Path, output: Path, progress: Progress) -> dict[str, Any]:
    from edgecv.benchmark import compare_latency
    from edgecv.benchmark.blame import explain_slower
    from edgecv.benchmark.report import SMALLEST_DIFFERENCE

    report = compare_latency(
        [source, output],
        provider=request.provider,
        threads=request.threads,
        preset=request.preset,
        seed=request.seed,
        progress=progress,
    )
    speedup = report.results[1].speedup
    slower = speedup is not None and speedup.estimate < 1 and speedup.excludes(1.0, SMALLEST_DIFFERENCE)
    return report.to_dict() | {"slower": slower, "slower_in": explain_slower(report, request.seed) if slower else []}
