"""What a factorization did: layer by layer, and measured before and after."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.evaluate.statistics import wilson_interval
from edgecv.pipeline.export import check_images
from edgecv.progress import Progress
from edgecv.runtime.host import host_facts, usable_cores

if TYPE_CHECKING:
    from edgecv.nn.factorize.plan import Factorizable, Option
    from edgecv.nn.network import Network
    from edgecv.nn.training import FitResult
    from edgecv.nn.training_data import TrainingData
    from edgecv.pipeline.factorize import FactorizeRequest

CUT_FILE = "factorized.safetensors"
"""The network before it is healed: what ``--resume`` goes on with."""

CHECK_IMAGES = 4
"""Photographs each exported network is checked on before it is timed."""


def layer_rows(
    factorizable: "Factorizable", choice: "Mapping[str, Option]", kept: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return what became of each layer that was replaced."""
    return [
        {
            "layer": c.found.name,
            "method": choice[c.found.name].method,
            "rank": list(choice[c.found.name].rank),
            "energy": kept[c.found.name],
            "macs_before": c.macs,
            "macs_after": choice[c.found.name].macs,
        }
        for c in factorizable.candidates
        if c.found.name in choice
    ]


def measure(
    request: "FactorizeRequest",
    network: "Network",
    factorized: "Network",
    data: "TrainingData | None",
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Return size, time and accuracy before and after."""
    from edgecv.nn.checkpoint import save_network
    from edgecv.nn.prune.count import measure_size

    measured: dict[str, Any] = {"latency": None, "onnx_bytes": None}
    network.module.to("cpu")
    with tempfile.TemporaryDirectory(prefix="edgecv-factorize-") as scratch:
        original, artifact = Path(scratch) / "original.safetensors", folder / "model.safetensors"
        save_network(original, network)
        for key, net, file in (("before", network, original), ("after", factorized, artifact)):
            size = measure_size(net.module, net.input.input_size)
            measured[key] = asdict(size) | {"file_bytes": file.stat().st_size} | _judge(file, data, request)
        measured["unhealed_top1"] = _judge(folder / CUT_FILE, data, request)["top1"]
        if request.bench:
            measured |= _time_both(request, network, factorized, Path(scratch), progress)
    return measured


def _judge(checkpoint: Path, data: "TrainingData | None", request: "FactorizeRequest") -> dict[str, Any]:
    if data is None:
        return {"top1": None, "top1_interval": None}
    from edgecv.nn.training.evaluation import judge_checkpoint

    right, n = judge_checkpoint(checkpoint, data.held_out, request.training), len(data.held_out)
    return {"top1": right / n, "top1_interval": list(wilson_interval(right, n))}


def _time_both(
    request: "FactorizeRequest", network: "Network", factorized: "Network", scratch: Path, progress: Progress
) -> dict[str, Any]:
    from edgecv.nn.prune.latency import Meter
    from edgecv.pipeline.prune_report import time_both

    images = check_images(request.data)[:CHECK_IMAGES]
    provider = request.settings.provider
    meter = Meter(scratch / "original.onnx", scratch, images, provider, request.threads, request.seed)
    meter.export(network, "original.onnx")
    return time_both(meter, factorized, progress)


def facts_of(
    request: "FactorizeRequest",
    network: "Network",
    data: "TrainingData | None",
    healed: "FitResult | None",
    folder: Path,
) -> dict[str, Any]:
    """Return what was asked for, and on what machine."""
    return {
        "artifact": str(folder / "model.safetensors"),
        "network": network.name,
        "source": dict(network.source),
        "settings": asdict(request.settings),
        "training": asdict(request.training) if data else None,
        "data": data.digest if data else None,
        "healed": None if healed is None else {"seconds": healed.seconds, "best_epoch": healed.best_epoch},
        "notes": [*(data.notes if data else ()), *(healed.notes if healed else ())],
        "host": host_facts(
            threads=usable_cores() if request.threads == "auto" else int(request.threads),
            seed=request.seed,
            n=len(data.held_out) if data else 0,
        ),
    }
