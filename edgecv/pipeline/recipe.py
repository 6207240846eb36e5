"""``edgecv run``: the whole chain as a recipe says, into one folder."""

from pathlib import Path
from typing import Any

from edgecv.config.recipe import Recipe
from edgecv.errors import UsageError
from edgecv.pipeline.export import ExportRequest, export_model
from edgecv.pipeline.quantize import quantize_model
from edgecv.pipeline.quantize_request import QuantizeRequest
from edgecv.progress import Progress, no_progress


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    calibration: Path | None,
    evaluation: Path | None,
    force: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Run export, quantize (with its gate) and bench as ``recipe`` says; files go to ``folder``.

    Args:
        recipe: What to do.
        folder: Made when it is missing.
        calibration: Images to choose ranges with; needed by int8.
        evaluation: Labelled images to judge on; needed by a recipe with ``[verify]``.
        force: Replace files of an earlier run.
        progress: See :mod:`edgecv.progress`.

    Returns:
        ``{"recipe", "export", "quantize"}``, each stage's own report; ``quantize`` is None when the recipe has none.

    Raises:
        UsageError: Data the recipe needs was not given; or as the stages raise.
        GateFailedError: As the stages raise; what was written before stays.
    """
    stage = recipe.quantize
    if stage is not None and stage.mode == "int8" and calibration is None:
        raise UsageError(f"recipe '{recipe.name}' calibrates; add --calib DIR.")
    if recipe.verify is not None and evaluation is None:
        raise UsageError(f"recipe '{recipe.name}' judges; add --eval DIR (labelled images).")
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{recipe.name}.onnx"
    exported = export_model(
        ExportRequest(
            model=recipe.export.model,
            random_init=recipe.export.random_init,
            softmax=recipe.export.softmax,
            dynamic_size=recipe.export.dynamic_size,
            output=model,
            data=evaluation,
            force=force,
            seed=recipe.seed,
        ),
        progress,
    )
    quantized = None
    if stage is not None:
        quantized = quantize_model(
            QuantizeRequest(
                model=model,
                mode=stage.mode,
                data=calibration,
                ranges=stage.ranges,
                method=stage.method,
                keep_float=stage.keep_float,
                device=stage.device or None,
                activations=stage.activations,
                eval_data=evaluation,
                max_drop=recipe.verify.max_drop if recipe.verify else None,
                bench=recipe.bench is not None,
                provider=recipe.bench.provider if recipe.bench else "cpu",
                preset=recipe.bench.preset if recipe.bench else "rapid",
                force=force,
                seed=recipe.seed,
            ),
            progress,
        )
    return {"recipe": recipe.name, "export": exported, "quantize": quantized}
