"""The stages of a recipe: what each works on, and how its command's own function is called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecv.config.flat import flat_values
from edgecv.config.recipe import TRAINING, Recipe
from edgecv.config.stages import EvalStage
from edgecv.config.training import RESUME_FREE
from edgecv.errors import UsageError
from edgecv.pipeline.recipe_images import RecipeImages
from edgecv.progress import Progress

RUNNERS: dict[str, str] = {
    "train": "edgecv.pipeline.recipe_training:run_train",
    "distill": "edgecv.pipeline.recipe_training:run_distill",
    "prune": "edgecv.pipeline.recipe_training:run_prune",
    "factorize": "edgecv.pipeline.recipe_training:run_factorize",
    "export": "edgecv.pipeline.recipe_stages:run_export",
    "quantize": "edgecv.pipeline.recipe_stages:run_quantize",
    "verify": "edgecv.pipeline.recipe_stages:run_verify",
    "eval": "edgecv.pipeline.recipe_stages:run_eval",
    "bench": "edgecv.pipeline.recipe_stages:run_bench",
}
"""Stage -> ``module:function``; each takes a :class:`Job` and returns the stage's own report."""

CALIBRATED = ("int8", "weights4")
"""Modes of ``quantize`` that choose by images, and cannot without."""

_FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".onnx")

Made = Mapping[str, Path | None]
"""Stage -> its artifact; None while it is not made."""


@dataclass(frozen=True, slots=True)
class Job:
    """One stage to run.

    Attributes:
        recipe: The whole chain.
        folder: Where the stage writes; it exists.
        inputs: Role -> file, or the name of a network; see :func:`inputs_of`.
        images: The recipe's images.
        resume: The folder holds the beginning of this very stage.
        progress: See :mod:`edgecv.progress`.
        tell: Given lines worth reading while the stage runs.
    """

    recipe: Recipe
    folder: Path
    inputs: Mapping[str, Path | str]
    images: RecipeImages
    resume: bool
    progress: Progress
    tell: Callable[[str], None]


def run_stage(stage: str, job: Job) -> dict[str, Any]:
    """Run one stage and return its report."""
    module, _, function = RUNNERS[stage].partition(":")
    report: dict[str, Any] = getattr(import_module(module), function)(job)
    return report


def stages_of(recipe: Recipe) -> list[str]:
    """Return the stages to run, in order: the recipe's own, and ``eval`` where only a gate asks for accuracy."""
    stages = list(recipe.stages)
    last = next((s for s in ("quantize", "export") if s in stages), None)
    if recipe.gates.top1 is not None and last is not None and recipe.verify is None and recipe.eval is None:
        stages.insert(stages.index(last) + 1, "eval")
    return stages


def settings_of(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Return what a stage's result depends on beside its inputs, key -> value."""
    own = getattr(recipe, stage) or EvalStage()  # the one stage that a gate can ask for
    settings = {k: v for k, v in flat_values(own).items() if k not in RESUME_FREE}
    if stage in ("quantize", "verify"):
        settings["max_drop"] = recipe.max_drop
    if stage in ("export", "quantize"):
        settings["device"] = settings.get("device") or recipe.device
    return settings


def inputs_of(recipe: Recipe, stage: str, made: Made) -> dict[str, Path | str | None]:
    """Return role -> file or network's name; None for what a stage before is still to make."""
    if stage in TRAINING:
        return _training_inputs(recipe, stage, made)
    if stage == "export":
        assert recipe.export is not None
        files = {"weights": recipe.export.weights, "labels": recipe.export.labels}
        return {"model": _newest(recipe, stage, made), **_files(files)}
    exported = made.get("export") if recipe.export else named(recipe.model)
    last = made.get("quantize") if recipe.quantize else exported
    if stage == "quantize":
        return {"model": exported}
    if stage == "eval":
        return {"model": last}
    return {"reference": exported, **({"candidate": last} if recipe.quantize else {})}


def images_of(recipe: Recipe, stage: str) -> tuple[str, ...]:
    """Return the roles of the images a stage works on.

    Raises:
        UsageError: The recipe names none, and the stage cannot do without.
    """
    if stage in TRAINING:
        if not recipe.data and stage in ("train", "distill"):
            raise UsageError(f"recipe '{recipe.name}': [{stage}] learns from images; add --data DIR.")
        return ("data",) if recipe.data else ()
    calibrated: tuple[str, ...] = ()
    if stage == "quantize":
        assert recipe.quantize is not None
        if recipe.quantize.mode in CALIBRATED and not (recipe.calib or recipe.data):
            raise UsageError(f"recipe '{recipe.name}' calibrates; add --calib DIR.")
        calibrated = ("calibration",)
    if stage not in ("verify", "eval") and (stage != "quantize" or recipe.max_drop is None):
        return calibrated
    if not (recipe.eval_data or recipe.data):
        raise UsageError(f"recipe '{recipe.name}' judges; add --eval DIR (labelled images).")
    return (*calibrated, "judging")


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


def named(text: str) -> Path | str:
    """Return a network's name, or the path of a file where that is what a key names.

    >>> named("resnet18"), named("runs/x/model.safetensors").name
    ('resnet18', 'model.safetensors')
    """
    return Path(text) if text.endswith(_FILES) else text


def _three(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    return (values[0], values[1], values[2]) if values else None


def _training_inputs(recipe: Recipe, stage: str, made: Made) -> dict[str, Path | str | None]:
    before = _newest(recipe, stage, made)
    if stage == "train":
        assert recipe.train is not None
        return {"model": before, **_files({"weights": recipe.train.weights, "init_from": recipe.train.init_from})}
    if stage == "distill":
        own = recipe.distill
        assert own is not None
        networks = {"teacher": named(own.teacher) if own.teacher else before, "student": named(own.student)}
        like: dict[str, Path | str | None] = {"like": named(own.like)} if own.like else {}
        return {**networks, **like, **_files({"teacher_weights": own.teacher_weights, "weights": own.weights})}
    weights = getattr(recipe, stage).weights
    return {"model": before, **_files({"weights": weights})}


def _files(keys: Mapping[str, str]) -> dict[str, Path | str | None]:
    return {key: Path(text) for key, text in keys.items() if text}


def _newest(recipe: Recipe, stage: str, made: Made) -> Path | str | None:
    """Return the artifact of the last training stage before ``stage``; the recipe's model where there is none."""
    order = recipe.stages[: recipe.stages.index(stage)]
    before = [s for s in order if s in TRAINING]
    return made.get(before[-1]) if before else named(recipe.model)
