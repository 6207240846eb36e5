"""What a cut did to a network, measured before and after: size, time and accuracy; for pruning and factorization."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.evaluate.statistics import wilson_interval
from edgecv.pipeline.export import check_images
from edgecv.progress import Progress

if TYPE_CHECKING:
    from edgecv.benchmark.report import BenchReport
    from edgecv.nn.meter import Meter
    from edgecv.nn.network import Network
    from edgecv.nn.training_data import TrainingData

CHECK_IMAGES = 4
"""Photographs each exported network is checked on before it is timed."""


def check_classes(network: "Network", data: "TrainingData") -> None:
    """Raise UsageError unless the network's classes are those of the data, in their order."""
    from edgecv.nn.distill.teacher import class_columns, teacher_of

    if class_columns(teacher_of(network), data.labels) is not None:
        raise UsageError(
            f"the network's classes are not the {len(data.labels)} of the data in their order; train it on them first: "
            "edgecv train MODEL --data DIR."
        )


def judge(checkpoint: Path, data: "TrainingData | None", training: TrainSettings) -> dict[str, Any]:
    """Return held-out top-1 of a checkpoint with its interval; None without data."""
    if data is None:
        return {"top1": None, "top1_interval": None}
    from edgecv.nn.training.evaluation import judge_checkpoint

    right, n = judge_checkpoint(checkpoint, data.held_out, training), len(data.held_out)
    return {"top1": right / n, "top1_interval": list(wilson_interval(right, n))}


def open_meter(
    network: "Network", data: Path | None, scratch: Path, *, provider: str, threads: str, seed: int
) -> "Meter":
    """Export the original into ``scratch`` and return what times others against it."""
    from edgecv.nn.meter import Meter

    images = check_images(data)[:CHECK_IMAGES]
    meter = Meter(scratch / "original.onnx", scratch, images, provider, threads, seed)
    meter.export(network, "original.onnx")
    return meter


def time_both(meter: "Meter", cut: "Network", progress: Progress) -> dict[str, Any]:
    """Export the cut network and time it against the original."""
    from edgecv.nn.meter import time_ratio

    candidate = meter.export(cut, "cut.onnx")
    bench: BenchReport = meter.compare(candidate, "rapid", progress)
    first, second = bench.results
    return {
        "latency": {
            "ratio": asdict(time_ratio(bench)),
            "before_p50_ms": first.latency_p50_ms,
            "after_p50_ms": second.latency_p50_ms,
            "provider": meter.provider,
            "verdict": bench.verdict,
            "noise": asdict(bench.noise),
            "threads": first.threads,
            "n": second.n,
        },
        "onnx_bytes": {"before": first.model_bytes, "after": second.model_bytes},
    }
