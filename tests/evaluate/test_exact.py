import pytest
from scipy.stats import beta, multinomial

from edgecv.evaluate.exact import binomial_upper, exact_interval, upper_p_value
from edgecv.evaluate.statistics import tango_score


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 400), (3, 50), (20, 21), (5, 100_000)])
def test_binomial_upper_is_the_clopper_pearson_limit(count: int, n: int) -> None:
    assert binomial_upper(count, n, 0.025) == pytest.approx(beta.ppf(0.975, count + 1, n - count), rel=1e-6)


def test_p_value_equals_a_plain_enumeration_of_every_outcome() -> None:
    b, c, n, drop = 2, 1, 12, 0.3
    observed = tango_score(drop, b, c, n)
    worst = 0.0
    for step in range(21):
        helpful = binomial_upper(c, n, 1e-3) * step / 20
        helpful = min(helpful, (1 - drop) / 2 * step / 20)
        table = multinomial(n, [helpful + drop, helpful, 1 - drop - 2 * helpful])
        tail = sum(
            table.pmf([x, y, n - x - y])
            for x in range(n + 1)
            for y in range(n + 1 - x)
            if tango_score(drop, x, y, n) <= observed + 1e-9
        )
        worst = max(worst, tail)
    assert upper_p_value(drop, b, c, n) == pytest.approx(worst + 1e-3, abs=1e-9)


@pytest.mark.parametrize(("n", "harmful", "helpful"), [(30, 0.05, 0.0), (60, 0.03, 0.02)])
def test_each_limit_misses_the_truth_in_at_most_two_and_a_half_percent(n: int, harmful: float, helpful: float) -> None:
    table = multinomial(n, [harmful, helpful, 1 - harmful - helpful])
    above = below = 0.0
    for b in range(12):
        for c in range(12):
            lower, upper = exact_interval(b, c, n, 0.95)
            share = table.pmf([b, c, n - b - c])
            below += share * (upper < harmful - helpful)
            above += share * (lower > harmful - helpful)
    assert below <= 0.025
    assert above <= 0.025


def test_limits_shrink_with_more_images() -> None:
    widths = [exact_interval(1, 1, n, 0.95)[1] for n in (10, 100, 1000, 10_000)]
    assert widths == sorted(widths, reverse=True)
