from collections import Counter

import numpy as np
import pytest

from edgecv.evaluate.judge import chance_accuracy, judge
from edgecv.evaluate.looks import pass_level
from edgecv.evaluate.tally import Tally


def count(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Tally:
    tally = Tally(images=len(labels), same=int((before == after).sum()))
    tally.right_before, tally.right_after = int((before == labels).sum()), int((after == labels).sum())
    tally.per_class, tally.decided = Counter(labels.tolist()), Counter(before.tolist())
    kinds = {
        "harmful": (before == labels) & (after != labels),
        "helpful": (before != labels) & (after == labels),
        "other": (before != labels) & (after != labels) & (before != after),
    }
    for kind, where in kinds.items():
        tally.flips.update((kind, label) for label in labels[where].tolist())
    return tally


def of_counts(n: int, right: int, harmful: int, helpful: int, other: int, classes: int = 400) -> Tally:
    """``right`` of ``n`` decisions of the reference are right; classes have equally many images."""
    labels = np.arange(n) % classes
    before, after = labels.copy(), labels.copy()
    before[right:] = after[right:] = (labels[right:] + 1) % classes
    after[:harmful] = (labels[:harmful] + 1) % classes
    after[n - helpful :] = labels[n - helpful :]
    after[n - helpful - other : n - helpful] = (labels[n - helpful - other : n - helpful] + 2) % classes
    return count(labels, before, after)


@pytest.mark.parametrize("right", [0, 1, 3])
def test_a_reference_that_is_never_right_decides_nothing(right: int) -> None:
    judged = judge(of_counts(400, right, 0, 0, 397), 1000, 1.5, labelled=True)
    assert judged.verdict == "undecided"
    assert f"right on {right} of 400" in judged.reason
    assert judge(of_counts(400, right, 0, 0, 0), 1000, 1.5, labelled=True).verdict == "undecided"


def test_good_agreement_with_a_good_reference_passes() -> None:
    judged = judge(of_counts(400, 300, 1, 1, 1), 1000, 2, labelled=True)
    assert (judged.verdict, judged.images_needed) == ("pass", None)
    assert judge(of_counts(10_000, 7_500, 80, 70, 100), 1000, 0.5, labelled=True).verdict == "pass"


def test_a_margin_wider_than_what_guessing_loses_is_undecided_and_says_how_many_images_would_do() -> None:
    judged = judge(of_counts(60, 30, 0, 0, 0, classes=4), 4, 20, labelled=True)  # guessing is right on 25 of 100
    assert judged.verdict == "undecided"
    assert judged.images_needed is not None
    assert judged.images_needed > 60
    assert f"about {judged.images_needed} images" in judged.reason
    more = judged.images_needed // 8 * 8 + 40
    assert judge(of_counts(more, more // 2, 0, 0, 0, classes=4), 4, 20, labelled=True).verdict == "pass"
    assert judge(of_counts(60, 30, 0, 0, 0, classes=4), 4, 60, labelled=True).images_needed is None


def test_a_failure_is_a_failure_whatever_else_is_wrong() -> None:
    assert judge(of_counts(400, 60, 60, 0, 300), 1000, 20, labelled=True).verdict == "undecided"
    assert judge(of_counts(400, 60, 60, 0, 300), 1000, 5, labelled=True).verdict == "fail"


def test_changes_the_labels_do_not_settle_count_against_a_pass() -> None:
    # A tenth of the labels is right; of 25 changes the labels see 2. They alone would pass at 2 points.
    judged = judge(of_counts(400, 40, 2, 0, 23), 1000, 2, labelled=True)
    assert judged.difference is not None
    assert judged.difference.upper < 0.02
    assert judged.verdict == "undecided"
    assert "25 of 400 decisions changed" in judged.reason
    assert judged.images_needed is not None
    assert judged.images_needed > 400
    assert judge(of_counts(400, 40, 2, 0, 0), 1000, 2, labelled=True).verdict == "pass"


def test_chance_is_one_of_the_classes_or_what_shuffled_labels_would_give() -> None:
    assert chance_accuracy(of_counts(400, 300, 0, 0, 0), 1000) == pytest.approx(1 / 400, rel=0.01)
    one_class = np.zeros(50, int)
    assert chance_accuracy(count(one_class, one_class, one_class), 1000) == 1 / 1000
    labels = np.array([0] * 90 + [1] * 10)
    assert chance_accuracy(count(labels, labels, labels), 2) == pytest.approx(0.9 * 0.9 + 0.1 * 0.1)


def test_one_class_of_many_can_be_judged_on() -> None:
    labels = np.full(800, 7)
    assert judge(count(labels, labels, labels), 1000, 1, labelled=True).verdict == "pass"


# 25 in a thousand are expected at the widest margin that guessing just reaches; without the rule nearly all pass.
@pytest.mark.parametrize(("classes", "accuracy", "margin"), [(10, 0.12, 2.0), (10, 0.10, 2.0), (1000, 0.006, 0.5)])
def test_a_candidate_that_guesses_passes_in_at_most_five_percent(classes: int, accuracy: float, margin: float) -> None:
    rng = np.random.default_rng(11)
    passed = 0
    for _ in range(200):
        labels = rng.integers(0, classes, 2_000)
        before = np.where(rng.random(2_000) < accuracy, labels, (labels + 1) % classes)
        after = rng.integers(0, classes, 2_000)
        passed += judge(count(labels, before, after), classes, margin, labelled=True).verdict == "pass"
    assert passed <= 10


def test_shuffled_labels_of_unequal_classes_pass_nothing() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random(4_000) < 0.1).astype(int)
    before, after = rng.permutation(labels), np.zeros_like(labels)  # the candidate lost a class
    judged = judge(count(labels, before, after), 2, 3, labelled=True)
    assert judged.difference is not None
    assert judged.difference.upper < 0.03
    assert judged.verdict == "undecided"


def test_a_pass_at_one_of_several_looks_must_be_surer() -> None:
    counts = of_counts(1000, 800, 22, 14, 10)  # drop 0.8 points, 95 % interval to 2.1, 99.6 % to 2.7
    assert judge(counts, 1000, 2.2, labelled=True).verdict == "pass"
    one_of_seven = judge(counts, 1000, 2.2, labelled=True, pass_level=pass_level(2, 7))
    assert one_of_seven.verdict == "undecided"
    assert "99.6% interval" in one_of_seven.reason
    assert one_of_seven.images_needed is not None
    assert one_of_seven.images_needed > 1000
    assert one_of_seven.difference == judge(counts, 1000, 2.2, labelled=True).difference
    assert judge(counts, 1000, 3, labelled=True, pass_level=pass_level(2, 7)).verdict == "pass"


def test_a_failure_is_no_less_sure_for_several_looks() -> None:
    counts = of_counts(1000, 800, 60, 20, 10)
    limit = 100 * judge(counts, 1000, 1, labelled=True).difference.lower  # type: ignore[union-attr]
    assert judge(counts, 1000, limit - 0.01, labelled=True, pass_level=pass_level(2, 7)).verdict == "fail"
