"""Probabilities and the best classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgecv.runtime.postprocess import are_probabilities, softmax, top_k, top_probabilities


def test_softmax_of_known_values() -> None:
    np.testing.assert_allclose(softmax(np.log([1.0, 2.0, 5.0])), [0.125, 0.25, 0.625])


def test_softmax_neither_overflows_nor_loses_the_winner() -> None:
    np.testing.assert_array_equal(softmax(np.array([-1e30, 1e30], np.float32)), [0, 1])


def test_softmax_of_a_batch_is_each_row_by_itself() -> None:
    batch = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    np.testing.assert_array_equal(softmax(batch)[2], softmax(batch[2]))


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-500, 500, width=32)))
def test_softmax_sums_to_one(logits: np.ndarray) -> None:
    assert abs(softmax(logits).sum() - 1) < 1e-12


@given(arrays(np.float32, st.integers(1, 200), elements=st.integers(-5, 5).map(float)), st.integers(1, 10))
def test_best_classes_are_the_head_of_a_stable_sort(scores: np.ndarray, k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert top_k(scores, k).tolist() == expected
    found = top_probabilities(scores, k)
    assert [i for i, _ in found] == expected
    np.testing.assert_allclose([p for _, p in found], softmax(scores)[expected], rtol=1e-5)


def test_probabilities_are_handed_on_and_left_unchanged() -> None:
    scores = np.array([0.25, 0.5, 0.25], np.float32)
    assert top_probabilities(scores, 5, logits=False) == [(1, 0.5), (0, 0.25), (2, 0.25)]
    assert scores.tolist() == [0.25, 0.5, 0.25]


@pytest.mark.parametrize("logits", [True, False])
def test_nan_score_gives_nan(logits: bool) -> None:
    assert np.isnan(top_probabilities(np.array([1, np.nan, 2], np.float32), 2, logits=logits)[0][1])


def test_half_precision_scores_do_not_overflow_the_sum() -> None:
    assert top_probabilities(np.zeros(1000, np.float16), 1) == [(0, pytest.approx(0.001))]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.25, 0.75], True),
        ([0.26, 0.76], True),  # rounded to 8 bits
        ([0.5, 0.6], False),
        ([0.2, 0.2], False),
        ([-0.5, 1.5], False),
        ([np.nan, 1.0], False),
        ([np.inf, 0.0], False),
    ],
)
def test_probabilities_are_told_from_other_scores(row: list[float], expected: bool) -> None:
    assert are_probabilities(np.array([[0.5, 0.5], row], np.float16)) is expected
