"""Calibration images in another order each time, mirrored and shifted, a few in memory at once."""

from collections.abc import Iterator

import numpy as np

from edgecv.quantize.activations import Batches

SHUFFLED = 64
"""Images in memory from which the next batch is drawn: 10 MB of uint8 photographs."""

MAX_SHIFT = 1 / 14
"""Largest shift to each side, as a share of the image's height and width: 16 of 224 pixels."""


def shuffled_batches(batches: Batches, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield one pass over the images in random order, ``size`` at a time; the last batch may be smaller.

    An image comes at most :data:`SHUFFLED` places before its turn, however many there are.
    """
    held: list[np.ndarray] = []
    for batch in batches():
        for image in batch:
            held.append(image)
            if len(held) >= SHUFFLED + size:
                yield _draw(held, size, rng)
    while held:
        yield _draw(held, size, rng)


def mirrored_and_shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy of the images, each mirrored or not and moved by up to :data:`MAX_SHIFT`, its edge reflected.

    Args:
        images: (N, H, W, 3) or (N, 3, H, W), any dtype; of another shape they are returned as they are.
        rng: Source of chance.
    """
    first = _first_side(images)
    if first is None:
        return images
    height, width = images.shape[first : first + 2]
    reach = int(height * MAX_SHIFT), int(width * MAX_SHIFT)
    edges = [(0, 0)] * 4
    edges[first : first + 2] = [(r, r) for r in reach]
    wide = np.pad(images, edges, mode="reflect")
    moved = np.empty_like(images)
    for i in range(len(images)):
        top, left = (int(rng.integers(0, 2 * r + 1)) for r in reach)
        window = [slice(None)] * 3
        window[first - 1 : first + 1] = slice(top, top + height), slice(left, left + width)
        image = wide[i][tuple(window)]
        moved[i] = np.flip(image, axis=first) if rng.random() < 0.5 else image
    return moved


def with_mirrored(images: np.ndarray) -> np.ndarray:
    """Return the images and behind them their mirror images; of another shape than images, themselves alone."""
    first = _first_side(images)
    return images if first is None else np.concatenate([images, np.flip(images, axis=first + 1)])


def _first_side(images: np.ndarray) -> int | None:
    """Return the dimension of the height; None for what are no images of three channels."""
    if images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
        return None
    return 1 if images.shape[3] == 3 else 2


def _draw(held: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    return np.stack([held.pop(int(rng.integers(len(held)))) for _ in range(min(size, len(held)))])
