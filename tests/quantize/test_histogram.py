import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.quantize.affine import Range, affine_of, round_through
from edgecv.quantize.histogram import BINS, Histogram, min_max_range, mse_range, percentile_range


def filled(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def same(a: Histogram, b: Histogram) -> bool:
    return (
        a.width == b.width and (a.minimum, a.maximum) == (b.minimum, b.maximum) and bool((a.counts == b.counts).all())
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.floats(-30, 30), st.floats(0, 6))
def test_any_order_and_any_cut_into_batches_gives_the_same_histogram(
    seed: int, cuts: int, shift: float, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(3001) * 10**spread + shift).astype(np.float32)
    whole = filled(values)
    parts = np.array_split(rng.permutation(values), cuts)
    assert same(whole, filled(*parts))


def test_every_value_is_counted_in_the_bin_it_lies_in() -> None:
    values = np.random.default_rng(0).standard_normal((7, 5, 11)).astype(np.float32)
    histogram = filled(values[:2], values[2:])  # the last batch is ragged
    edges = np.floor(values.min() / histogram.width) + np.arange(BINS + 1)
    expected, _ = np.histogram(values.astype(np.float64), edges * histogram.width)
    assert (histogram.counts == expected).all()
    assert histogram.counts.sum() == values.size


def test_at_least_half_the_bins_span_the_values() -> None:
    values = np.random.default_rng(0).uniform(-3, 17, 100_000).astype(np.float32)
    centres, _ = filled(values).filled()
    assert len(centres) >= BINS // 2 - 1


def test_growing_a_thousandfold_keeps_the_memory() -> None:
    histogram = Histogram()
    for exponent in range(30):
        histogram.add(np.float32([-(2.0**exponent), 2.0**exponent]))
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.sum() == 60


@pytest.mark.parametrize("values", [[6.0], [0.0], [-1e-30], [3e38], [-3e38, 3e38], [1e-45]])
def test_extreme_and_single_values_are_held(values: list[float]) -> None:
    histogram = filled(np.float32(values))
    assert histogram.counts.sum() == len(values)
    assert min_max_range(histogram) == Range(float(np.float32(min(values))), float(np.float32(max(values))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        filled(np.float32([0.0, bad]))


def test_percentile_is_numpys_to_one_bin() -> None:
    values = np.random.default_rng(3).standard_normal(200_000).astype(np.float32) * 5
    histogram = filled(values)
    found = percentile_range(histogram, 99.0)
    low, high = np.percentile(values, [0.5, 99.5])
    assert abs(found.low - low) <= histogram.width
    assert abs(found.high - high) <= histogram.width


def test_percentile_leaves_out_a_lone_outlier() -> None:
    values = np.append(np.random.default_rng(0).uniform(-1, 1, 100_000), 500.0).astype(np.float32)
    assert percentile_range(filled(values)).high < 1.2


def test_mse_range_is_near_the_best_found_by_exhaustive_search() -> None:
    values = np.append(np.random.default_rng(1).standard_normal(50_000), [40.0, -30.0]).astype(np.float32)

    def error(span: Range) -> float:
        return float(np.square(round_through(values, affine_of(span)) - values).mean())

    exhaustive = min(
        error(Range(float(values.min() * a), float(values.max() * b)))
        for a in np.linspace(0.05, 1, 60)
        for b in np.linspace(0.05, 1, 60)
    )
    found = mse_range(filled(values))
    assert error(found) <= 1.05 * exhaustive
    assert error(found) < 0.95 * error(min_max_range(filled(values)))


def test_mse_range_of_relu_output_keeps_zero_as_its_lower_end() -> None:
    values = np.maximum(np.random.default_rng(1).standard_normal(50_000), 0).astype(np.float32)
    assert mse_range(filled(values)).low == 0.0
