"""Intervals and tests for accuracies and for the paired difference of two models on the same images.

Notation: of ``n`` images, ``b`` were right before and wrong now (harmful flips), ``c`` the other way round
(helpful flips). The drop is ``(b - c) / n``, between -1 and 1. Counts alone decide, so everything here is
plain arithmetic; the exact method for tiny counts is in :mod:`edgecv.evaluate.exact`.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from edgecv.errors import UsageError
from edgecv.evaluate.exact import exact_interval

LEVEL = 0.95
"""Two-sided level of every interval: 2.5 % error on each side, so a PASS is wrong at most that often."""

TINY_COUNT = 20
"""Up to this many flips (b + c) the exact unconditional interval is used, above it Tango's.

Tango's limits rest on a normal approximation. With few flips its lower limit is too high: one harmful flip on
20 images puts it at 0.9 points, though a model with half a point of true drop does that one time in ten.
"""

_POWER = 0.80  # of images_needed: the customary power of sample-size formulas
_STEPS = 100  # halvings of an interval of width <= 2: far below the spacing of doubles


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of proportions with its interval, all in 0..1 units.

    Attributes:
        drop: ``(b - c) / n``; positive means the candidate is worse.
        lower: Lower limit of the interval.
        upper: Upper limit.
        method: ``tango`` or ``exact``, see :data:`TINY_COUNT`.
        p_value: Exact two-sided McNemar p-value of "no difference".
    """

    drop: float
    lower: float
    upper: float
    method: str
    p_value: float


def wilson_interval(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, in 0..1; ``(0, 1)`` when ``n`` is 0.

    Source:
        E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    >>> [round(x, 4) for x in wilson_interval(81, 263)]
    [0.2553, 0.3662]
    """
    _check_counts(successes, 0, n)
    if n == 0:
        return 0.0, 1.0
    z2 = _z(level) ** 2
    share = successes / n
    centre = share + z2 / (2 * n)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)
    scale = 1 + z2 / n
    # At the ends the limit is 0 or 1 exactly, but for rounding.
    lower = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    return lower, 1.0 if successes == n else min(1.0, (centre + half) / scale)


def paired_difference(b: int, c: int, n: int, level: float = LEVEL) -> Difference:
    """Return the drop ``(b - c) / n`` with its interval, Tango's or the exact one (:data:`TINY_COUNT`)."""
    _check_counts(b, c, n)
    if n == 0:
        return Difference(0.0, -1.0, 1.0, "exact", 1.0)
    if b + c <= TINY_COUNT:
        method, (lower, upper) = "exact", exact_interval(b, c, n, level)
    else:
        method, (lower, upper) = "tango", tango_interval(b, c, n, level)
    return Difference((b - c) / n, lower, upper, method, mcnemar_p(b, c))


def tango_interval(b: int, c: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Tango's score interval of the paired difference ``(b - c) / n``, in -1..1.

    The limits are the differences at which the score statistic (:func:`tango_score`) equals minus and plus
    the normal quantile; it falls monotonically with the difference, so halving an interval finds them
    whatever the counts.

    Source:
        T. Tango, Statistics in Medicine 17 (1998) 891-908, equations 23 to 29.

    >>> [round(x, 3) for x in tango_interval(1, 7, 21)]
    [-0.517, -0.026]
    """
    _check_counts(b, c, n)
    z, estimate = _z(level), (b - c) / n
    lower = -1.0 if c == n else _crossing(b, c, n, z, -1.0, estimate)
    upper = 1.0 if b == n else _crossing(b, c, n, -z, estimate, 1.0)
    return lower, upper


def tango_score(difference: float, b: int, c: int, n: int) -> float:
    """Return Tango's score statistic of the hypothesis that the paired difference is ``difference``.

    ``(b - c - n d) / sqrt(n (2 q + d (1 - d)))`` where ``q`` is the likeliest rate of helpful flips under the
    hypothesis, the larger root of ``2 n q^2 + (-b - c + (2 n - b + c) d) q - c d (1 - d) = 0``.
    """
    d = difference
    variance = n * (2 * _restricted_rate(d, b, c, n) + d * (1 - d))
    deviation = b - c - n * d
    if variance <= 0:
        return 0.0 if deviation == 0 else math.copysign(math.inf, deviation)
    return deviation / math.sqrt(variance)


def mcnemar_p(b: int, c: int) -> float:
    """Return the exact two-sided McNemar p-value: a binomial test of ``b`` out of ``b + c`` against one half.

    Source:
        Q. McNemar, Psychometrika 12 (1947) 153-157, with binomial instead of normal probabilities.

    >>> mcnemar_p(1, 7)
    0.0703125
    """
    flips = b + c
    logs = [math.lgamma(flips + 1) - math.lgamma(k + 1) - math.lgamma(flips - k + 1) for k in range(min(b, c) + 1)]
    tail = math.fsum(math.exp(x - flips * math.log(2)) for x in logs)
    return min(1.0, round(2 * tail, 12))


def decide(difference: Difference, max_drop: float) -> str:
    """Return ``pass`` (upper limit <= ``max_drop``), ``fail`` (lower limit above it) or ``undecided``.

    Args:
        difference: With limits in 0..1 units.
        max_drop: The largest drop that is acceptable, in 0..1 units.

    Raises:
        UsageError: ``max_drop`` is outside 0..1.
    """
    check_margin(max_drop)
    if difference.upper <= max_drop:
        return "pass"
    return "fail" if difference.lower > max_drop else "undecided"


def check_margin(max_drop: float) -> None:
    """Raise UsageError when a margin, in 0..1 units, is negative, above 1, infinite or not a number."""
    if not 0 <= max_drop <= 1:
        raise UsageError(f"a largest drop of {100 * max_drop:g} points is not in 0..100 percentage points of accuracy.")


def images_needed(b: int, c: int, n: int, max_drop: float, level: float = LEVEL) -> int:
    """Return how many images would decide with 80 % probability if flips go on at the observed rates.

    ``N = ((z_a sqrt(V0) + z_b sqrt(V1)) / distance)^2`` with ``V0 = 2 q + m (1 - m)`` the variance of one
    image when the drop equals the margin ``m`` (``q`` as in :func:`tango_score`), ``V1 = (b + c) / n -
    drop^2`` the observed one, ``z_a`` the quantile of the interval, ``z_b`` that of the power, and
    ``distance`` that of the drop from the margin. A drop nearer to the margin than a quarter of it (or 0.05
    points) is planned for as if it were that far: closer to the margin no number of images decides. A gain is planned
    for as no drop: a lucky first handful must not promise that a second one decides.

    Args:
        b: Harmful flips seen.
        c: Helpful flips seen.
        n: Images seen.
        max_drop: The margin, in 0..1 units.
        level: Of the two-sided interval.

    Raises:
        UsageError: ``max_drop`` is outside 0..1.

    Source:
        J. Nam, Biometrics 53 (1997) 1422-1430: sample size of the paired score test.

    >>> images_needed(0, 0, 400, 0.005)
    765
    """
    _check_counts(b, c, n)
    check_margin(max_drop)
    rate_b, rate_c = b / max(n, 1), c / max(n, 1)
    if max_drop <= 0 and b + c == 0:  # no variance to plan with; half a flip each way is the customary stand-in
        rate_b = rate_c = 0.5 / (n + 1)
    drop = max(rate_b - rate_c, 0.0)
    null = 2 * _restricted_rate(max_drop, rate_b, rate_c, 1) + max_drop * (1 - max_drop)
    observed = rate_b + rate_c - drop * drop
    distance = max(abs(max_drop - drop), max_drop / 4, 0.0005)
    root = _z(level) * math.sqrt(max(null, 0.0)) + NormalDist().inv_cdf(_POWER) * math.sqrt(max(observed, 0.0))
    return max(math.ceil((root / distance) ** 2), n + 1)


def _restricted_rate(d: float, b: float, c: float, n: float) -> float:
    linear = -b - c + (2 * n - b + c) * d
    root = math.sqrt(max(linear * linear + 8 * n * c * d * (1 - d), 0.0))
    # Two forms of one root; the first has no cancellation where the sign of ``linear`` would cause it.
    rate = 2 * c * d * (1 - d) / (root + linear) if linear > 0 else (root - linear) / (4 * n)
    return max(rate, 0.0, -d)


def _crossing(b: int, c: int, n: int, target: float, low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if tango_score(middle, b, c, n) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)


def _check_counts(b: int, c: int, n: int) -> None:
    if min(b, c) < 0 or b + c > n:
        raise ValueError(f"counts {b} and {c} do not fit {n} images")
