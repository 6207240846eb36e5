import numpy as np
import pytest
from scipy.stats import binom, t

from edgecv.benchmark import statistics


@pytest.mark.parametrize(("percentile", "count"), [(50, 11), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_minimum_count_is_the_smallest_that_bounds_the_percentile(percentile: float, count: int) -> None:
    assert statistics.min_samples(percentile) == count
    beyond = 1 - percentile / 100
    assert binom.cdf(1, count, beyond) <= 0.01 < binom.cdf(1, count - 1, beyond)


@pytest.mark.parametrize(
    ("n", "expected"), [(10, []), (63, [50]), (64, [50, 90]), (661, [50, 90, 95]), (662, [50, 90, 95, 99])]
)
def test_only_supported_percentiles_are_given(n: int, expected: list[float]) -> None:
    found = statistics.supported_percentiles(np.arange(n, dtype=float))
    assert list(found) == expected
    assert all(v in range(n) for v in found.values())


def test_percentiles_are_observed_samples() -> None:
    assert statistics.supported_percentiles(np.r_[np.full(90, 1.0), np.full(10, 9.0)])[90.0] == 1.0
    assert statistics.supported_percentiles(np.r_[np.full(89, 1.0), np.full(11, 9.0)])[90.0] == 9.0


@pytest.mark.parametrize("freedom", [3, 4, 6.5, 20])
def test_student_quantile_matches_scipy(freedom: float) -> None:
    assert statistics._student_t(0.95, freedom) == pytest.approx(t.ppf(0.975, freedom), rel=2e-3)


def test_too_few_rounds_give_no_interval() -> None:
    few = np.ones(statistics.MIN_TURNS - 1)
    assert statistics.paired_ratio(few, few, seed=0) is None
    assert statistics.unpaired_ratio(few, np.ones(100), seed=0) is None
    assert statistics.median_interval([few] * len(few), seed=0) is None


def test_unequal_rounds_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="20 and 21 rounds"):
        statistics.paired_ratio(np.ones(20), np.ones(21), seed=0)


def test_drift_of_the_machine_cancels_in_a_paired_ratio() -> None:
    rng = np.random.default_rng(0)
    machine = np.linspace(1.0, 2.0, 40)  # twice as slow at the end
    reference = 10 * machine * rng.normal(1, 0.005, 40)
    candidate = 8 * machine * rng.normal(1, 0.005, 40)
    paired = statistics.paired_ratio(reference, candidate, seed=0)
    unpaired = statistics.unpaired_ratio(reference, candidate, seed=0)
    assert paired is not None
    assert unpaired is not None
    assert paired.estimate == pytest.approx(1.25, rel=0.01)
    assert paired.low < 1.25 < paired.high
    assert paired.relative_width < 0.02 < unpaired.relative_width


def test_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(size=30), rng.lognormal(size=30)
    assert statistics.paired_ratio(a, b, seed=3) == statistics.paired_ratio(a, b, seed=3)
    assert statistics.paired_ratio(a, b, seed=3) != statistics.paired_ratio(a, b, seed=4)


@pytest.mark.parametrize("rounds", [20, 60])
@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_equal_candidates_are_called_different_in_about_one_of_twenty_tries(rounds: int, correlation: float) -> None:
    rng = np.random.default_rng(7)
    tries, wrong = 150, 0
    for i in range(tries):
        noise = 0.02 * rng.standard_t(3, rounds)  # heavy tails, as other work makes them
        for k in range(1, rounds):
            noise[k] += correlation * noise[k - 1]
        ratio = statistics.paired_ratio(np.exp(noise), np.ones(rounds), seed=i)
        assert ratio is not None
        wrong += ratio.excludes(1.0)
    # 5 % intended, up to 6.3 % in long simulations; 8 % leaves room for 150 tries, plain percentiles give 13-20 %.
    assert wrong <= 0.08 * tries + 4


def test_median_interval_holds_the_median_of_all_samples() -> None:
    rng = np.random.default_rng(2)
    turns = [rng.lognormal(1, 0.05, rng.integers(3, 90)) for _ in range(40)]
    interval = statistics.median_interval(turns, seed=0)
    assert interval is not None
    assert interval.estimate == pytest.approx(np.median(np.concatenate(turns)))
    assert interval.low < interval.estimate < interval.high
    assert interval.low < np.e < interval.high


def test_interval_margin_is_symmetric_in_the_ratio() -> None:
    assert not statistics.Interval(1.03, 1.01, 1.05).excludes(1.0, 0.02)
    assert statistics.Interval(1.05, 1.03, 1.07).excludes(1.0, 0.02)
    assert statistics.Interval(1 / 1.05, 1 / 1.07, 1 / 1.03).excludes(1.0, 0.02)


def test_warm_up_that_still_falls_is_not_steady() -> None:
    assert not statistics.is_steady([3.0, 2.5, 2.2])
    assert not statistics.is_steady([1.0, 1.0])
    assert statistics.is_steady([9.0, 1.0, 1.04, 1.02])


def test_clear_trend_is_reported_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    assert statistics.drift(np.linspace(1.0, 1.3, 60) * rng.normal(1, 0.01, 60)) == pytest.approx(0.2, abs=0.05)
    assert statistics.drift(rng.normal(1, 0.05, 60)) == 0.0
    assert statistics.drift(np.array([1.0, 2.0, 3.0])) == 0.0
