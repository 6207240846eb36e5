"""Accuracy on labelled images, with the interval its number of images allows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecv.data.dataset import Dataset, unreadable_notes
from edgecv.errors import UsageError
from edgecv.evaluate.classifier import Classifier, Scores, iter_for_models, open_classifiers, open_labelled
from edgecv.evaluate.distinct import Leak, check_leak, find_distinct
from edgecv.evaluate.statistics import wilson_interval
from edgecv.evaluate.tta import average_probabilities, check_views, reader
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts

ECE_BINS = 15
"""Of confidence 0..1, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017."""


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """How well one model classifies a labelled data set.

    Attributes:
        file: The model.
        sha256: Of its bytes.
        n: Images, copies counted once.
        top: Accuracy by k: ``{"1": {"accuracy", "interval"}, …}``, 0..1, with Wilson's 95 % interval.
        expected_calibration_error: Mean distance of confidence from accuracy over :data:`ECE_BINS` bins, 0..1.
        per_class: ``{"label", "n", "correct", "accuracy", "interval"}`` of each class that has images, worst first.
        partial: Some of the model's classes have no image here; decisions are among all classes nevertheless.
        not_finite: Images answered with NaN or infinity; they count as wrong.
        tta: Views averaged, see :mod:`edgecv.evaluate.tta`.
        leak: Calibration images among the data, ``{"count", "first"}``; None when there are none.
        providers: What ran it.
        notes: What else a reader should know.
        host: Versions, machine, threads, n, seed.
    """

    file: str
    sha256: str
    n: int
    top: dict[str, dict[str, Any]]
    expected_calibration_error: float
    per_class: list[dict[str, Any]]
    partial: bool
    not_finite: int
    tta: str
    leak: dict[str, Any] | None
    providers: list[str]
    notes: list[str]
    host: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self)


class _Counts:
    """Running counts of one model."""

    def __init__(self, classes: int, top: Sequence[int]) -> None:
        self.hits = dict.fromkeys(top, 0)
        self.images = np.zeros(classes, np.int64)
        self.correct = np.zeros(classes, np.int64)
        self.bins = np.zeros((3, ECE_BINS))  # images, right ones, sum of confidences
        self.not_finite = 0

    def add(self, probabilities: Scores, labels: npt.NDArray[np.int64]) -> None:
        finite = np.isfinite(probabilities).all(axis=1)
        self.not_finite += int((~finite).sum())
        np.add.at(self.images, labels, 1)
        probabilities, labels = probabilities[finite], labels[finite]
        order = np.argsort(-probabilities, axis=1, kind="stable")
        for k in self.hits:
            self.hits[k] += int((order[:, :k] == labels[:, None]).any(axis=1).sum())
        right = order[:, 0] == labels
        np.add.at(self.correct, labels, right)
        confidence = np.take_along_axis(probabilities, order[:, :1], axis=1)[:, 0]
        place = np.clip((confidence * ECE_BINS).astype(int), 0, ECE_BINS - 1)
        for row, values in zip(self.bins, (np.ones_like(confidence), right, confidence), strict=True):
            np.add.at(row, place, values)

    def calibration_error(self) -> float:
        total = self.bins[0].sum()
        return float(np.abs(self.bins[1] - self.bins[2]).sum() / total) if total else 0.0


def evaluate_models(
    models: Sequence[Path],
    data: Path | Dataset,
    *,
    top: Sequence[int] = (1, 5),
    tta: str = "none",
    provider: str = "cpu",
    threads: int | str = "auto",
    batch_size: int = 8,
    limit: int | None = None,
    allow_leak: bool = False,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[AccuracyReport]:
    """Return the accuracy of each model, all judged in one pass over the images.

    Args:
        models: ONNX files with manifests; classes may differ, each has its own labels matched by name.
        data: Labelled images.
        top: The k of each top-k accuracy; those of as many classes as there are or more are left out.
        tta: ``none``, ``flip`` or ``fivecrop``.
        provider: For all models.
        threads: Intra-op threads of each.
        batch_size: Images a run (times the views of ``tta``).
        limit: Use this many images, evenly spaced.
        allow_leak: Judge on calibration images nevertheless; the reports say so.
        seed: Recorded; nothing here is random.
        progress: Told after each batch.

    Raises:
        UsageError: Images without labels, classes a model does not know, broken images, calibration images among
            the data.
        EnvironmentRefusedError: The provider does not start.
    """
    check_views(tta)
    opened = open_classifiers(models, provider, threads)
    datasets = [_labelled(data, model).limited(limit) for model in opened]
    distinct = find_distinct(datasets[0], progress)
    leaks = [check_leak(datasets[0], distinct, [m.manifest], allow=allow_leak) for m in opened]
    notes = [*unreadable_notes(datasets[0]), *distinct.notes()]
    datasets = [dataset.subset(distinct.positions) for dataset in datasets]
    labels = [np.array([label for _, label in d.samples], np.int64) for d in datasets]
    counts = [_Counts(model.classes, [k for k in top if k < model.classes] or [1]) for model in opened]
    for batches in iter_for_models(datasets[0], opened, batch_size, read=reader(tta), progress=progress):
        for model, count, batch, truth in zip(opened, counts, batches, labels, strict=True):
            count.add(average_probabilities(model, batch.images, tta), truth[batch.indices])
    return [
        _report(model, count, dataset, tta, leak, seed, notes)
        for model, count, dataset, leak in zip(opened, counts, datasets, leaks, strict=True)
    ]


def _labelled(data: Path | Dataset, model: Classifier) -> Dataset:
    if not model.classes:
        raise UsageError(f"model '{model.path}' does not say how many classes it has; export it again with labels.")
    dataset = open_labelled(data, model)
    if not dataset.labelled:
        raise UsageError(
            f"the images in '{dataset.root}' have no labels, and accuracy needs them; put them into class folders or "
            "name a CSV with path,label (agreement of two models needs none: edgecv verify)."
        )
    return dataset


def _report(
    model: Classifier,
    counts: _Counts,
    dataset: Dataset,
    tta: str,
    leak: Leak | None,
    seed: int,
    notes: Sequence[str],
) -> AccuracyReport:
    n = int(counts.images.sum())
    return AccuracyReport(
        file=str(model.path),
        sha256=model.sha256,
        n=n,
        top={str(k): {"accuracy": hits / n, "interval": wilson_interval(hits, n)} for k, hits in counts.hits.items()},
        expected_calibration_error=counts.calibration_error(),
        per_class=_per_class(model, counts),
        partial=dataset.partial,
        not_finite=counts.not_finite,
        tta=tta,
        leak={"count": leak.count, "first": leak.first} if leak else None,
        providers=list(model.session.providers),
        notes=[*notes, *model.session.notes],
        host=host_facts(threads=model.session.threads, n=n, seed=seed),
    )


def _per_class(model: Classifier, counts: _Counts) -> list[dict[str, Any]]:
    labels = model.manifest.output.labels
    rows = [
        {
            "label": labels[i] if labels else str(i),
            "n": int(counts.images[i]),
            "correct": int(counts.correct[i]),
            "accuracy": float(counts.correct[i] / counts.images[i]),
            "interval": wilson_interval(int(counts.correct[i]), int(counts.images[i])),
        }
        for i in np.flatnonzero(counts.images).tolist()
    ]
    return sorted(rows, key=lambda row: row["accuracy"])
