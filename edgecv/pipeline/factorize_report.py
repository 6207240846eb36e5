"""What a factorization did: layer by layer, and measured before and after."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.pipeline.before_after import judge, open_meter, time_both
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
    from edgecv.nn.size import measure_size

    measured: dict[str, Any] = {"latency": None, "onnx_bytes": None}
    network.module.to("cpu")
    with tempfile.TemporaryDirectory(prefix="edgecv-factorize-") as scratch:
        original, artifact = Path(scratch) / "original.safetensors", folder / "model.safetensors"
        save_network(original, network)
        for key, net, file in (("before", network, original), ("after", factorized, artifact)):
            size = measure_size(net.module, net.input.input_size)
            measured[key] = asdict(size) | {"file_bytes": file.stat().st_size} | judge(file, data, request.training)
        measured["unhealed_top1"] = judge(folder / CUT_FILE, data, request.training)["top1"]
        if request.bench:
            meter = open_meter(
                network, request.data, Path(scratch),
                provider=request.settings.provider, threads=request.threads, seed=request.seed,
            )  # fmt: skip
            measured |= time_both(meter, factorized, progress)
    return measured


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
