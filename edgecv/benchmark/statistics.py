"""What a set of latencies can honestly say: which percentiles, how wide an interval, was it steady."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
MIN_TURNS = 16
"""Fewer turns than this give no interval: a bootstrap over a handful of values is narrower than the truth."""

_RESAMPLES = 2000
_POINTS_PER_TURN = 32
_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided interval.

    Attributes:
        estimate: The value itself.
        low: Lower end.
        high: Upper end.
        level: Confidence, e.g. 0.95.
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95

    @property
    def relative_width(self) -> float:
        """``(high - low) / estimate``; no unit."""
        return (self.high - self.low) / self.estimate if self.estimate else math.inf

    def excludes(self, value: float, margin: float = 0.0) -> bool:
        """Whether the whole interval lies outside ``value / (1 + margin) .. value * (1 + margin)``."""
        return self.low > value * (1 + margin) or self.high < value / (1 + margin)


@cache
def min_samples(percentile: float) -> int:
    """Return how many samples it takes before ``percentile`` (0..100) may be reported.

    The smallest n with ``P(Binomial(n, 1 - p) <= 1) <= 0.01``: with 99 % confidence at least two of the
    n samples lie beyond the true percentile, so an observed one bounds it. Samples are taken as independent.

    Source:
        MLPerf LoadGen, early stopping (loadgen/early_stopping.cc, confidence 0.99, tolerance 0); its
        published floors are 64 for p90 and 662 for p99.

    >>> [min_samples(p) for p in (50.0, 90.0, 99.0)]
    [11, 64, 662]
    """
    p, n = percentile / 100, 2
    while p**n + n * (1 - p) * p ** (n - 1) > 1 - _CONFIDENCE:
        n += 1
    return n


def supported_percentiles(samples: Floats, wanted: Sequence[float] = PERCENTILES) -> dict[float, float]:
    """Return the percentiles that ``samples`` are numerous enough for, each an observed sample.

    >>> sorted(supported_percentiles(np.arange(1.0, 65.0)))
    [50.0, 90.0]
    """
    allowed = [p for p in wanted if len(samples) >= min_samples(p)]
    if not allowed:
        return {}
    values = np.percentile(samples, allowed, method="inverted_cdf")
    return {p: float(v) for p, v in zip(allowed, values, strict=True)}


def median_interval(turns: Sequence[Floats], *, seed: int, level: float = 0.95) -> Interval | None:
    """Bootstrap the median of all samples by resampling whole turns.

    Runs inside one turn share the machine's mood, so the turn and not the run is resampled. Each turn is
    thinned to at most 32 of its own quantiles, which keeps the cost flat.

    Args:
        turns: One array of latencies per turn, in any unit, all above 0.
        seed: Seed of the resampling.
        level: Confidence of the interval.

    Returns:
        The interval, or None with fewer than :data:`MIN_TURNS` turns.
    """
    if len(turns) < MIN_TURNS:
        return None
    ranks = np.linspace(0, 1, min(_POINTS_PER_TURN, max(len(t) for t in turns)) + 2)[1:-1]
    thinned = np.stack([np.quantile(t, ranks) for t in turns])
    log_medians = np.log([np.median(thinned[rows]) for rows in _resampled(len(turns), seed)])
    estimate = math.log(float(np.median(np.concatenate(list(turns)))))
    return _interval(estimate, _half_width(log_medians, len(turns), level), level)


def paired_ratio(reference: Floats, candidate: Floats, *, seed: int, level: float = 0.95) -> Interval | None:
    """Return how many times faster ``candidate`` is than ``reference``, from interleaved rounds.

    The estimate is the median over rounds of (reference's turn median / candidate's turn median): a drift of
    the machine that is slower than a round cancels.

    Args:
        reference: Shape ``(rounds,)``: the median latency of the reference's turn in each round.
        candidate: Shape ``(rounds,)``: the same rounds.
        seed: Seed of the resampling.
        level: Confidence of the interval.

    Returns:
        The interval (above 1: candidate is faster), or None with fewer than :data:`MIN_TURNS` rounds.
    """
    if len(reference) != len(candidate):
        raise ValueError(f"{len(reference)} and {len(candidate)} rounds cannot be paired")
    if len(reference) < MIN_TURNS:
        return None
    logs = np.log(reference) - np.log(candidate)
    half = _half_width(_log_medians(logs, seed), len(logs), level)
    return _interval(float(np.median(logs)), half, level)


def unpaired_ratio(reference: Floats, candidate: Floats, *, seed: int, level: float = 0.95) -> Interval | None:
    """Like :func:`paired_ratio` for two runs made at different times, whose rounds do not belong together.

    Nothing cancels a drift of the machine between the two runs; the interval does not contain it.
    """
    if min(len(reference), len(candidate)) < MIN_TURNS:
        return None
    logs = [np.log(reference), np.log(candidate)]
    halves = [_half_width(_log_medians(x, seed + i), len(x), level) for i, x in enumerate(logs)]
    return _interval(float(np.median(logs[0]) - np.median(logs[1])), math.hypot(*halves), level)


def is_steady(window_medians: Sequence[float], tolerance: float = 0.05, windows: int = 3) -> bool:
    """Whether the last ``windows`` medians of a warm-up lie within ``tolerance`` of each other.

    Source:
        After Georges, Buytaert, Eeckhout, "Statistically rigorous Java performance evaluation" (OOPSLA
        2007, §3.2): start to measure once the last k figures agree. Medians of windows, because other work
        makes single runs spike.

    >>> is_steady([9.0, 5.0, 3.1, 3.0, 3.05]), is_steady([9.0, 5.0, 3.0])
    (True, False)
    """
    last = window_medians[-windows:]
    return len(last) == windows and max(last) <= min(last) * (1 + tolerance)


def drift(turn_medians: Floats, alpha_z: float = 2.58) -> float:
    """Return the relative change from the first to the last third of a run, or 0.0 when it is no clear trend.

    Source:
        Mann-Kendall test (Mann, Econometrica 13, 1945): S is normal with variance n(n-1)(2n+5)/18; a z of
        2.58 is 1 % two-sided.

    >>> drift(np.linspace(2.0, 1.0, 30)) < -0.3, drift(np.tile([1.0, 1.1, 0.9], 10))
    (True, 0.0)
    """
    n = len(turn_medians)
    if n < MIN_TURNS:
        return 0.0
    s = float(np.sign(turn_medians[None, :] - turn_medians[:, None])[np.triu_indices(n, 1)].sum())
    if abs(s) < alpha_z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18):
        return 0.0
    third = max(1, n // 3)
    first, last = float(np.median(turn_medians[:third])), float(np.median(turn_medians[-third:]))
    return last / first - 1


def _log_medians(logs: Floats, seed: int) -> Floats:
    return np.median(logs[_resampled(len(logs), seed)], axis=1)


def _resampled(n: int, seed: int) -> NDArray[np.intp]:
    """Return indices of shape ``(resamples, n)``: blocks of neighbours on a circle keep slow moods.

    Source:
        Politis and Romano, "A circular block-resampling procedure for stationary data" (1992).
    """
    length = _block_length(n)
    starts = np.random.default_rng(seed).integers(0, n, (_RESAMPLES, math.ceil(n / length)))
    return ((starts[..., None] + np.arange(length)) % n).reshape(_RESAMPLES, -1)[:, :n]


def _block_length(n: int) -> int:
    # Longer than the usual n^(1/3): on a shared machine a process's turn medians were correlated at 0.2-0.5 from
    # one round to the next (paired ratios at 0-0.2; self_comparison.py keeps the figures).
    return math.ceil(math.sqrt(n))


def _half_width(resampled: Floats, n: int, level: float) -> float:
    """Bootstrap standard error times Student's t with (blocks - 1) degrees of freedom.

    Plain percentile intervals over so few blocks missed the truth in 10-25 % of simulated runs (16-60 rounds,
    correlation 0-0.5, heavy tails); this one in 2-6 % (6.3 % at the worst).
    """
    blocks = n / _block_length(n)
    return float(np.std(resampled, ddof=1)) * math.sqrt(blocks / (blocks - 1)) * _student_t(level, blocks - 1)


def _student_t(level: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t (Abramowitz and Stegun 26.7.5; within 0.2 % from 3 on)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom ** (i + 1) for i, term in enumerate(terms))


def _interval(log_estimate: float, half: float, level: float) -> Interval:
    return Interval(
        estimate=math.exp(log_estimate),
        low=math.exp(log_estimate - half),
        high=math.exp(log_estimate + half),
        level=level,
    )
