"""The stages of a recipe that learn: train, distill, prune, factorize."""

from pathlib import Path
from typing import Any

from edgecv.errors import UsageError
from edgecv.pipeline.recipe_stages import Job


def run_train(job: Job) -> dict[str, Any]:
    """Train the recipe's model."""
    from edgecv.pipeline.train import TrainRequest, train_model

    stage, recipe = job.recipe.train, job.recipe
    assert stage is not None
    request = TrainRequest(
        model=str(job.inputs["model"]),
        data=_data(job),
        settings=stage.settings,
        eval_data=job.images.chooses,
        hold_out=recipe.hold_out,
        output=job.folder,
        weights=Path(stage.weights) if stage.weights else None,
        pretrained=stage.pretrained,
        init_from=Path(stage.init_from) if stage.init_from else None,
        resume=job.resume,
        seed=recipe.seed,
    )
    return _led(train_model(request, job.progress, job.tell))


def run_distill(job: Job) -> dict[str, Any]:
    """Train the student to answer as its teacher does."""
    from edgecv.pipeline.distill import DistillRequest, distill_model
    from edgecv.pipeline.train import TrainRequest

    stage, recipe = job.recipe.distill, job.recipe
    assert stage is not None
    student = TrainRequest(
        model=str(job.inputs["student"]),
        data=_data(job),
        settings=stage.settings,
        eval_data=job.images.chooses,
        hold_out=recipe.hold_out,
        output=job.folder,
        weights=Path(stage.weights) if stage.weights else None,
        pretrained=stage.pretrained,
        resume=job.resume,
        seed=recipe.seed,
    )
    request = DistillRequest(
        train=student,
        teacher=str(job.inputs["teacher"]),
        teacher_weights=Path(stage.teacher_weights) if stage.teacher_weights else None,
        distillation=stage.distillation,
        like=stage.like,
        macs=stage.macs,
    )
    return _led(distill_model(request, job.progress, job.tell))


def run_prune(job: Job) -> dict[str, Any]:
    """Prune what the stage before made; heal it where there is data."""
    from edgecv.pipeline.prune import PruneRequest, prune_model

    stage, recipe = job.recipe.prune, job.recipe
    assert stage is not None
    request = PruneRequest(
        model=str(job.inputs["model"]),
        settings=stage.pruning,
        training=stage.settings,
        data=job.images.data,
        eval_data=job.images.chooses if recipe.data else None,
        hold_out=recipe.hold_out,
        output=job.folder,
        weights=Path(stage.weights) if stage.weights else None,
        bench=stage.bench,
        resume=job.resume,
        seed=recipe.seed,
    )
    return prune_model(request, job.progress, job.tell)


def run_factorize(job: Job) -> dict[str, Any]:
    """Factorize what the stage before made; heal it where there is data."""
    from edgecv.pipeline.factorize import FactorizeRequest, factorize_model

    stage, recipe = job.recipe.factorize, job.recipe
    assert stage is not None
    request = FactorizeRequest(
        model=str(job.inputs["model"]),
        settings=stage.factorization,
        training=stage.settings,
        data=job.images.data,
        eval_data=job.images.chooses if recipe.data else None,
        hold_out=recipe.hold_out,
        output=job.folder,
        weights=Path(stage.weights) if stage.weights else None,
        bench=stage.bench,
        resume=job.resume,
        seed=recipe.seed,
    )
    return factorize_model(request, job.progress, job.tell)


def _data(job: Job) -> Path:
    data = job.images.data
    assert data is not None  # images_of has seen to it
    return data


def _led(report: dict[str, Any] | None) -> dict[str, Any]:
    if report is None:
        raise UsageError("a recipe runs in one process; start its training stage with torchrun -m edgecv train.")
    return report
