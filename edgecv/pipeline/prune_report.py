"""What a pruning did, measured before and after: size, time, accuracy, and what a compressed file saves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.config.pruning import parse_target
from edgecv.errors import GateFailedError
from edgecv.runtime.host import host_facts, usable_cores

if TYPE_CHECKING:
    from edgecv.nn.network import Network
    from edgecv.nn.prune.steps import PruneRun, Step
    from edgecv.pipeline.prune import PruneRequest

NO_FASTER = (
    "ONNX Runtime runs zeros like any other weight: this model is no faster, it only compresses better; --to removes "
    "whole channels and is faster"
)


def make_report(request: "PruneRequest", run: "PruneRun", steps: "Sequence[Step]", artifact: Path) -> dict[str, Any]:
    """Return everything but what is measured."""
    last = steps[-1].healed
    return {
        "artifact": str(artifact),
        "network": run.network.name,
        "source": dict(run.network.source),
        "settings": asdict(request.settings),
        "training": asdict(request.training) if run.data else None,
        "data": run.data.digest if run.data else None,
        "steps": [
            {"step": s.number, **asdict(s.size), "zeros": s.zeros, "top1": s.healed.best_top1 if s.healed else None}
            for s in steps
        ],
        "trials": [{"macs": t.aim, "time": asdict(t.time)} for t in run.trials],
        "left_alone": sorted(run.left_alone),
        "healed": None if last is None else {"seconds": sum(s.healed.seconds for s in steps if s.healed)},
        "target": None,
        "sparsity": None,
        "latency": None,
        "onnx_bytes": None,
        "notes": [*(run.data.notes if run.data else ()), *([NO_FASTER] if request.settings.by_weight else ())],
        "host": host_facts(
            threads=usable_cores() if request.threads == "auto" else int(request.threads),
            seed=request.seed,
            n=len(run.data.held_out) if run.data else 0,
        ),
    }


def measure_sparsity(pruned: "Network", original: Path, artifact: Path, scratch: Path) -> Mapping[str, Any]:
    """Return the share of zero weights, and the compressed sizes of both checkpoints."""
    from edgecv.nn.prune.unstructured import compressed_bytes, sparsity

    return {
        **sparsity(pruned.module),
        "compressed_before": compressed_bytes(original, scratch),
        "compressed_after": compressed_bytes(artifact, scratch),
    }


def check_latency(request: "PruneRequest", report: dict[str, Any]) -> None:
    """Record whether a latency target was met for certain.

    Raises:
        GateFailedError: It was missed for certain in the closing measurement.
    """
    target = parse_target(request.settings.to) if request.settings.to else None
    if target is None or target.measure != "latency" or report["latency"] is None:
        return
    ratio = report["latency"]["ratio"]
    report["target"] = "met" if ratio["high"] <= target.share else "undecided"
    if ratio["low"] > target.share:
        report["target"] = "missed"
        raise GateFailedError(
            f"--to {target}: the closing measurement gives {ratio['estimate']:.2f} [{ratio['low']:.2f}, "
            f"{ratio['high']:.2f}] of the time, over {target.share:g}; '{report['artifact']}' is written; ask for "
            "a little less, or measure on a quieter machine.",
            report,
        )
