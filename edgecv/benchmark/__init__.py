"""Honest latency: interleaved rounds, a process per candidate, intervals, and what the machine did meanwhile."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv.benchmark.latency import compare_latency
    from edgecv.benchmark.report import BenchReport

__all__ = ["BenchReport", "compare_latency"]


def __getattr__(name: str) -> Any:
    """Load lazily: the worker imports this package before its clocks start and must not pay for the parent's half."""
    if name == "compare_latency":
        from edgecv.benchmark.latency import compare_latency

        return compare_latency
    if name == "BenchReport":
        from edgecv.benchmark.report import BenchReport

        return BenchReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
