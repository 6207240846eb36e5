"""The stages of a recipe: what each works on, and how its command's own function is called."""

from collections.abc import Callable, Collection, Mapping
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
    "export": "edgecv.pipeline.recipe_models:run_export",
    "quantize": "edgecv.pipeline.recipe_models:run_quantize",
    "verify": "edgecv.pipeline.recipe_models:run_verify",
    "eval": "edgecv.pipeline.recipe_models:run_eval",
    "bench": "edgecv.pipeline.recipe_models:run_bench",
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


def check_words(recipe: Recipe, stages: Collection[str]) -> None:
    """Check what is known by its name alone before hours are spent: providers, and networks of the stages to run.

    Raises:
        UsageError: An unknown network or provider.
        EnvironmentRefusedError: PyTorch is needed and not installed.
    """
    from edgecv.runtime.providers import parse_providers

    for stage in stages:
        values = settings_of(recipe, stage)
        for key in ("provider", "teacher_provider"):
            if key in values:
                parse_providers(values[key])
    names = {
        value
        for stage in stages
        if stage in (*TRAINING, "export")
        for value in inputs_of(recipe, stage, {}).values()
        if isinstance(value, str) and value != "auto"
    }
    if names:
        from edgecv.pipeline.export import require_extra

        require_extra("train", "torch", "timm")
        from edgecv.nn.names import check_name

        for name in sorted(names):
            check_name(name)


def named(text: str) -> Path | str:
    """Return a network's name, or the path of a file where that is what a key names.

    >>> named("resnet18"), named("runs/x/model.safetensors").name
    ('resnet18', 'model.safetensors')
    """
    return Path(text) if text.endswith(_FILES) else text


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
