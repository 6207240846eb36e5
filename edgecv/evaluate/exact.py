"""The exact interval of a paired difference when flips are few: every outcome is counted.

With the notation of :mod:`edgecv.evaluate.statistics`. The limits invert an unconditional test: an assumed
drop ``d`` is rejected when outcomes as extreme as the observed one have a probability below the level for
*every* plausible rate of helpful flips. Outcomes are ordered by Tango's score, probabilities are those of the
trinomial distribution.

Source:
    K. Sidik, Statistics in Medicine 22 (2003) 265-278 (exact unconditional test of paired non-inferiority);
    R. Berger, D. Boos, J. Am. Stat. Assoc. 89 (1994) 1012-1016 (a nuisance parameter limited to its own
    interval, whose error is added to the p-value).
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_NUISANCE_ERROR = 1e-3  # Berger and Boos's own choice
_NUISANCE_POINTS = 21
_TAIL = 9.0  # standard deviations of a count that are summed; the rest is below 1e-12
_STEPS = 16  # halvings of the bracket: 2e-5 of its width, and the conservative end is returned

Floats = npt.NDArray[np.float64]


@lru_cache(maxsize=4096)
def exact_interval(b: int, c: int, n: int, level: float) -> tuple[float, float]:
    """Return the exact interval of ``(b - c) / n``, in -1..1, with ``(1 - level) / 2`` error on each side.

    Args:
        b: Harmful flips.
        c: Helpful flips. ``b + c`` beyond about a hundred is slow: the cost grows with its square.
        n: Images.
        level: Two-sided.

    >>> [round(100 * x, 2) for x in exact_interval(0, 0, 400, 0.95)]
    [-0.94, 0.94]
    """
    error = (1 - level) / 2
    return -_upper_limit(c, b, n, error), _upper_limit(b, c, n, error)


def upper_p_value(drop: float, b: int, c: int, n: int) -> float:
    """Return the p-value of "the true drop is at least ``drop``" against "it is smaller"."""
    low, high = max(0.0, -drop), (1 - drop) / 2
    high = max(low, min(high, binomial_upper(c, n, _NUISANCE_ERROR)))
    helpful = np.linspace(low, high, _NUISANCE_POINTS)
    top_b = _highest_count(n, high + drop)
    top_c = _highest_count(n, high)
    counts_b = np.arange(top_b + 1)[:, None]
    counts_c = np.arange(top_c + 1)[None, :]
    possible = counts_b + counts_c <= n
    scores = _scores(drop, counts_b, counts_c, n)
    extreme = possible & (scores <= scores[min(b, top_b), min(c, top_c)] + 1e-9)
    rows, columns = np.nonzero(extreme)
    log_ways = _log_ways(top_b, top_c, n)[rows, columns]
    tails = [_probability(rows, columns, log_ways, q + drop, q, n) for q in helpful]
    return min(1.0, max(tails) + _NUISANCE_ERROR)


def binomial_upper(count: int, n: int, error: float) -> float:
    """Return Clopper and Pearson's upper limit: at this rate, ``count`` or fewer have probability ``error``."""
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _binomial_tail(count, n, middle) > error:
            low = middle
        else:
            high = middle
    return high


def _upper_limit(b: int, c: int, n: int, error: float) -> float:
    estimate = (b - c) / n
    if b == n:
        return 1.0
    low, high = estimate, binomial_upper(b, n, error / 4)  # the drop is below the rate of harmful flips
    while high < 1 and upper_p_value(high, b, c, n) > error:
        low, high = high, min(1.0, 2 * high - estimate)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if upper_p_value(middle, b, c, n) > error:
            low = middle
        else:
            high = middle
    return high


def _scores(d: float, b: npt.NDArray[np.int_], c: npt.NDArray[np.int_], n: int) -> Floats:
    linear = -b - c + (2 * n - b + c) * d
    rate = (np.sqrt(np.maximum(linear * linear + 8 * n * c * d * (1 - d), 0.0)) - linear) / (4 * n)
    variance = n * (2 * np.maximum(rate, max(0.0, -d)) + d * (1 - d))
    return np.asarray((b - c - n * d) / np.sqrt(np.maximum(variance, 1e-12)))


def _log_ways(top_b: int, top_c: int, n: int) -> Floats:
    """Return log of n! / (b! c! (n - b - c)!) for all counts; impossible ones are -inf."""
    total = min(top_b + top_c, n)
    falling = np.concatenate(([0.0], np.cumsum(np.log(n - np.arange(total)))))
    factorial = np.array([math.lgamma(k + 1) for k in range(max(top_b, top_c) + 1)])
    both = np.arange(top_b + 1)[:, None] + np.arange(top_c + 1)[None, :]
    ways = np.where(both <= n, falling[np.minimum(both, total)], -np.inf)
    return np.asarray(ways - factorial[: top_b + 1, None] - factorial[None, : top_c + 1])


def _probability(
    b: npt.NDArray[np.intp], c: npt.NDArray[np.intp], log_ways: Floats, rate_b: float, rate_c: float, n: int
) -> float:
    tiny = 1e-300
    neither = max(1 - rate_b - rate_c, tiny)
    logs = log_ways + b * math.log(max(rate_b, tiny)) + c * math.log(max(rate_c, tiny))
    return float(np.exp(logs + (n - b - c) * math.log(neither)).sum())


def _binomial_tail(count: int, n: int, rate: float) -> float:
    logs = (
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(rate)
        + (n - k) * math.log1p(-rate)
        for k in range(count + 1)
    )
    return math.fsum(math.exp(x) for x in logs)


def _highest_count(n: int, rate: float) -> int:
    mean = n * min(max(rate, 0.0), 1.0)
    return min(n, math.ceil(mean + _TAIL * math.sqrt(mean) + _TAIL))
