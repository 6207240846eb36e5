"""The stages of a recipe that work on ONNX models: export, quantize, verify, eval, bench."""

from pathlib import Path
from typing import Any

from edgecv.config.stages import EvalStage
from edgecv.pipeline.recipe_stages import Job


def run_export(job: Job) -> dict[str, Any]:
    """Export what the stage before made, or a network by name."""
    from edgecv.pipeline.export import ExportRequest, export_model

    stage = job.recipe.export
    assert stage is not None
    request = ExportRequest(
        model=str(job.inputs["model"]),
        weights=Path(stage.weights) if stage.weights else None,
        random_init=stage.random_init,
        arch=stage.arch,
        output=job.folder / f"{job.recipe.name}.onnx",
        data=job.images.shown,
        input_kind=stage.input,
        softmax=stage.softmax,
        dynamic_size=stage.dynamic_size,
        opset=stage.opset,
        device=job.recipe.device,
        labels=Path(stage.labels) if stage.labels else None,
        mean=_three(stage.mean),
        std=_three(stage.std),
        input_size=(stage.input_size[0], stage.input_size[1]) if stage.input_size else None,
        interpolation=stage.interpolation,
        crop_pct=stage.crop_pct,
        seed=job.recipe.seed,
    )
    return export_model(request, job.progress)


def run_quantize(job: Job) -> dict[str, Any]:
    """Quantize the exported model; with a gate the ladder is climbed until it passes."""
    from edgecv.pipeline.quantize import quantize_model
    from edgecv.pipeline.quantize_request import QuantizeRequest

    recipe, stage = job.recipe, job.recipe.quantize
    assert stage is not None
    device, model = stage.device or recipe.device, Path(job.inputs["model"])
    request = QuantizeRequest(
        model=model,
        mode=stage.mode,
        data=job.images.calibration(job.folder),
        images=stage.images,
        ranges=stage.ranges,
        method=stage.method,
        keep_float=stage.keep_float,
        device=device if stage.mode == "int8" and device else None,
        activations=stage.activations,
        int8_heads=stage.int8_heads,
        output=job.folder / f"{recipe.name}.{stage.mode}.onnx",
        eval_data=None if recipe.max_drop is None else job.images.judging(job.folder, model),
        max_drop=recipe.max_drop,
        bench=False,
        provider=stage.provider,
        threads=stage.threads,
        seed=recipe.seed,
    )
    return quantize_model(request, job.progress)


def run_verify(job: Job) -> dict[str, Any]:
    """Judge the quantized model against the exported one; the report carries the verdict."""
    from edgecv.evaluate.parity import verify_models

    stage, reference = job.recipe.verify, Path(job.inputs["reference"])
    images = job.images.judging(job.folder, reference)
    assert stage is not None
    assert images is not None  # images_of has seen to it
    report = verify_models(
        reference,
        Path(job.inputs["candidate"]),
        images,
        max_drop=job.recipe.max_drop,
        provider=stage.provider,
        threads=stage.threads,
        batch_size=stage.batch,
        limit=stage.limit,
        seed=job.recipe.seed,
        progress=job.progress,
    )
    return report.as_json()


def run_eval(job: Job) -> dict[str, Any]:
    """Measure the accuracy of the last model."""
    from edgecv.evaluate.accuracy import evaluate_models

    stage, model = job.recipe.eval or EvalStage(), Path(job.inputs["model"])
    images = job.images.judging(job.folder, model)
    assert images is not None  # images_of has seen to it
    reports = evaluate_models(
        [model],
        images,
        tta=stage.tta,
        provider=stage.provider,
        threads=stage.threads,
        batch_size=stage.batch,
        limit=stage.limit,
        seed=job.recipe.seed,
        progress=job.progress,
    )
    return reports[0].as_json()


def run_bench(job: Job) -> dict[str, Any]:
    """Time the exported and the quantized model in turns."""
    from edgecv.benchmark import compare_latency

    stage = job.recipe.bench
    assert stage is not None
    report = compare_latency(
        [Path(path) for path in job.inputs.values()],
        provider=stage.provider,
        threads=stage.threads,
        preset=stage.preset,
        batch=stage.batch,
        seed=job.recipe.seed,
        progress=job.progress,
    )
    return report.to_dict()


def _three(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    return (values[0], values[1], values[2]) if values else None
