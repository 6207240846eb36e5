"""Parity: may this model take the place of that one? A verdict with its uncertainty, on the same images."""

from pathlib import Path

from edgecv.data.dataset import Dataset
from edgecv.errors import UsageError
from edgecv.evaluate.classifier import Classifier, iter_for_models, open_classifiers, open_for_model
from edgecv.evaluate.distinct import check_leak, find_distinct
from edgecv.evaluate.statistics import LEVEL, check_margin
from edgecv.evaluate.tally import Tally
from edgecv.evaluate.verdict import ParityReport, build_report
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts


def verify_models(
    reference: Path,
    candidate: Path,
    data: Path | Dataset,
    *,
    max_drop: float | None = None,
    provider: str = "cpu",
    threads: int | str = "auto",
    batch_size: int = 8,
    limit: int | None = None,
    allow_leak: bool = False,
    pass_level: float = LEVEL,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ParityReport:
    """Run both models on the same images and judge the candidate against the reference.

    Each model gets the preprocessing of its own manifest. Images are streamed: memory holds a hash of each, no more.
    Copies (equal bytes) are judged once, so that ``n`` counts pictures.

    Args:
        reference: ONNX file, taken as the truth.
        candidate: ONNX file; one of the two may lack a manifest and then gets the other's preprocessing.
        data: Images; a path is opened with the reference's labels.
        max_drop: The largest acceptable drop of top-1 accuracy, in percentage points; None takes
            :data:`~edgecv.evaluate.verdict.DEFAULT_MAX_DROP_POINTS`, and the report says so.
        provider: For both models.
        threads: Intra-op threads of each.
        batch_size: Images a run.
        limit: Use this many images, evenly spaced over the data.
        allow_leak: Judge on calibration images nevertheless; the report says so.
        pass_level: See :func:`edgecv.evaluate.judge.judge`.
        seed: Recorded; nothing here is random.
        progress: Told after each batch.

    Raises:
        UsageError: Neither model has a manifest, or they do not fit each other; different classes, broken images,
            unknown class folders, calibration images among the data, or a margin outside 0..100 points.
        EnvironmentRefusedError: The provider does not start.
    """
    if max_drop is not None:
        check_margin(max_drop / 100)
    first, second = open_classifiers([reference, candidate], provider, threads)
    models = first, second
    check_same_classes(*models)
    named = models[0] if models[0].manifest.output.labels else models[1]
    dataset, notes = open_for_model(data, named)
    dataset = dataset.limited(limit)
    distinct = find_distinct(dataset, progress)
    leak = check_leak(dataset, distinct, [m.manifest for m in models], allow=allow_leak)
    dataset = dataset.subset(distinct.positions)
    notes += distinct.notes()
    tally = Tally()
    for batches in iter_for_models(dataset, models, batch_size, progress=progress):
        scores = models[0].scores(batches[0].images), models[1].scores(batches[1].images)
        tally.add(models, scores, batches[0].labels, batches[0].indices)
    for model in models:
        notes += model.session.notes
    if models[0].sha256 == models[1].sha256:
        notes.append("both files have the same bytes: this compares a model with itself")
    facts = host_facts(threads=models[0].session.threads, n=tally.images, seed=seed)
    return build_report(
        tally,
        models,
        named,
        dataset,
        max_drop=max_drop,
        leak=leak,
        notes=notes,
        host=facts,
        pass_level=pass_level,
    )


def check_same_classes(reference: Classifier, candidate: Classifier) -> None:
    """Raise UsageError when two models do not answer the same question."""
    if reference.classes and candidate.classes and reference.classes != candidate.classes:
        raise UsageError(
            f"'{reference.path}' has {reference.classes} classes and '{candidate.path}' {candidate.classes}; only "
            "models of the same classes can be compared."
        )
    ours, theirs = reference.manifest.output.labels, candidate.manifest.output.labels
    if ours and theirs and ours != theirs:
        i = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        raise UsageError(
            f"the models name their classes differently: number {i} is '{ours[i]}' in '{reference.path}' and "
            f"'{theirs[i]}' in '{candidate.path}'; export one of them again with the labels of the other."
        )
