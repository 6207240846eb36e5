"""What is counted while two models answer the same images; memory does not grow with their number."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgecv.evaluate.classifier import Classifier, Scores

MAX_FLIPS = 100
"""Changed decisions listed in a report, harmful ones first; the counts are of all."""

WRONG = -2  # the decision of a model that answers NaN or infinity: no class, never right

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Flip:
    """One changed decision: data set position, class before and after, and what it did."""

    index: int
    before: int
    after: int
    kind: str  # harmful, helpful, other


@dataclass(slots=True)
class Tally:
    """Running counts and sums of a comparison; see :meth:`add`."""

    images: int = 0
    same: int = 0
    right_before: int = 0
    right_after: int = 0
    kl_sum: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    max_abs_diff: float = 0.0
    max_abs_diff_index: int = -1
    finite: int = 0
    not_finite_reference: int = 0
    not_finite_candidate: int = 0
    per_class: Counter[int] = field(default_factory=Counter)
    decided: Counter[int] = field(default_factory=Counter)  # by the reference, whatever the label
    flips: Counter[tuple[str, int]] = field(default_factory=Counter)
    shown: dict[str, list[Flip]] = field(default_factory=lambda: {"harmful": [], "helpful": [], "other": []})

    @property
    def harmful(self) -> int:
        """Images that were right and are wrong now."""
        return sum(n for (kind, _), n in self.flips.items() if kind == "harmful")

    @property
    def helpful(self) -> int:
        """Images that were wrong and are right now."""
        return sum(n for (kind, _), n in self.flips.items() if kind == "helpful")

    def add(self, models: tuple[Classifier, Classifier], scores: tuple[Scores, Scores], labels: Ints, at: Ints) -> None:
        """Count one batch.

        Args:
            models: Reference and candidate.
            scores: Their raw outputs, each (N, classes).
            labels: (N,), or -1 for images without a label.
            at: (N,), positions in the data set.
        """
        before, after = decisions(scores[0]), decisions(scores[1])
        self.not_finite_reference += int((before == WRONG).sum())
        self.not_finite_candidate += int((after == WRONG).sum())
        self.images += len(at)
        self.same += int((before == after).sum())
        self._add_numbers(models, scores, at, (before != WRONG) & (after != WRONG))
        right_before, right_after = before == labels, after == labels
        self.right_before += int(right_before.sum())
        self.right_after += int(right_after.sum())
        self.per_class.update(labels.tolist())
        self.decided.update(before.tolist())
        for i in np.flatnonzero(before != after).tolist():
            kind = "harmful" if right_before[i] else "helpful" if right_after[i] else "other"
            self.flips[kind, int(labels[i])] += 1
            if len(self.shown[kind]) < MAX_FLIPS:
                self.shown[kind].append(Flip(int(at[i]), int(before[i]), int(after[i]), kind))

    def _add_numbers(
        self,
        models: tuple[Classifier, Classifier],
        scores: tuple[Scores, Scores],
        at: Ints,
        finite: npt.NDArray[np.bool_],
    ) -> None:
        self.finite += int(finite.sum())
        if not finite.any():
            return
        reference, candidate = scores[0][finite], scores[1][finite]
        logs = models[0].log_probabilities(reference), models[1].log_probabilities(candidate)
        self.kl_sum += float((np.exp(logs[0]) * (logs[0] - logs[1])).sum())
        if models[0].manifest.output.kind != models[1].manifest.output.kind:
            reference, candidate = np.exp(logs[0]), np.exp(logs[1])
        difference = np.abs(candidate - reference)
        self.signal += float((reference**2).sum())
        self.noise += float((difference**2).sum())
        worst = int(difference.max(axis=1).argmax())
        if difference[worst].max() > self.max_abs_diff:
            self.max_abs_diff = float(difference[worst].max())
            self.max_abs_diff_index = int(at[finite][worst])

    @property
    def sqnr_db(self) -> float | None:
        """``10 log10(sum reference^2 / sum difference^2)`` in dB; None when nothing differs or nothing was counted."""
        if not self.noise or not self.signal:
            return None
        return 10 * math.log10(self.signal / self.noise)

    def worst_class(self) -> tuple[int, int, int] | None:
        """Return ``(label index, harmful, helpful)`` of the class that lost most images; None when none lost any."""
        lost = {c: n - self.flips["helpful", c] for (kind, c), n in self.flips.items() if kind == "harmful"}
        if not lost:
            return None
        worst = max(lost, key=lambda c: (lost[c], lost[c] / self.per_class[c], -c))
        return worst, self.flips["harmful", worst], self.flips["helpful", worst]


def decisions(scores: Scores) -> Ints:
    """Return the best class of each row, or :data:`WRONG` where a score is NaN or infinite."""
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), WRONG)
