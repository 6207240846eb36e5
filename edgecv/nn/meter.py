"""Cut networks exported and timed against the network they came from: time is not in proportion to MACs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv.benchmark.latency import compare_latency
from edgecv.benchmark.plan import Preset
from edgecv.benchmark.report import BenchReport
from edgecv.benchmark.statistics import Interval
from edgecv.nn.export import ExportSettings, export_network
from edgecv.nn.network import Network
from edgecv.progress import Progress, no_progress

SEARCH = Preset("search", min_queries=64, min_seconds=2.0, max_seconds=20.0, max_warm_up_seconds=2.0)
"""Shorter than ``rapid``: the ratio inside interleaved rounds needs fewer runs than a latency of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Meter:
    """Times networks against the original.

    Attributes:
        original: The original, exported.
        folder: For exported candidates.
        images: Photographs an export is checked on.
        provider: Policy of :mod:`edgecv.runtime.providers`.
        threads: Intra-op threads: a number, or ``auto``.
        seed: Of inputs and resampling.
    """

    original: Path
    folder: Path
    images: Sequence[Path]
    provider: str
    threads: str
    seed: int

    def export(self, network: Network, name: str) -> Path:
        """Write a network as ``.onnx``, checked against PyTorch."""
        path = self.folder / name
        export_network(network, path, self.images, ExportSettings())
        return path

    def ratio(self, network: Network, progress: Progress = no_progress) -> Interval:
        """Return time of ``network`` over time of the original, with interval."""
        path = self.export(network, "candidate.onnx")
        return time_ratio(self.compare(path, SEARCH, progress))

    def compare(self, candidate: Path, preset: str | Preset, progress: Progress = no_progress) -> BenchReport:
        """Time the original and a candidate in interleaved rounds."""
        return compare_latency(
            [self.original, candidate],
            provider=self.provider,
            threads=self.threads,
            preset=preset,
            seed=self.seed,
            progress=progress,
        )


def time_ratio(report: BenchReport) -> Interval:
    """Return the second result's time over the first's: the inverse of its speed-up."""
    speedup = report.results[1].speedup
    if speedup is None:
        ratio = report.results[1].latency_p50_ms / report.results[0].latency_p50_ms
        return Interval(ratio, 0.0, float("inf"))
    return Interval(1 / speedup.estimate, 1 / speedup.high, 1 / speedup.low, speedup.level)
