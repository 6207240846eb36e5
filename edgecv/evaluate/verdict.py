"""The report of a parity check: from counts to a verdict and the sentence that explains it."""

from dataclasses import asdict, dataclass
from typing import Any

from edgecv.data.dataset import Dataset
from edgecv.evaluate.classifier import Classifier
from edgecv.evaluate.distinct import Leak
from edgecv.evaluate.judge import judge
from edgecv.evaluate.statistics import LEVEL, Difference, wilson_interval
from edgecv.evaluate.tally import MAX_FLIPS, Tally

DEFAULT_MAX_DROP_POINTS = 0.5


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What came out of comparing a candidate with its reference; :meth:`as_json` has the same names.

    Attributes:
        verdict: ``pass`` (the drop is at most ``max_drop_points`` with the interval's certainty, and the images could
            have shown a larger one: :mod:`edgecv.evaluate.judge`), ``fail`` (it is more), or ``undecided``.
        reason: One sentence why.
        n: Images compared, copies counted once.
        agreement: Share of equal decisions, 0..1.
        agreement_interval: Wilson's 95 % interval of it.
        max_drop_points: The margin in percentage points.
        default_margin: Nobody gave a margin, :data:`DEFAULT_MAX_DROP_POINTS` was used.
        drop_points: ``(harmful - helpful) / n`` in percentage points; None without labels.
        drop_interval: Its two-sided 95 % interval in points; None without labels.
        interval_method: ``tango`` or ``exact`` (few flips); empty without labels.
        pass_level: Level of the interval that a PASS needs: above 0.95 where these images are looked at more than once.
        mcnemar_p: Exact p-value of "no difference"; None without labels.
        harmful: Right before, wrong now.
        helpful: Wrong before, right now.
        changed: Decisions that changed, whatever the label.
        images_needed: How many images would decide at the observed rates; None when decided, or when more images
            like these would not decide.
        top1: Accuracies ``{"reference", "candidate"}``, 0..1; None without labels.
        chance: Accuracy of decisions that have nothing to do with the labels, 0..1; None without labels.
        kl_mean: Mean Kullback-Leibler divergence of the candidate's probabilities from the reference's, in nats; None
            when no image has finite outputs of both.
        sqnr_db: Signal to noise of the raw outputs in dB; None when they are equal, or none is finite.
        max_abs_diff: Largest difference of a raw output, in its own unit; None when no image has finite ones.
        max_abs_diff_image: Where.
        worst_class: The class that lost most images, ``{"label", "harmful", "helpful", "n"}``; None when none did.
        flips: Changed decisions, at most :data:`MAX_FLIPS`, harmful first: ``{"image", "from", "to", "kind"}``.
        not_finite: Images on which a model answered NaN or infinity: ``{"reference", "candidate"}``.
        leak: Calibration images among those judged on, ``{"count", "first"}``; None when there are none.
        reference: ``{"file", "sha256", "providers"}``.
        candidate: The same.
        notes: What else a reader should know.
        host: Versions, machine, threads, n, seed.
    """

    verdict: str
    reason: str
    n: int
    agreement: float
    agreement_interval: tuple[float, float]
    max_drop_points: float
    default_margin: bool
    drop_points: float | None
    drop_interval: tuple[float, float] | None
    interval_method: str
    pass_level: float
    mcnemar_p: float | None
    harmful: int
    helpful: int
    changed: int
    images_needed: int | None
    top1: dict[str, float] | None
    chance: float | None
    kl_mean: float | None
    sqnr_db: float | None
    max_abs_diff: float | None
    max_abs_diff_image: str
    worst_class: dict[str, Any] | None
    flips: list[dict[str, str]]
    not_finite: dict[str, int]
    leak: dict[str, Any] | None
    reference: dict[str, Any]
    candidate: dict[str, Any]
    notes: list[str]
    host: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self)


def build_report(
    tally: Tally,
    models: tuple[Classifier, Classifier],
    named: Classifier,
    dataset: Dataset,
    *,
    max_drop: float | None,
    leak: Leak | None,
    notes: list[str],
    host: dict[str, Any],
    pass_level: float = LEVEL,
) -> ParityReport:
    """Judge a finished tally.

    Args:
        tally: Of all images.
        models: Reference and candidate.
        named: The one of them whose labels name the classes.
        dataset: What the tally's indices point into.
        max_drop: The margin in points; :data:`DEFAULT_MAX_DROP_POINTS` when None.
        leak: From :func:`edgecv.evaluate.distinct.check_leak`.
        notes: Sentences for the reader.
        host: Versions, machine, threads, n, seed.
        pass_level: See :func:`edgecv.evaluate.judge.judge`.
    """
    margin = DEFAULT_MAX_DROP_POINTS if max_drop is None else max_drop
    n, labelled = tally.images, dataset.labelled
    judged = judge(tally, named.classes, margin, labelled=labelled, pass_level=pass_level)
    difference = judged.difference
    return ParityReport(
        verdict=judged.verdict,
        reason=judged.reason,
        n=n,
        agreement=tally.same / n,
        agreement_interval=wilson_interval(tally.same, n),
        max_drop_points=margin,
        default_margin=max_drop is None,
        drop_points=100 * difference.drop if difference else None,
        drop_interval=_points(difference) if difference else None,
        interval_method=difference.method if difference else "",
        pass_level=pass_level,
        mcnemar_p=difference.p_value if difference else None,
        harmful=tally.harmful,
        helpful=tally.helpful,
        changed=n - tally.same,
        images_needed=judged.images_needed,
        top1={"reference": tally.right_before / n, "candidate": tally.right_after / n} if labelled else None,
        chance=judged.chance,
        kl_mean=tally.kl_sum / tally.finite if tally.finite else None,
        sqnr_db=tally.sqnr_db,
        max_abs_diff=tally.max_abs_diff if tally.finite else None,
        max_abs_diff_image=_image(dataset, tally.max_abs_diff_index),
        worst_class=_worst_class(tally, named),
        flips=_flips(tally, named, dataset),
        not_finite={"reference": tally.not_finite_reference, "candidate": tally.not_finite_candidate},
        leak={"count": leak.count, "first": leak.first} if leak else None,
        reference=_model(models[0]),
        candidate=_model(models[1]),
        notes=notes,
        host=host,
    )


def _points(difference: Difference) -> tuple[float, float]:
    return 100 * difference.lower, 100 * difference.upper


def _model(model: Classifier) -> dict[str, Any]:
    return {"file": str(model.path), "sha256": model.sha256, "providers": list(model.session.providers)}


def _worst_class(tally: Tally, named: Classifier) -> dict[str, Any] | None:
    worst = tally.worst_class()
    if worst is None:
        return None
    label, harmful, helpful = worst
    return {"label": _label(named, label), "harmful": harmful, "helpful": helpful, "n": tally.per_class[label]}


def _flips(tally: Tally, named: Classifier, dataset: Dataset) -> list[dict[str, str]]:
    flips = [flip for kind in ("harmful", "other", "helpful") for flip in tally.shown[kind]][:MAX_FLIPS]
    return [
        {
            "image": _image(dataset, flip.index),
            "from": _label(named, flip.before),
            "to": _label(named, flip.after),
            "kind": flip.kind,
        }
        for flip in flips
    ]


def _label(named: Classifier, index: int) -> str:
    if index < 0:
        return "not finite"
    labels = named.manifest.output.labels
    return labels[index] if index < len(labels) else str(index)


def _image(dataset: Dataset, index: int) -> str:
    return str(dataset.samples[index][0].relative_to(dataset.root)) if index >= 0 else ""
