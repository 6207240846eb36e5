"""The gates of a recipe: each limit against what was measured, as pass, fail, or undecided with what would decide."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from edgecv.config.pruning import parse_target
from edgecv.config.recipe import TRAINING, Recipe
from edgecv.evaluate.statistics import wilson_interval

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"

Reports = Mapping[str, Mapping[str, Any]]
"""Stage -> its report."""

_Z = NormalDist().inv_cdf(0.975)
"""Of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """One limit and what became of it.

    Attributes:
        gate: Its key in the recipe.
        limit: What the recipe says.
        measured: The figure; None where it could not be measured.
        interval: Its 95 % interval; None for a figure without chance, such as a size.
        verdict: ``pass``, ``fail`` or ``undecided``.
        reason: One sentence.
    """

    gate: str
    limit: float
    measured: float | None
    interval: tuple[float, float] | None
    verdict: str
    reason: str


def judge_gates(recipe: Recipe, reports: Reports, bytes_of_last: int) -> list[GateResult]:
    """Return every gate of a recipe with its verdict; the drop of [verify] and the time of [prune] are of them.

    A figure with an interval passes when the whole interval does and fails when none of it does.

    Args:
        recipe: The gates, and which stages there are.
        reports: Of the stages that ran.
        bytes_of_last: Size of the last model.
    """
    gates, results = recipe.gates, []
    if gates.top1 is not None:
        right, n = _accuracy(recipe, reports)
        results.append(_top1(gates.top1, right, n))
    if "verify" in reports:
        results.append(_drop(reports["verify"], reports.get("quantize", {})))
    if reports.get("prune", {}).get("target"):
        results.append(_pruned_time(reports["prune"]))
    if gates.latency_ratio is not None:
        speedup = reports["bench"]["results"][1]["speedup"]
        bounds = (float(speedup["low"]), float(speedup["high"]))
        results.append(_least("latency_ratio", gates.latency_ratio, float(speedup["estimate"]), bounds, "x"))
    if gates.latency_ms is not None:
        results.append(_latency(gates.latency_ms, reports["bench"]["results"][-1]))
    if gates.size_mb is not None:
        size = bytes_of_last / 1e6
        verdict = PASS if size <= gates.size_mb else FAIL
        results.append(GateResult("size_mb", gates.size_mb, size, None, verdict, f"{size:.3g} MB"))
    return results


def worst_of(results: list[GateResult]) -> str:
    """Return the worst verdict; ``pass`` for no gates."""
    return next((v for v in (FAIL, UNDECIDED) if v in {r.verdict for r in results}), PASS)


def _accuracy(recipe: Recipe, reports: Reports) -> tuple[int, int]:
    """Return how many images the last model got right, of how many."""
    if "eval" in reports:
        n = int(reports["eval"]["n"])
        return round(reports["eval"]["top"]["1"]["accuracy"] * n), n
    if "verify" in reports:
        report = reports["verify"]
        if not report["top1"]:  # images without labels
            return 0, 0
        return round(report["top1"]["candidate"] * report["n"]), int(report["n"])
    last = reports[[s for s in TRAINING if s in recipe.stages][-1]]
    figures = last.get("after", last)
    n = int(last["host"]["n"])
    return round((figures["top1"] or 0.0) * n), n


def _top1(limit: float, right: int, n: int) -> GateResult:
    if not n:
        return GateResult("top1", limit, None, None, UNDECIDED, "the images have no labels; name some with --eval DIR")
    low, high = wilson_interval(right, n)
    share = right / n
    result = _least("top1", limit, share, (low, high), "")
    if result.verdict != UNDECIDED or share == limit:
        return result
    wanted = math.ceil(_Z**2 * limit * (1 - limit) / (share - limit) ** 2)  # Wilson's interval solved for n
    reason = f"{result.reason} on {n} images; about {max(wanted, n + 1)} would decide"
    return GateResult("top1", limit, share, (low, high), UNDECIDED, reason)


def _drop(report: Mapping[str, Any], quantized: Mapping[str, Any]) -> GateResult:
    """Return the drop's verdict: that of [quantize] where it is the stricter, for it knows how often it looked."""
    stricter = quantized.get("verdict") == UNDECIDED and report["verdict"] == PASS
    verdict, reason = (
        (quantized if stricter else report)["verdict"],
        (quantized["parity"] if stricter else report)["reason"],
    )
    interval = None if report["drop_interval"] is None else (report["drop_interval"][0], report["drop_interval"][1])
    limit, drop = float(report["max_drop_points"]), report["drop_points"]
    return GateResult("max_drop", limit, drop, interval, str(verdict), str(reason))


def _pruned_time(report: Mapping[str, Any]) -> GateResult:
    """Return the verdict on the time that [prune] was to reach; one that is missed for certain ends the stage."""
    ratio, limit = report["latency"]["ratio"], parse_target(report["settings"]["to"]).share
    interval = (float(ratio["low"]), float(ratio["high"]))
    reason = f"{ratio['estimate']:.3g} [{interval[0]:.3g}, {interval[1]:.3g}] of the time"
    verdict = PASS if report["target"] == "met" else UNDECIDED
    return GateResult("prune.to", limit, float(ratio["estimate"]), interval, verdict, reason)


def _latency(limit: float, result: Mapping[str, Any]) -> GateResult:
    measured = float(result["latency_p50_ms"])
    bounds = result["latency_p50_interval_ms"] or (measured, measured)
    mirrored = _least("latency_ms", -limit, -measured, (-float(bounds[1]), -float(bounds[0])), "")
    interval = (float(bounds[0]), float(bounds[1]))
    reason = f"{measured:.3g} ms [{interval[0]:.3g}, {interval[1]:.3g}]"
    return GateResult("latency_ms", limit, measured, interval, mirrored.verdict, reason)


def _least(gate: str, limit: float, measured: float, interval: tuple[float, float], unit: str) -> GateResult:
    low, high = interval
    verdict = PASS if low >= limit else FAIL if high < limit else UNDECIDED
    reason = f"{measured:.4g}{unit} [{low:.4g}, {high:.4g}]"
    return GateResult(gate, limit, measured, interval, verdict, reason)
