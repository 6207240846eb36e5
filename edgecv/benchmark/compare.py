"""Two benchmark reports side by side: what became slower, and is it more than a given limit?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.benchmark.statistics import Interval, unpaired_ratio
from edgecv.errors import UsageError

HOST_KEYS = ("cpu", "machine", "cores_usable", "os", "python", "versions")
"""Facts whose change makes a comparison one of machines rather than of models."""


@dataclass(frozen=True, slots=True)
class Change:
    """One measurement in two reports.

    Attributes:
        before: Its name in the first report.
        after: Its name in the second.
        before_ms: Median run there, in milliseconds.
        after_ms: Median run here, in milliseconds.
        slowdown: Time per image after / before, with interval: 1.03 = 3 % slower; None with too few rounds.
        verdict: ``pass``, ``fail``, ``undecided``, or ``""`` when no limit was given.
    """

    before: str
    after: str
    before_ms: float
    after_ms: float
    slowdown: Interval | None
    verdict: str


def compare_results(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    *,
    max_regress: float | None = None,
    seed: int = 0,
) -> list[Change]:
    """Compare the results of two reports, matched by file name, provider, batch and threads.

    Two reports of one result each are compared whatever they are.

    Args:
        before: From :func:`edgecv.benchmark.report.load_results`.
        after: The same of the newer report.
        max_regress: Largest tolerated slowdown, as a fraction (0.03 = 3 %). ``pass`` if the interval's upper end is
            within it, ``fail`` if its lower end is beyond it, ``undecided`` otherwise.
        seed: Of the resampling.

    Raises:
        UsageError: Nothing matches.
    """
    if len(before) == len(after) == 1:
        pairs = [(before[0], after[0])]
    else:
        known = {_key(r): r for r in before}
        pairs = [(known[_key(r)], r) for r in after if _key(r) in known]
    if not pairs:
        raise UsageError(
            f"the reports have nothing in common: {', '.join(map(_name, before))} against "
            f"{', '.join(map(_name, after))}; bench the same files with the same --provider, --batch and --threads."
        )
    return [_compare(a, b, max_regress, seed) for a, b in pairs]


def host_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return which facts about the machine or its software differ, in words."""
    return [f"{k}: {before.get(k)} → {after.get(k)}" for k in HOST_KEYS if before.get(k) != after.get(k)]


def overall_verdict(changes: Sequence[Change]) -> str:
    """Return the worst verdict of all: ``fail``, then ``undecided``, then ``pass``, else ``""``."""
    found = {c.verdict for c in changes}
    return next((v for v in ("fail", "undecided", "pass") if v in found), "")


def _compare(a: Mapping[str, Any], b: Mapping[str, Any], limit: float | None, seed: int) -> Change:
    first, second = (np.asarray(r["turn_medians_ms"], np.float64) / r["batch"] for r in (a, b))
    slowdown = unpaired_ratio(second, first, seed=seed)
    return Change(
        before=_name(a),
        after=_name(b),
        before_ms=float(np.median(a["turn_medians_ms"])) if len(first) else float("nan"),
        after_ms=float(np.median(b["turn_medians_ms"])) if len(second) else float("nan"),
        slowdown=slowdown,
        verdict=_verdict(slowdown, limit),
    )


def _verdict(slowdown: Interval | None, limit: float | None) -> str:
    if limit is None:
        return ""
    if slowdown is None:
        return "undecided"
    if slowdown.low > 1 + limit:
        return "fail"
    return "pass" if slowdown.high <= 1 + limit else "undecided"


def _key(result: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return Path(result["model"]).name, result["provider"], result["batch"], result["threads"]


def _name(result: Mapping[str, Any]) -> str:
    name, provider, batch, threads = _key(result)
    return f"{name} on {provider} (batch {batch}, threads {threads})"
