"""``edgecv prune``: a checkpoint to a smaller one, healed by its own unpruned self, measured before and after."""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.config.device import load_device
from edgecv.config.pruning import PruneSettings, parse_target
from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.files import write_bytes
from edgecv.pipeline.before_after import check_classes, judge, open_meter, time_both
from edgecv.pipeline.export import require_extra
from edgecv.pipeline.prune_report import check_latency, make_report, measure_sparsity
from edgecv.pipeline.run_data import open_run_data
from edgecv.pipeline.train import Tell, run_folder, run_name, say_nothing, staged
from edgecv.progress import Progress, no_progress

if TYPE_CHECKING:
    from edgecv.nn.meter import Meter
    from edgecv.nn.network import Network
    from edgecv.nn.training_data import TrainingData

REPORT_FILE = "prune.json"


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What ``edgecv prune`` was asked; field for field its options, see ``edgecv prune --help``."""

    model: str
    settings: PruneSettings
    training: TrainSettings = field(default_factory=TrainSettings)
    data: Path | None = None
    eval_data: Path | None = None
    hold_out: float = 0.1
    output: Path | None = None
    weights: Path | None = None
    random_init: bool = False
    bench: bool = True
    threads: str = "auto"
    resume: bool = False
    force: bool = False
    seed: int = 0


def prune_model(request: PruneRequest, progress: Progress = no_progress, tell: Tell = say_nothing) -> dict[str, Any]:
    """Prune, heal when there is data, write the run folder, and return the report.

    Raises:
        UsageError: Options that contradict each other, a target out of reach, a network that cannot be traced.
        EnvironmentRefusedError: An extra is not installed, weights cannot be had, or the provider is not there.
        GateFailedError: ``--to latency`` was met while searching and missed at the end; the error holds the report.
        KeyboardInterrupt: A signal came; ``--resume`` goes on.
    """
    _check_request(request)
    require_extra("train", "torch", "timm", "torchvision", "safetensors", "torch_pruning", "onnxscript")
    folder = request.output or Path("runs") / f"{run_name(request.model).removesuffix('-tuned')}-pruned"
    with run_folder(folder, resume=request.resume, force=request.force):
        return _prune_into(folder, request, progress, tell)


def _prune_into(folder: Path, request: PruneRequest, progress: Progress, tell: Tell) -> dict[str, Any]:
    progress("load PyTorch", 0, 1)
    from edgecv.nn.models import build_network

    progress("load PyTorch", 1, 1)
    size = request.training.input_size or None
    network = build_network(
        request.model, weights=request.weights, random_init=request.random_init, input_size=size, seed=request.seed
    )
    data = None
    if request.data is not None:
        data = open_run_data(
            request.data, request.eval_data, request.hold_out, request.seed, folder, progress, start=request.model
        )
        check_classes(network, data)
    network = staged(network, "prune", request.settings, {"seed": request.seed, "data": data.digest if data else ""})
    with tempfile.TemporaryDirectory(prefix="edgecv-prune-") as scratch:
        return _prune(request, network, data, folder, Path(scratch), progress, tell)


def _check_request(request: PruneRequest) -> None:
    settings = request.settings
    if not settings.to and not settings.by_weight:
        raise UsageError("say what is to remain: --to macs=0.5, --to latency=0.6@cpu, --unstructured 0.8, or --nm 2:4.")
    if settings.for_device:
        load_device(settings.for_device)
    if settings.criterion == "taylor" and request.data is None:
        raise UsageError("--criterion taylor needs labelled images; add --data DIR, or use --criterion l2.")
    if request.weights is not None and request.random_init:
        raise UsageError("--weights and --random-init contradict each other; give one.")
    if request.eval_data is not None and request.data is None:
        raise UsageError("--eval-data judges a healed network; add --data DIR to heal it.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "edgecv prune runs in one process; prune without --data, then heal in several: torchrun -m edgecv distill "
            "runs/x/model.safetensors --teacher CHECKPOINT --data DIR."
        )


def _prune(
    request: PruneRequest,
    network: "Network",
    data: "TrainingData | None",
    folder: Path,
    scratch: Path,
    progress: Progress,
    tell: Tell,
) -> dict[str, Any]:
    from edgecv.nn.checkpoint import save_network
    from edgecv.nn.prune.steps import PruneRun, prune_in_steps
    from edgecv.nn.size import measure_size

    original = scratch / "original.safetensors"
    save_network(original, network)
    meter = _open_meter(request, network, scratch)
    run = PruneRun(
        network, request.settings, request.training, data, folder, meter, request.seed, request.resume, progress, tell
    )
    whole = measure_size(network.module, network.input.input_size)
    if not request.resume and request.force:
        _clear_steps(folder)
    pruned, steps = prune_in_steps(run)
    artifact = folder / "model.safetensors"
    report = make_report(request, run, steps, artifact)
    report["before"] = asdict(whole) | {"file_bytes": original.stat().st_size} | judge(original, data, request.training)
    report["after"] = asdict(steps[-1].size) | {"file_bytes": artifact.stat().st_size}
    report["after"] |= judge(artifact, data, request.training)
    if request.settings.by_weight:
        report["sparsity"] = measure_sparsity(pruned, original, artifact, scratch)
    if meter is not None and request.bench:
        report |= time_both(meter, pruned, progress)
    try:
        check_latency(request, report)
    finally:
        write_bytes(folder / REPORT_FILE, json.dumps(report, indent=2, default=str).encode() + b"\n")
    return report


def _open_meter(request: PruneRequest, network: "Network", scratch: Path) -> "Meter | None":
    """Export the original, when anything will be timed."""
    target = parse_target(request.settings.to) if request.settings.to else None
    timed = target is not None and target.measure == "latency"
    if not timed and not request.bench:
        return None
    provider = target.provider if target else "cpu"
    return open_meter(network, request.data, scratch, provider=provider, threads=request.threads, seed=request.seed)


def _clear_steps(folder: Path) -> None:
    """Remove what an earlier pruning left in a folder that is to be replaced."""
    for step in folder.glob("step-*"):
        shutil.rmtree(step, ignore_errors=True)
    (folder / "pruned.safetensors").unlink(missing_ok=True)
