"""A histogram that is filled batch by batch, widens itself in place, and yields the range to quantize with."""

from collections.abc import Callable

import numpy as np

from edgecv.quantize.affine import Range, affine_of, round_through

BINS = 4096
"""Bins held. Between 2,048 and 4,096 of them span the values once these spread: 8 or more to one uint8 step."""

DEFAULT_PERCENTILE = 99.99

_SMALLEST_EXPONENT = -120  # float32 resolves 2^-126; finer bins than this would only count denormals
_MAX_INDEX = 1 << 24  # float32 has 24 bits: bins finer than that would hold gaps of the number format
_BLOCK = 1 << 16  # elements handled at a time, so that the temporaries stay in the cache


class Histogram:
    """Counts of finite float values in ``BINS`` bins whose width is a power of two and whose edges are its multiples.

    Widening merges neighbours exactly, so the result depends on the values alone, never on their order or on how they
    were cut into batches. Memory is O(bins) for any number of values.

    Attributes:
        minimum: Smallest value seen; ``inf`` while empty.
        maximum: Largest value seen; ``-inf`` while empty.
        counts: int64 of shape (BINS,).
    """

    def __init__(self) -> None:
        self.minimum = np.inf
        self.maximum = -np.inf
        self.counts = np.zeros(BINS, np.int64)
        self._exponent = _SMALLEST_EXPONENT  # width of a bin is 2 ** exponent
        self._first = 0  # bin 0 starts at first * width

    @property
    def width(self) -> float:
        """Width of one bin."""
        return float(2.0**self._exponent)

    def add(self, values: np.ndarray) -> None:
        """Count every element of a float array of any shape.

        Raises:
            ValueError: There is a NaN or an infinity.
        """
        if values.size == 0:
            return
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("values hold NaN or infinity")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._cover()
        per_width = flat.dtype.type(1 / self.width)
        for start in range(0, flat.size, _BLOCK):
            # A product with a power of two is exact, so no value lands in another bin through rounding.
            index = np.floor(flat[start : start + _BLOCK] * per_width).astype(np.int32)
            index -= self._first
            self.counts += np.bincount(index, minlength=BINS)

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the centres of the non-empty bins (float64, kept inside minimum and maximum) and their counts."""
        used = np.flatnonzero(self.counts)
        centres = (used + self._first + 0.5) * self.width
        return np.clip(centres, self.minimum, self.maximum), self.counts[used]

    def _cover(self) -> None:
        exponent, largest = self._exponent, max(abs(self.minimum), abs(self.maximum))
        while (
            _bin(self.maximum, exponent) - _bin(self.minimum, exponent) >= BINS or _bin(largest, exponent) >= _MAX_INDEX
        ):
            exponent += 1
        first = _bin(self.minimum, exponent)
        if (exponent, first) == (self._exponent, self._first):
            return
        used = np.flatnonzero(self.counts)
        moved = ((used + self._first) >> (exponent - self._exponent)) - first
        counts = np.zeros(BINS, np.int64)
        np.add.at(counts, moved, self.counts[used])
        self.counts, self._exponent, self._first = counts, exponent, first


def min_max_range(histogram: Histogram) -> Range:
    """Return the smallest and largest value seen."""
    return Range(histogram.minimum, histogram.maximum)


def percentile_range(histogram: Histogram, percentile: float = DEFAULT_PERCENTILE) -> Range:
    """Return the range that leaves out the share ``100 - percentile`` (in percent) of the values, half at each end.

    Exact to one bin. An end that would cut through zero stays where the values end.
    """
    centres, counts = histogram.filled()
    cumulated = np.cumsum(counts)
    tail = cumulated[-1] * (100.0 - percentile) / 200.0
    low = centres[np.searchsorted(cumulated, tail, side="right").clip(max=len(centres) - 1)]
    high = centres[np.searchsorted(cumulated, cumulated[-1] - tail, side="left")]
    half = histogram.width / 2
    return Range(max(float(low) - half, histogram.minimum), min(float(high) + half, histogram.maximum))


def mse_range(histogram: Histogram) -> Range:
    """Return the range whose uint8 rounding and clipping has the least expected squared error.

    Each end that is not zero is shrunk in turn over a grid of fractions, then refined around the best one; two rounds
    settle both ends (the error is the sum of a part of each tail and of the step, which both share).
    """
    centres, counts = histogram.filled()
    share = counts / counts.sum()

    def error(span: Range) -> float:
        return float(share @ np.square(round_through(centres, affine_of(span)) - centres))

    full = Range(min(histogram.minimum, 0.0), max(histogram.maximum, 0.0))
    best = full
    for fractions in (_COARSE, _COARSE, _FINE):
        for end in ("low", "high"):
            best = min(_shrunk(best, full, end, fractions), key=error)
    return best


_COARSE = np.linspace(0.2, 1.0, 33)
_FINE = np.linspace(0.98, 1.02, 9)  # relative to the end found so far

METHODS: dict[str, Callable[[Histogram], Range]] = {
    "mse": mse_range,
    "percentile": percentile_range,
    "minmax": min_max_range,
}
"""How a range is read from a histogram, by the name users give."""


def _bin(value: float, exponent: int) -> int:
    return int(np.floor(value * 2.0**-exponent))


def _shrunk(best: Range, full: Range, end: str, fractions: np.ndarray) -> list[Range]:
    """The candidates for one end; ``best`` itself comes first, so that ties change nothing."""
    from_end = best if fractions is _FINE else full
    if end == "low":
        lows = [max(float(from_end.low * f), full.low) for f in fractions] if full.low < 0 else []
        return [best, *(Range(low, best.high) for low in lows)]
    highs = [min(float(from_end.high * f), full.high) for f in fractions] if full.high > 0 else []
    return [best, *(Range(best.low, high) for high in highs)]
