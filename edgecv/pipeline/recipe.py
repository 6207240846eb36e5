"""``edgecv run``: the whole chain as a recipe says, stage by stage, into one folder that remembers what is finished."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import edgecv
from edgecv import workspace
from edgecv.config.recipe import TRAINING, Recipe
from edgecv.errors import EdgecvError, GateFailedError
from edgecv.files import check_output
from edgecv.pipeline.recipe_gates import FAIL, judge_gates, worst_of
from edgecv.pipeline.recipe_plan import Run, Step, artifact_of, open_run, plan_stage, plan_stages
from edgecv.pipeline.recipe_report import figures_of, gate_sentence, warnings_of, write_reports
from edgecv.pipeline.recipe_stages import (
    Job,
    named,
    run_stage,
    stages_of,
)
from edgecv.pipeline.stage_records import (
    Record,
    is_published,
    only_run,
    open_stage_folder,
    publish,
    stage_folder,
    write_record,
)
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts, usable_cores

Tell = Callable[[str], None]


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    force: bool = False,
    progress: Progress = no_progress,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Run what is not finished yet, judge the gates, and return the report.

    Args:
        recipe: What to do.
        folder: Made when it is missing. Each stage has its own folder in ``stages``; what it made appears at the top
            under a plain name, with ``report.json`` and ``report.md``.
        force: Run every stage again, and replace files of the same names that are not of a run.
        progress: See :mod:`edgecv.progress`.
        tell: Given lines worth reading while stages run.

    Returns:
        ``recipe``, ``folder``, ``stages`` (each ``stage``, ``state``, ``seconds``, ``figures``, ``artifact``, ``key``,
        ``inputs``, ``settings`` and its own ``report``), ``gates``, ``verdict`` (``pass``, ``undecided``, or
        ``no gates``), ``artifact`` and ``host``.

    Raises:
        UsageError: Images the recipe needs were not named; or as the stages raise.
        EnvironmentRefusedError: Another run works in the folder; or as the stages raise.
        GateFailedError: A gate of the recipe, or of a stage, was not met; the error holds the report.
    """
    with only_run(folder):
        run = open_run(recipe, folder, progress)
        plan = plan_stages(run)
        tell(
            f"plan, in {folder}: " + ", ".join(f"{row['stage']} ({'runs' if force else row['state']})" for row in plan)
        )
        _check_targets(run, force)
        for stage in stages_of(recipe):
            try:
                _finish(run, stage, force=force, tell=tell)
            except GateFailedError as e:
                run.rows.append({"stage": stage, "state": "failed", "seconds": 0.0, "figures": str(e)})
                _close(run, FAIL)
                raise GateFailedError(f"{stage}: {e}", run.report) from e
            except EdgecvError:
                if run.rows:
                    done = ", ".join(row["stage"] for row in run.rows)
                    tell(f"{done}: finished and kept; run again to go on from there")
                raise
        gates = judge_gates(recipe, run.reports, _size(run))
        verdict = worst_of(gates) if gates else "no gates"
        run.report["gates"] = [asdict(g) for g in gates]
        _close(run, verdict)
        if verdict == FAIL:
            raise GateFailedError("; ".join(gate_sentence(g) for g in gates if g.verdict == FAIL) + ".", run.report)
    return run.report


def _finish(run: Run, stage: str, *, force: bool, tell: Tell) -> None:
    """Take a stage's record, or run the stage and record it."""
    step = plan_stage(run, stage)
    assert step.key is not None  # the stages before have made what it needs
    record = None if force else step.record
    state = "cached"
    if record is None:
        tell(f"[{stage}]")
        record, state = _run(run, stage, step, force=force, tell=tell), "run"
    run.made[stage] = artifact = artifact_of(run.folder, record)
    run.reports[stage] = record.report
    target = None
    if artifact is not None:
        target = _target(run, stage)
        publish(artifact, target)
    run.rows.append(
        {
            "stage": stage,
            "state": state,
            "seconds": record.seconds,
            "figures": figures_of(stage, record.report),
            "artifact": str(target) if target else None,
            "key": record.key,
            "inputs": dict(record.inputs),
            "settings": dict(record.settings),
            "report": dict(record.report),
        }
    )
    run.contents.save()


def _run(run: Run, stage: str, step: Step, *, force: bool, tell: Tell) -> Record:
    assert step.key is not None
    place, begun = open_stage_folder(run.folder, stage, step.key, resumes=stage in TRAINING, force=force)
    run.contents.save()
    _take_division(run, place)
    inputs = {role: value for role, value in step.inputs.items() if value is not None}

    def progress(label: str, done: int, total: int) -> None:
        run.progress(f"{stage}: {label}", done, total)

    job = Job(run.recipe, place, inputs, replace(run.images, progress=progress), begun, progress, tell)
    start = time.monotonic()
    report = run_stage(stage, job)
    seconds = time.monotonic() - start
    artifact = Path(report["artifact"]).name if report.get("artifact") else ""
    record = Record(
        stage=stage,
        key=step.key,
        inputs=step.hashes,
        settings=step.settings,
        artifact=artifact,
        sha256=run.contents.file(place / artifact) if artifact else "",
        seconds=round(seconds, 1),
        report=report,
        edgecv=edgecv.__version__,
    )
    write_record(run.folder, record)
    return record


def _take_division(run: Run, place: Path) -> None:
    """Give a stage the division into trained on and held out that the first stage made: it is the same for all."""
    from edgecv.data.held_out import SPLIT_FILE

    earlier = [stage_folder(run.folder, row["stage"], row["key"]) / SPLIT_FILE for row in run.rows]
    found = next((path for path in earlier if path.is_file()), None)
    if found is not None and not (place / SPLIT_FILE).exists():
        publish(found, place / SPLIT_FILE)


def _target(run: Run, stage: str) -> Path:
    """Return the plain name of what a stage makes, at the top of the folder."""
    recipe = run.recipe
    if stage in TRAINING:
        return run.folder / f"{stage}.safetensors"
    mode = f".{recipe.quantize.mode}" if stage == "quantize" and recipe.quantize else ""
    return run.folder / f"{recipe.name}{mode}.onnx"


def _check_targets(run: Run, force: bool) -> None:
    """Refuse to replace a file at the top of the folder that no run has put there."""
    given = tuple(p for p in map(named, (run.recipe.model,)) if isinstance(p, Path))
    for stage in stages_of(run.recipe):
        if stage in (*TRAINING, "export", "quantize"):
            target = _target(run, stage)
            ours = target.is_file() and is_published(run.folder, stage, target, run.contents)
            check_output(target, force=force or ours, inputs=given)


def _size(run: Run) -> int:
    made = [path for path in run.made.values() if path is not None]
    return made[-1].stat().st_size if made else 0


def _close(run: Run, verdict: str) -> None:
    """Complete the report, write it, and make the last model the current one."""
    artifacts = [row["artifact"] for row in run.rows if row.get("artifact")]
    last = artifacts[-1] if artifacts else None
    rest = {
        "recipe": run.recipe.name,
        "title": run.recipe.title,
        "folder": str(run.folder),
        "stages": run.rows,
        "gates": run.report.get("gates", []),
        "verdict": verdict,
        "artifact": last,
        "notes": warnings_of(run.reports),
        "host": host_facts(threads=usable_cores(), seed=run.recipe.seed, n=len(run.rows)),
    }
    run.report.update(rest)
    if last and last.endswith(".onnx") and (forgotten := workspace.set_current_model(Path(last))):
        run.report["notes"].append(forgotten)
    write_reports(run.folder, run.report)
