"""What a run of a recipe would do: each stage with the hashes of what goes in, and whether it is finished."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecv.config.recipe import TRAINING, Recipe
from edgecv.data.contents import Contents
from edgecv.pipeline.recipe_images import RecipeImages
from edgecv.pipeline.recipe_stages import check_words, images_of, inputs_of, settings_of, stages_of
from edgecv.pipeline.stage_records import STAGES_FOLDER, Record, find_record, stage_folder, stage_key
from edgecv.progress import Progress, no_progress

CONTENTS_FILE = "contents.json"
"""Inside ``stages``: hashes of files by size and time of change, so that data sets are read once."""


def plan_recipe(recipe: Recipe, folder: Path, progress: Progress = no_progress) -> list[dict[str, Any]]:
    """Return what :func:`run_recipe` would do, writing nothing into ``folder``.

    Returns:
        For each stage ``stage``, ``state`` (``finished``, ``resumes``, ``runs``), ``key`` (None while a stage before
        it is to run), ``inputs`` (role -> hash, name, or ``from STAGE``), ``settings`` and ``seconds`` (None unless
        finished).

    Raises:
        UsageError: As :func:`run_recipe`.
    """
    return plan_stages(open_run(recipe, folder, progress))


def plan_stages(run: "Run") -> list[dict[str, Any]]:
    """Return :func:`plan_recipe` of a run before its first stage, and leave it so."""
    rows: list[dict[str, Any]] = []
    for stage in stages_of(run.recipe):
        step = plan_stage(run, stage)
        place = stage_folder(run.folder, stage, step.key) if step.key else None
        begun = stage in TRAINING and place is not None and place.is_dir()
        rows.append(
            {
                "stage": stage,
                "state": "finished" if step.record else "resumes" if begun else "runs",
                "key": step.key,
                "inputs": dict(step.hashes),
                "settings": step.settings,
                "seconds": step.record.seconds if step.record else None,
            }
        )
        run.made[stage] = artifact_of(run.folder, step.record) if step.record else None
    check_words(run.recipe, [row["stage"] for row in rows if row["state"] != "finished"])
    run.made.clear()
    return rows


@dataclass(slots=True)
class Run:
    """A run under way: what is made so far, and the report that grows."""

    recipe: Recipe
    folder: Path
    contents: Contents
    images: RecipeImages
    progress: Progress
    made: dict[str, Path | None] = field(default_factory=dict)
    reports: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One stage, planned.

    Attributes:
        settings: What its result depends on beside inputs.
        inputs: Role -> file or network's name; None while a stage before has to make it.
        hashes: Role -> hash or name.
        key: Of all that; None while an input is missing.
        record: Of the finished stage.
    """

    settings: dict[str, Any]
    inputs: dict[str, Path | str | None]
    hashes: dict[str, str]
    key: str | None
    record: Record | None


def open_run(recipe: Recipe, folder: Path, progress: Progress) -> Run:
    """Return a run before its first stage; every stage's images are named, or this raises."""
    for stage in stages_of(recipe):
        images_of(recipe, stage)
    contents = Contents(folder / STAGES_FOLDER / CONTENTS_FILE)
    return Run(recipe, folder, contents, RecipeImages(recipe, contents, progress), progress)


def plan_stage(run: Run, stage: str) -> Step:
    """Return a stage with the hashes of its inputs, and its record if it is finished."""
    recipe = run.recipe
    settings, inputs = settings_of(recipe, stage), inputs_of(recipe, stage, run.made)
    hashes = {role: run.images.hash_of(role) for role in images_of(recipe, stage)}
    for role, value in inputs.items():
        if value is None:
            hashes[role] = "pending"
        else:
            hashes[role] = run.contents.file(value) if isinstance(value, Path) else value
    if None in inputs.values():
        return Step(settings, inputs, hashes, None, None)
    key = stage_key(stage, settings, hashes, recipe.seed)
    return Step(settings, inputs, hashes, key, find_record(run.folder, stage, key, run.contents))


def artifact_of(folder: Path, record: Record) -> Path | None:
    """Return the file that a finished stage made."""
    return stage_folder(folder, record.stage, record.key) / record.artifact if record.artifact else None
