"""The ladder: quantize by the cheapest method first, go on to the next until the result is good enough.

Each rung makes a draft from the best one so far. Its gain is measured on calibration images that no rung has looked at,
and a rung that gains nothing there is not kept: what helps one network hurts another (equalization takes 1 dB from
EfficientNet-Lite0, and gives MobileNetV2 as much).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecv.errors import UsageError, nearest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.basis import Basis
from edgecv.quantize.calibrate import Observations
from edgecv.quantize.draft import Draft, error_db, output_error, run_outputs, write_quantizers

RUNG_NAMES = ("per-channel", "ranges", "equalize", "bias", "round", "mixed", "finetune")
"""In the order they are tried: by what they cost to compute, then by what they cost on the device."""

NEAR_DB = 24.0
"""Signal to noise of the outputs at which a network with 1,000 classes gives the float model's answer to 98 or 99 of
100 photographs (EfficientNet-Lite0, MobileNetV2): the goal where no gate is given or the gate cannot decide."""

HELD_OUT_EVERY = 5
MAX_HELD_OUT = 32
FEWEST_TO_DIVIDE = 20
"""With fewer images all of them calibrate and measure: a handful left out would show chance."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the rungs stand on.

    Attributes:
        basis: The prepared network.
        batches: Starts a pass over the images that calibrate.
        held: Images that only measure, as the graph takes them.
        n_images: Images in a pass of ``batches``.
        ranges: How the first rung chooses ranges: ``mse``, ``percentile`` or ``minmax``.
        seed: Of every random choice.
    """

    basis: Basis
    batches: Batches
    held: np.ndarray
    n_images: int
    ranges: str = "mse"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """Where on the ladder one stands.

    Attributes:
        own: The float network the draft is of, with its own biases.
        seen: Its statistics over the calibration images.
        draft: The quantization.
        searched: Its ranges were searched by the error of the outputs.
        biases_on_codes: Its biases were corrected on quantized inputs.
    """

    own: ir.Model
    seen: Observations
    draft: Draft
    searched: bool = False
    biases_on_codes: bool = False


Rung = Callable[[Ground, Position | None, Progress], Position | None]
"""Makes a position from the one before (None for the first); None when there is nothing for it to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one rung.

    Attributes:
        rung: Its name.
        sqnr_db: Signal to noise of the outputs on the held-out images; None when there was nothing to do.
        agreement: Share of these images with the float model's top-1; None likewise, or when there are no classes.
        gain_db: Over the best before; None for the first rung.
        kept: It became the best.
        seconds: Time it took.
        verdict: What the gate said of it; empty when it was not asked.
    """

    rung: str
    sqnr_db: float | None
    agreement: float | None
    gain_db: float | None
    kept: bool
    seconds: float
    verdict: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return asdict(self)


def check_rung(name: str) -> None:
    """Raise UsageError when ``name`` is not one of :data:`RUNG_NAMES`."""
    if name not in RUNG_NAMES:
        raise UsageError(f"method '{name}' is not one of {', '.join(RUNG_NAMES)}.{nearest(name, RUNG_NAMES)}")


def climb(
    ground: Ground,
    rungs: Mapping[str, Rung],
    good_enough: Callable[[Position, float], tuple[bool, str]],
    *,
    worth: Callable[[str], bool] = lambda rung: True,
    progress: Progress = no_progress,
) -> tuple[Position, list[Step]]:
    """Try the rungs in order until the best position is good enough, and return it with what came of each.

    Args:
        ground: See :class:`Ground`.
        rungs: Name to rung; the first starts from nothing.
        good_enough: Asked of every new best position and its SQNR in dB: whether to stop, and the gate's word.
        worth: Asked before a rung is tried; one that is not worth its time is passed over.
        progress: See :mod:`edgecv.progress`.
    """
    reference = run_outputs(ground.basis.model, ground.held)
    best: Position | None = None
    best_db = -np.inf
    steps: list[Step] = []
    for name, rung in rungs.items():
        if not worth(name):
            continue
        began = time.perf_counter()
        found = rung(ground, best, progress)
        if found is None:
            steps.append(Step(name, None, None, None, False, time.perf_counter() - began))
            continue
        outputs = run_outputs(write_quantizers(found.draft)[0], ground.held)
        reached = error_db(output_error(reference, outputs))
        kept = best is None or reached > best_db
        gain = None if best is None else reached - best_db
        seconds = time.perf_counter() - began
        stop, verdict = False, ""
        if kept:
            best, best_db = found, reached
            stop, verdict = good_enough(found, reached)
        steps.append(Step(name, reached, top1_agreement(reference, outputs), gain, kept, seconds, verdict))
        if stop:
            break
    assert best is not None  # the first rung always makes a draft
    return best, steps


def divide(batches: Batches, n_images: int) -> tuple[Batches, np.ndarray, int]:
    """Divide calibration images into those that calibrate and those that only measure.

    Returns:
        A pass over the first, the second as one array, and the number of the first.
    """
    if n_images < FEWEST_TO_DIVIDE:
        return batches, pick(batches, MAX_HELD_OUT, n_images), n_images
    every = max(HELD_OUT_EVERY, -(-n_images // MAX_HELD_OUT))

    def fit() -> Iterator[np.ndarray]:
        first = 0
        for batch in batches():
            inside = np.arange(first, first + len(batch)) % every != every - 1
            first += len(batch)
            if inside.any():
                yield batch[inside]

    held = [row for i, row in enumerate(row for batch in batches() for row in batch) if i % every == every - 1]
    return fit, np.stack(held), n_images - len(held)


def pick(batches: Batches, count: int, n_images: int) -> np.ndarray:
    """Return at most ``count`` images, evenly spaced over a pass of ``n_images``."""
    step = max(1, n_images // count)
    rows = (row for batch in batches() for row in batch)
    return np.stack(list(islice((row for i, row in enumerate(rows) if i % step == 0), count)))


def top1_agreement(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float | None:
    """Return the share of images with equal top-1 in the first output; None when it is not (images, classes)."""
    expected, found = reference[0], outputs[0]
    if expected.ndim != 2 or expected.shape[1] < 2:
        return None
    return float((expected.argmax(1) == found.argmax(1)).mean())
