"""Does a rewritten or exported graph still answer like its original? Float against float."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgecv.errors import GateFailedError

CHECK_BATCHES = (1, 2, 7)
"""One image, an exporter's example, and a prime that divides nothing: where batch dimensions go wrong."""

MAX_RELATIVE_DIFF = 1e-3
"""Largest accepted |difference| in units of the outputs' standard deviation; float32 rounding through 100 layers
gives 1e-6 to 1e-4 on the networks of the sweep."""

Run = Callable[[np.ndarray], np.ndarray]
"""uint8 images ``(N, H, W, 3)`` to outputs ``(N, classes)``."""


@dataclass(frozen=True, slots=True)
class BatchCheck:
    """Original against rewritten at one batch and image size.

    Attributes:
        batch: Images per run.
        size: ``(height, width)`` in pixels.
        n: Images compared.
        top1_agreement: Share of images with the same top-1 (0..1).
        max_abs_diff: Largest difference of an output, in its own unit.
        relative_diff: ``max_abs_diff`` in standard deviations of the original's outputs.
    """

    batch: int
    size: tuple[int, int]
    n: int
    top1_agreement: float
    max_abs_diff: float
    relative_diff: float


def check_agreement(original: Run, rewritten: Run, pixels: np.ndarray, batch: int) -> BatchCheck:
    """Run both on every image, in batches of exactly ``batch`` (the last one wraps round), and judge.

    Raises:
        GateFailedError: See :func:`judge_outputs`.
    """
    pairs = [(original(c), rewritten(c)) for c in _chunks(pixels, batch)]
    expected, got = (np.concatenate(side)[: len(pixels)] for side in zip(*pairs, strict=True))
    return judge_outputs(expected, got, batch, pixels.shape[1:3])


def judge_outputs(expected: np.ndarray, got: np.ndarray, batch: int, size: tuple[int, ...]) -> BatchCheck:
    """Compare outputs ``(N, classes)``: a near tie may flip, a difference beyond rounding may not exist.

    Raises:
        GateFailedError: Shapes differ, a value is not finite, the original is constant (nothing could be told), or
            the outputs differ by more than :data:`MAX_RELATIVE_DIFF` standard deviations.
    """
    at = f"at batch {batch}, size {size[0]}x{size[1]}"
    if expected.shape != got.shape or expected.ndim != 2:
        raise GateFailedError(f"output shape {got.shape} instead of {expected.shape} {at}")
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        raise GateFailedError(f"outputs that are not finite {at}")
    diff = float(np.abs(expected.astype(np.float64) - got).max())
    spread = float(expected.std())
    if spread == 0.0:
        raise GateFailedError(f"the original gives the same output for everything, so nothing can be checked {at}")
    agreement = float((expected.argmax(1) == got.argmax(1)).mean())
    if diff > MAX_RELATIVE_DIFF * spread:
        raise GateFailedError(
            f"the largest difference {diff:.3g} is {diff / spread:.2g} standard deviations of the outputs "
            f"(limit {MAX_RELATIVE_DIFF}), same top-1 on {agreement:.1%} {at}"
        )
    return BatchCheck(batch, (size[0], size[1]), len(expected), agreement, diff, diff / spread)


def _chunks(pixels: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), batch):
        yield pixels[np.arange(start, start + batch) % len(pixels)]
