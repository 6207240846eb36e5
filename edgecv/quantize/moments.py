"""Covariance of a layer's inputs, from running sums, as far as the images tell it."""

import numpy as np


class Moments:
    """Running sums over samples of a layer's input, apart for images of even and of odd number.

    Attributes:
        squares: Sums of x xᵀ, float32 (2, groups, fan_in, fan_in).
        totals: Sums of x, float64 (2, groups, fan_in).
        counts: Numbers of samples, (2,).
    """

    def __init__(self, groups: int, fan_in: int) -> None:
        self.squares = np.zeros((2, groups, fan_in, fan_in), np.float32)
        self.totals = np.zeros((2, groups, fan_in))
        self.counts = np.zeros(2, np.int64)

    def add(self, samples: np.ndarray, image: int) -> None:
        """Add float32 samples of shape (groups, samples, fan_in) of image number ``image``."""
        half = image % 2
        self.squares[half] += np.swapaxes(samples, 1, 2) @ samples
        self.totals[half] += samples.sum(axis=1, dtype=np.float64)
        self.counts[half] += samples.shape[1]

    def covariance(self, *, centred: bool) -> np.ndarray:
        """Return the mean of x xᵀ, float64 (groups, fan_in, fan_in); about the mean of x when ``centred``."""
        mean = self.totals.sum(axis=0) / self.counts.sum()
        second = self.squares.sum(axis=0, dtype=np.float64)
        second /= self.counts.sum()
        if centred:
            second -= mean[:, :, None] * mean[:, None, :]
        return np.asarray(second)

    def shrunk_covariance(self, *, centred: bool) -> np.ndarray:
        """Return the covariance drawn towards equal, independent inputs as far as the images leave it unsure.

        The share is the noise of the estimate over its distance from that target: Ledoit and Wolf, A Well-Conditioned
        Estimator for Large-Dimensional Covariance Matrices, 2004. The noise is measured between even and odd images,
        since positions of one image are not independent. One share serves all groups of a layer.
        """
        whole = self.covariance(centred=centred)
        diagonal = np.einsum("gii->gi", whole)  # a view
        variance = diagonal.mean(axis=1)
        distance = float(np.square(whole).sum() - diagonal.shape[1] * np.square(variance).sum())
        share = min(1.0, self._noise(centred=centred) / distance) if self.counts.all() and distance > 0 else 1.0
        whole *= 1 - share
        diagonal += share * variance[:, None]
        return whole

    def _noise(self, *, centred: bool) -> float:
        """Return the expected squared error of the covariance, summed over its elements."""
        first, second = (self.squares[half] / np.float32(self.counts[half]) for half in (0, 1))
        difference = np.subtract(first, second, out=first)
        if centred:
            means = (self.totals / self.counts[:, None, None]).astype(np.float32)
            for mean, sign in zip(means, (-1, 1), strict=True):
                difference += sign * mean[:, :, None] * mean[:, None, :]
        return float(np.square(difference, out=difference).sum(dtype=np.float64)) / 4
