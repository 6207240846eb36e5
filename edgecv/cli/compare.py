"""``edgecv compare``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.options import Debug, Json, Quiet, Seed
from edgecv.cli.output import emit

if TYPE_CHECKING:
    from edgecv.benchmark.compare import Change


def compare(
    before: Annotated[Path, typer.Argument(help="The older report of edgecv bench.")],
    after: Annotated[Path, typer.Argument(help="The newer one.")],
    max_regress: Annotated[
        str, typer.Option("--max-regress", help="Largest slowdown allowed, e.g. 3%; beyond it: exit 1.")
    ] = "",
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Compare two benchmark reports: ratio with interval; exit 1 when slower than allowed, 4 when undecided."""
    from edgecv.benchmark.compare import compare_results, host_differences, overall_verdict
    from edgecv.benchmark.report import load_results

    limit = _percent(max_regress)
    (host_a, results_a), (host_b, results_b) = load_results(before), load_results(after)
    changes = compare_results(results_a, results_b, max_regress=limit, seed=seed)
    moved = host_differences(host_a, host_b)
    left_out = len(results_a) + len(results_b) - 2 * len(changes)
    verdict = overall_verdict(changes)
    notes = ["two runs at different times: a drift of the machine between them is not in the intervals"]
    notes += [f"measured on different ground, {x}" for x in moved]
    notes += [f"{left_out} results have no counterpart in the other report"] if left_out else []
    emit(
        {
            "before": str(before),
            "after": str(after),
            "max_regress": limit,
            "verdict": verdict,
            "changes": [asdict(c) for c in changes],
            "host_differences": moved,
            "host": {"before": host_a, "after": host_b},
            "seed": seed,
            "n": sum(len(r["turn_medians_ms"]) for r in (*results_a, *results_b)),
            "notes": notes,
        },
        as_json=as_json,
        quiet=quiet,
        tables=[("", ("model", "before ms", "after ms", "time ratio", "95 % interval", ""), _rows(changes))],
        notes=notes,
        verdict=_sentence(changes, verdict, max_regress),
        next_command="edgecv bench --preset official" if verdict == "undecided" else "",
    )
    if verdict in ("fail", "undecided"):
        raise typer.Exit(1 if verdict == "fail" else 4)


def _rows(changes: "list[Change]") -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for c in changes:
        s = c.slowdown
        name = c.after if c.before == c.after else f"{c.before} → {c.after}"
        ratio, interval = (f"{s.estimate:.3f}", f"{s.low:.3f}–{s.high:.3f}") if s else ("–", "too few rounds")
        rows.append((name, f"{c.before_ms:.4g}", f"{c.after_ms:.4g}", ratio, interval, c.verdict))
    return rows


def _sentence(changes: "list[Change]", verdict: str, limit: str) -> str:
    compared = [c for c in changes if c.slowdown]
    if not compared:
        return "undecided: too few rounds in the reports"
    worst = max(compared, key=lambda c: c.slowdown.estimate if c.slowdown else 0.0)
    assert worst.slowdown is not None
    change = 100 * (worst.slowdown.estimate - 1)
    low, high = 100 * (worst.slowdown.low - 1), 100 * (worst.slowdown.high - 1)
    text = f"{worst.after} takes {change:+.1f} % time (95 % interval {low:+.1f} to {high:+.1f} %)"
    return f"{verdict}: {text}, allowed +{limit.rstrip('%')} %" if verdict else text


def _percent(text: str) -> float | None:
    from edgecv.errors import UsageError

    if not text:
        return None
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1000:
        raise UsageError(f"--max-regress '{text}' is not a percentage such as 3%.")
    return value / 100
