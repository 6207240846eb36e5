"""``edgecv demo``: the whole chain on images that come with installed packages.

Handwritten digits go from training to int8; then real ImageNet weights are quantized and look at photographs.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecv.config.recipe import load_recipe
from edgecv.data.dataset import Dataset
from edgecv.errors import UsageError
from edgecv.manifest import Manifest
from edgecv.pipeline.export import ExportRequest, export_model
from edgecv.pipeline.quantize import quantize_model
from edgecv.pipeline.quantize_request import QuantizeRequest
from edgecv.pipeline.recipe import Tell, run_recipe
from edgecv.progress import Progress, no_progress

RECIPE = "lite0-int8"
DIGITS = "digits"

PARTS = ("digits", "photographs")

JUDGING_SHARE = 0.7
"""Of the user's own images; the rest calibrates."""

SHOWN_PHOTOGRAPHS = 8


def run_digits(
    folder: Path, *, seed: int, progress: Progress = no_progress, tell: Tell = lambda line: None
) -> dict[str, Any]:
    """Train, distill, prune, export, quantize, verify and bench on handwritten digits: the recipe ``digits``.

    Args:
        folder: Where the run goes; what an earlier demo finished there with the same seed is not run again.
        seed: Of everything random.
        progress: See :mod:`edgecv.progress`.
        tell: Given lines worth reading meanwhile.

    Returns:
        The report of :func:`edgecv.pipeline.recipe.run_recipe`.

    Raises:
        EnvironmentRefusedError: scikit-learn, which holds the images, or PyTorch is not installed.
        GateFailedError: A gate of the recipe was missed.
    """
    return run_recipe(load_recipe(DIGITS, given={"seed": seed}), folder / DIGITS, progress=progress, tell=tell)


def run_photographs(folder: Path, data: Path | None, *, seed: int, progress: Progress = no_progress) -> dict[str, Any]:
    """Export, quantize, verify, bench and predict with EfficientNet-Lite0.

    Args:
        folder: Where models and photographs go; what an earlier demo left there is replaced.
        data: The user's images; None takes the sample photographs of installed packages, which decide nothing.
        seed: Of the split and the benchmark's inputs.
        progress: See :mod:`edgecv.progress`.

    Returns:
        ``export`` and ``quantize``, each stage's own report; ``predictions``: ``{"image", "float", "int8"}`` for each
        shown photograph; ``notes``.

    Raises:
        EnvironmentRefusedError: The weights or sample photographs are not installed.
        UsageError: As the stages raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(RECIPE)
    request = ExportRequest(recipe.model, output=folder / f"{recipe.model}.onnx", force=True, seed=seed)
    exported = export_model(request, progress)
    model = Path(exported["artifact"])
    calibration, evaluation, notes = _sides(folder, data, model, seed, progress)
    assert recipe.quantize is not None  # the recipe is ours; a test loads it
    assert recipe.verify is not None
    quantized = quantize_model(
        QuantizeRequest(
            model=model,
            mode=recipe.quantize.mode,
            data=calibration,
            ranges=recipe.quantize.ranges,
            eval_data=evaluation,
            max_drop=recipe.verify.max_drop,
            force=True,
            seed=seed,
        ),
        progress,
    )
    models = {"float": model, "int8": Path(quantized["artifact"])}
    shown = [path for path, _ in evaluation.limited(SHOWN_PHOTOGRAPHS).samples]
    return {"export": exported, "quantize": quantized, "predictions": _predict(models, shown), "notes": notes}


def _sides(
    folder: Path, data: Path | None, model: Path, seed: int, progress: Progress
) -> tuple[Dataset, Dataset, list[str]]:
    """Return what calibrates, what judges, and what the user should know of it."""
    from edgecv.data.folder import open_dataset
    from edgecv.data.samples import sample_halves
    from edgecv.data.split import split_dataset
    from edgecv.graph.model_file import load_model, require_manifest

    if data is None:
        sides = []
        for name, photographs in zip(("calibration", "evaluation"), sample_halves(), strict=True):
            sides.append(open_dataset(_copy(photographs, folder / "photographs" / name)))
        return (
            sides[0],
            sides[1],
            [f"photographs: {folder / 'photographs'} (they come with scikit-image and scikit-learn)"],
        )
    manifest: Manifest = require_manifest(load_model(model), model)
    notes = []
    try:
        dataset = open_dataset(data, manifest.output.labels, manifest.output.label_ids)
    except UsageError as e:
        dataset = open_dataset(data)
        notes.append(f"labels are not used, only agreement is judged: {e}")
    whole = replace(dataset, class_names=(), class_indices=(-1,) * len(dataset))  # one image a class would not divide
    split = split_dataset(whole, JUDGING_SHARE, 0.0, seed, progress)
    return split["train"], split["val"], notes


def _copy(photographs: list[Path], folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for photograph in photographs:
        shutil.copyfile(photograph, folder / photograph.name)
    return folder


def _predict(models: dict[str, Path], images: list[Path]) -> list[dict[str, Any]]:
    from edgecv.runtime import Model

    rows: list[dict[str, Any]] = [{"image": str(p)} for p in images]
    for name, path in models.items():
        with Model.load(path) as model:
            for row in rows:
                prediction = model(row["image"])
                row[name] = {"label": prediction.label, "probability": prediction.probability}
    return rows
