"""Mixed precision on this machine: layers chosen by measured gain and cost, then the whole network timed again."""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecv.benchmark import compare_latency
from edgecv.benchmark.plan import Preset
from edgecv.benchmark.statistics import Interval
from edgecv.pipeline.layer_cost import open_cost_meter, save_draft
from edgecv.progress import Progress, no_progress
from edgecv.quantize.draft import Draft, error_db
from edgecv.quantize.layer_names import layer_names
from edgecv.quantize.mixed import Mixed, Move, mix
from edgecv.quantize.sensitivity import SENSITIVITY_IMAGES, measure_sensitivity

BUDGET = 0.1
"""Share of the int8 network's time that float layers may cost together."""

MIXED_IMAGES = 32
"""Calibration images that a move is judged on."""

PRESET = Preset("mixed", min_queries=60, min_seconds=2, max_seconds=30)
"""How long both files are timed at the end: enough to see a tenth."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how to time: provider policy, threads (a number or ``auto``), seed of the inputs."""

    provider: str = "cpu"
    threads: str = "auto"
    seed: int = 0


def mix_precision(
    draft: Draft,
    own: ir.Model,
    images: np.ndarray,
    rewrites: Collection[str],
    *,
    count: int | None = None,
    budget: float = BUDGET,
    target_error: float = 0.0,
    machine: Machine | None = None,
    progress: Progress = no_progress,
) -> tuple[Draft, dict[str, Any]]:
    """Keep the layers of ``draft`` in float that gain most for their time, and prove the time on the whole network.

    Args:
        draft: The wholly quantized network; not changed.
        own: The same float network with its own biases, before any correction.
        images: Calibration images (:data:`MIXED_IMAGES`), as the graph takes them.
        rewrites: Names of the rewrites of codes the file will get.
        count: Keep exactly so many layers, whatever they cost; None: what pays, within the budget.
        budget: Share of the int8 network's time that may be lost.
        target_error: Stop when the error of the outputs is no larger.
        machine: Where to time.
        progress: See :mod:`edgecv.progress`.

    Returns:
        The draft and its report: ``kept`` (each move's ``layers``, ``gain`` as a share of the int8 network's error, and
        ``cost_ms``), ``undone`` (moves that the whole network's time did not bear), ``int8_ms``, ``budget_ms``,
        ``sqnr_db_before`` and ``sqnr_db`` on ``images``, ``n``, and ``slowdown`` (mixed over int8, with its interval).
    """
    place = machine or Machine()
    meter = open_cost_meter(draft, rewrites, provider=place.provider, threads=place.threads, seed=place.seed)
    budget_ms = float("inf") if count is not None else budget * meter.int8_ms
    go_on = partial(
        mix,
        draft,
        own,
        images,
        cost_of=meter.cost_ms,
        target_error=target_error,
        count=count,
        sensitivity=measure_sensitivity(draft, own, images[:SENSITIVITY_IMAGES], progress=progress),
        progress=progress,
    )
    found = go_on(budget_ms=budget_ms)
    limit = None if count is not None else 1 + budget
    moves, slowdown = _within(draft, found.moves, rewrites, limit, place, progress)
    if limit is not None and moves == found.moves and slowdown is not None and slowdown.high - 1 < budget / 2:
        # Times of single nodes add up to more than they cost together, so that half the budget is still there.
        further = go_on(start=found, budget_ms=2 * budget_ms)
        again = None
        if len(further.moves) > len(moves):
            again = _slowdown(draft, further.moves[-1].draft, rewrites, place, progress)
        if again is not None and again.high <= limit:  # beyond what the profiles allow it must be shown
            found, moves, slowdown = further, further.moves, again
    report = _report(draft, found, moves) | {
        "int8_ms": meter.int8_ms,
        "budget_ms": None if count is not None else budget_ms,
        "n": len(images),
        "slowdown": None if slowdown is None else [slowdown.estimate, slowdown.low, slowdown.high],
    }
    return (moves[-1].draft if moves else draft), report


def _within(
    draft: Draft,
    moves: Sequence[Move],
    rewrites: Collection[str],
    limit: float | None,
    machine: Machine,
    progress: Progress,
) -> tuple[Sequence[Move], Interval | None]:
    """Time the whole network against int8; take moves back from the end while it is measured as too slow."""
    while moves:
        slowdown = _slowdown(draft, moves[-1].draft, rewrites, machine, progress)
        if limit is None or slowdown is None or slowdown.estimate <= limit:
            return moves, slowdown
        moves = moves[:-1]
    return moves, None


def _slowdown(
    draft: Draft, mixed: Draft, rewrites: Collection[str], machine: Machine, progress: Progress
) -> Interval | None:
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        files = [Path(folder) / name for name in ("int8.onnx", "mixed.onnx")]
        for each, path in zip((draft, mixed), files, strict=True):
            save_draft(each, rewrites, path)
        report = compare_latency(
            files,
            provider=machine.provider,
            threads=machine.threads,
            preset=PRESET,
            seed=machine.seed,
            progress=progress,
        )
    speedup = report.results[1].speedup
    return None if speedup is None else Interval(1 / speedup.estimate, 1 / speedup.high, 1 / speedup.low, speedup.level)


def _report(draft: Draft, found: Mixed, moves: Sequence[Move]) -> dict[str, Any]:
    labels = {str(node.name): name for node, name in layer_names(draft.model.graph).items()}
    rows = [{"layers": [labels[n] for n in m.layers], "gain": m.gain, "cost_ms": m.cost_ms} for m in found.moves]
    error = found.error_before * (1 - sum(m.gain for m in moves))
    return {
        "kept": rows[: len(moves)],
        "undone": rows[len(moves) :],
        "sqnr_db_before": error_db(found.error_before),
        "sqnr_db": error_db(error),
    }
