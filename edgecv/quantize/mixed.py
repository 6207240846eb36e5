"""Mixed precision: the layers to keep in float, chosen by the accuracy each millisecond buys.

ONNX Runtime's int8 kernels read and write int8 alone. So a layer that is kept float by itself only gets rid of the
rounding of its weights; an activation gets rid of its own only when everyone who writes or reads it runs in float. Both
kinds of moves are tried, and since they help each other, again after each move that was made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgecv.errors import UsageError
from edgecv.progress import Progress, no_progress
from edgecv.quantize.draft import Draft, output_error, run_outputs, write_quantizers
from edgecv.quantize.layer_names import is_choice
from edgecv.quantize.moves import Sizes, promising_moves, tensor_sizes
from edgecv.quantize.placement import Placement
from edgecv.quantize.restrict import keep_float
from edgecv.quantize.sensitivity import SENSITIVITY_IMAGES, Sensitivity, measure_sensitivity

CostOf = Callable[[Draft], float]
"""How many milliseconds a run of a draft's file takes longer than that of the wholly quantized one; may be negative."""

TRIALS = 6
"""Moves within the budget that are measured before one is made: the most promising by prediction."""

SMALLEST_GAIN = 0.02
"""A move must take this share out of the error, or it is not worth a float layer."""

REASON = "kept in float for accuracy"

_MOST_TIMED = 12  # moves whose cost is measured before one is made: most of the last ones are over the budget

_FREE_SHARE = 0.02  # of the budget; costs below are within the noise of a profile and count as this much
_FREE_MS = 0.002  # the same without a budget


@dataclass(frozen=True, slots=True)
class KeepFloat:
    """What ``--keep-float`` was given.

    Attributes:
        names: Nodes or layers to keep float whatever they gain.
        auto: Choose more of them by gain and cost.
        count: Choose so many more, the worst for their cost.
    """

    names: tuple[str, ...] = ()
    auto: bool = False
    count: int | None = None


def parse_keep_float(values: Sequence[str]) -> KeepFloat:
    """Read the values of ``--keep-float``: layers (``name:7`` where a name reads as a choice), ``auto`` or a number.

    >>> parse_keep_float(["conv_stem", "2"])
    KeepFloat(names=('conv_stem',), auto=False, count=2)

    Raises:
        UsageError: Both, or more than one number.
    """
    names = tuple(v for v in values if not is_choice(v))
    chosen = list(dict.fromkeys(v for v in values if v not in names))
    if len(chosen) > 1:
        raise UsageError(f"--keep-float {' and '.join(chosen)} contradict each other; give one, and names beside it.")
    auto = chosen == ["auto"]
    return KeepFloat(names, auto, None if auto or not chosen else int(chosen[0]))


@dataclass(frozen=True, slots=True)
class Move:
    """One step towards float.

    Attributes:
        layers: Layers that became float by it.
        draft: The quantization after it.
        gain: Share of the wholly quantized network's error that it took away (0..1).
        cost_ms: Milliseconds a run takes longer for it; None when not measured.
    """

    layers: tuple[str, ...]
    draft: Draft = field(repr=False, compare=False)
    gain: float
    cost_ms: float | None


@dataclass(frozen=True, slots=True)
class Mixed:
    """A draft with some layers kept float.

    Attributes:
        draft: It.
        moves: How it came about, in order.
        error_before: Error of the outputs on the images before.
        error: The same of ``draft``.
        cost_ms: Milliseconds a run takes longer than before; None when not measured.
    """

    draft: Draft
    moves: tuple[Move, ...]
    error_before: float
    error: float
    cost_ms: float | None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers kept float."""
        return tuple(layer for move in self.moves for layer in move.layers)


def mix(
    draft: Draft,
    own: ir.Model,
    images: np.ndarray,
    *,
    cost_of: CostOf | None = None,
    budget_ms: float = np.inf,
    target_error: float = 0.0,
    count: int | None = None,
    sensitivity: Sensitivity | None = None,
    start: Mixed | None = None,
    progress: Progress = no_progress,
) -> Mixed:
    """Keep layers of ``draft`` in float until the budget is used up, the target reached, or nothing gains any more.

    Args:
        draft: The quantization to start from; not changed.
        own: The same float network with its own biases, before any correction.
        images: Calibration images, as the graph takes them; all of them measure a move, the first
            :data:`edgecv.quantize.sensitivity.SENSITIVITY_IMAGES` choose which are tried.
        cost_of: Measures what a draft costs; without it moves are chosen by gain alone and the budget does not count.
        budget_ms: Largest total cost.
        target_error: Stop when the error is no larger than this.
        count: Keep exactly so many layers, each chosen by itself, whatever it gains; None for as many as pay.
        sensitivity: Of ``draft``, when it was measured before.
        start: An earlier result for the same draft and images, to go on from.
        progress: See :mod:`edgecv.progress`.

    Raises:
        UsageError: ``count`` would leave nothing in int8.
    """
    limit = len(draft.placement.layers) - 1 if count is None else count
    if limit >= len(draft.placement.layers):
        raise UsageError(
            f"{count} layers cannot stay float: int8 runs {len(draft.placement.layers)}, and needs one left."
        )
    parts = sensitivity or measure_sensitivity(draft, own, images[:SENSITIVITY_IMAGES], progress=progress)
    reference = run_outputs(own, images)
    if start is None:
        whole = output_error(reference, run_outputs(write_quantizers(draft)[0], images))
        start = Mixed(draft, (), whole, whole, None if cost_of is None else 0.0)
    before = start.error_before
    search = _Search(
        own=own,
        whole=draft.placement,
        images=images,
        reference=reference,
        parts=parts,
        sizes=tensor_sizes(own),
        cost_of=cost_of,
        budget_ms=budget_ms,
        smallest_gain=SMALLEST_GAIN * before,
        single=count is not None,
    )
    current, moves, spent, error = start.draft, list(start.moves), start.cost_ms or 0.0, start.error
    while error > target_error and len(moves) < limit:
        best = search.best_move(current, error, spent)
        if best is None or not best.draft.placement.layers:
            break
        layers = tuple(n for n in current.placement.layers if n not in best.draft.placement.layers)
        moves.append(
            Move(layers, best.draft, (error - best.error) / before, None if cost_of is None else best.cost_ms - spent)
        )
        current, error, spent = best.draft, best.error, best.cost_ms
        progress("mixed precision", len(moves), count or 0)
    return Mixed(current, tuple(moves), before, error, None if cost_of is None else spent)


@dataclass(frozen=True, slots=True)
class _Trial:
    draft: Draft
    error: float
    cost_ms: float
    worth: float


@dataclass(frozen=True, slots=True)
class _Search:
    own: ir.Model
    whole: Placement
    images: np.ndarray
    reference: Sequence[np.ndarray]
    parts: Sensitivity
    sizes: Sizes
    cost_of: CostOf | None
    budget_ms: float
    smallest_gain: float
    single: bool

    def best_move(self, current: Draft, error: float, spent: float) -> _Trial | None:
        """Measure the most promising moves and return the one with the most gain for its cost; None when none pays."""
        trials: list[_Trial] = []
        least = self.smallest_gain / 2
        promising = promising_moves(current, self.whole, self.parts, self.sizes, least, single=self.single)
        for nodes in promising[:_MOST_TIMED]:
            candidate = keep_float(current, self.own, nodes, REASON)
            cost = 0.0 if self.cost_of is None else self.cost_of(candidate)
            if cost > self.budget_ms:
                continue
            found = output_error(self.reference, run_outputs(write_quantizers(candidate)[0], self.images))
            if self.single or error - found >= self.smallest_gain:
                trials.append(_Trial(candidate, found, cost, self._worth(error - found, cost - spent)))
            if len(trials) == TRIALS:
                break
        return max(trials, key=lambda trial: trial.worth, default=None)

    def _worth(self, gain: float, cost: float) -> float:
        """Return what to compare moves by: gain per millisecond, or gain alone where cost is unknown or gain a loss."""
        if self.cost_of is None or gain <= 0:
            return gain
        return gain / max(cost, _FREE_SHARE * self.budget_ms if np.isfinite(self.budget_ms) else _FREE_MS)
