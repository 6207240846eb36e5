"""``edgecv factorize``: layers into cheaper ones, healed by the unfactorized self, measured before and after."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.config.factorization import FactorizeSettings
from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.files import sha256_file, write_bytes
from edgecv.pipeline.before_after import check_classes
from edgecv.pipeline.export import require_extra
from edgecv.pipeline.factorize_report import CUT_FILE, facts_of, layer_rows, measure
from edgecv.pipeline.run_data import open_run_data
from edgecv.pipeline.train import Tell, run_folder, run_name, say_nothing, staged
from edgecv.progress import Progress, no_progress
from edgecv.runtime.providers import parse_providers

if TYPE_CHECKING:
    from edgecv.nn.factorize.timing import Timed
    from edgecv.nn.network import Network
    from edgecv.nn.training import FitResult
    from edgecv.nn.training_data import TrainingData

REPORT_FILE = "factorize.json"


@dataclass(frozen=True, slots=True)
class FactorizeRequest:
    """What ``edgecv factorize`` was asked; field for field its options, see ``edgecv factorize --help``."""

    model: str
    settings: FactorizeSettings = field(default_factory=FactorizeSettings)
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


def factorize_model(
    request: FactorizeRequest, progress: Progress = no_progress, tell: Tell = say_nothing
) -> dict[str, Any]:
    """Factorize, heal when there is data, write the run folder, and return the report.

    Raises:
        UsageError: Options that contradict each other, a target out of reach, or no layer that gets cheaper.
        EnvironmentRefusedError: An extra is not installed, weights cannot be had, or the provider is not there.
        KeyboardInterrupt: A signal came while healing; ``--resume`` goes on.
    """
    _check_request(request)
    require_extra("train", "torch", "timm", "torchvision", "safetensors", "onnx", "onnxscript", "tensorly")
    folder = request.output or Path("runs") / f"{run_name(request.model).removesuffix('-tuned')}-factorized"
    with run_folder(folder, resume=request.resume, force=request.force):
        return _factorize_into(folder, request, progress, tell)


def _factorize_into(folder: Path, request: FactorizeRequest, progress: Progress, tell: Tell) -> dict[str, Any]:
    progress("load PyTorch", 0, 1)
    from edgecv.nn.checkpoint import load_network, save_network
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
    facts = {"seed": request.seed, "data": data.digest if data else "", "healed": data is not None}
    network = staged(network, "factorize", request.settings, facts)
    cut = folder / CUT_FILE
    report: dict[str, Any] = {}
    if not (request.resume and cut.is_file()):
        factorized, report = _factorize(request, network, progress)
        save_network(cut, factorized)
        write_bytes(folder / REPORT_FILE, _as_json(report))
    else:
        report = _earlier(folder / REPORT_FILE)
    factorized = replace(load_network(cut), source=network.source)
    _check_same(network, factorized, cut)
    healed = _heal(request, network, factorized, data, folder, progress, tell)
    report |= measure(request, network, factorized, data, folder, progress)
    report |= facts_of(request, network, data, healed, folder)
    write_bytes(folder / REPORT_FILE, _as_json(report))
    return report


def _check_request(request: FactorizeRequest) -> None:
    if request.weights is not None and request.random_init:
        raise UsageError("--weights and --random-init contradict each other; give one.")
    if request.threads != "auto" and not (request.threads.isdecimal() and 1 <= int(request.threads) <= 1024):
        raise UsageError(f"--bench-threads '{request.threads}' is neither auto nor a number from 1 to 1024.")
    parse_providers(request.settings.provider)
    if request.eval_data is not None and request.data is None:
        raise UsageError("--eval-data judges a healed network; add --data DIR to heal it.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "edgecv factorize runs in one process; factorize without --data, then heal in several: torchrun -m edgecv "
            "distill runs/x/model.safetensors --teacher CHECKPOINT --data DIR."
        )


def _factorize(request: FactorizeRequest, network: "Network", progress: Progress) -> tuple["Network", dict[str, Any]]:
    """Return the factorized network, and what was done to which layer."""
    from edgecv.nn.factorize.plan import analyse, find_choice, replace_layers
    from edgecv.nn.factorize.timing import choose_by_time

    settings = request.settings
    factorizable = analyse(network, settings, seed=request.seed, progress=progress)
    target, energy = settings.target(), settings.energy
    timed: list[Timed] = []
    choice = factorizable.choose(energy, settings.rank)
    if target is not None:
        choice, energy = find_choice(factorizable, target)
    if settings.by == "latency":
        choice, timed = choose_by_time(
            factorizable, energy, rank=settings.rank, provider=settings.provider, threads=request.threads,
            progress=progress,
        )  # fmt: skip
    if not choice:
        raise UsageError(_nothing_gained(settings, timed))
    factorized, kept = replace_layers(factorizable, choice, progress)
    left = factorizable.left_alone | {
        c.found.name: "no replacement is faster" if timed else "no replacement with that energy saves MACs"
        for c in factorizable.candidates
        if c.found.name not in choice
    }
    return factorized, {
        "energy": None if settings.rank else energy,
        "rank_multiple": factorizable.multiple,
        "layers": layer_rows(factorizable, choice, kept),
        "left_alone": left,
        "timed": [asdict(t) for t in timed],
    }


def _nothing_gained(settings: FactorizeSettings, timed: "list[Timed]") -> str:
    if timed:
        best = max((t.speedup.estimate for t in timed if t.speedup), default=0.0)
        return (
            f"of {len(timed)} replacements timed on {settings.provider} none is certainly faster than its layer (the "
            f"best: {best:.2f}x), so nothing was written; lower --energy, or leave out --by latency."
        )
    if settings.rank:
        return f"at --rank {settings.rank} no layer gets cheaper, so nothing was written; give a lower rank."
    return (
        f"at --energy {settings.energy:g} no layer gets cheaper, so nothing was written; lower it, or say what is to "
        "remain: --to macs=0.7."
    )


def _earlier(path: Path) -> dict[str, Any]:
    """Return what the run before said of its layers; nothing when that is not to be read any more."""
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {"energy": None, "rank_multiple": None, "layers": [], "left_alone": {}, "timed": []}
    return report if isinstance(report, dict) else {}


def _check_same(asked: "Network", found: "Network", file: Path) -> None:
    """Raise UsageError when what lies in the folder was factorized with other settings."""
    now, then = (json.loads(json.dumps(n.stages[-1]["settings"], default=str)) for n in (asked, found))
    for key in sorted(now.keys() | then.keys()):
        if now.get(key) != then.get(key):
            raise UsageError(
                f"'{file}' was factorized with {key} {then.get(key)!r}, not {now.get(key)!r}; go on with the same, or "
                "start anew with --force."
            )


def _heal(
    request: FactorizeRequest,
    network: "Network",
    factorized: "Network",
    data: "TrainingData | None",
    folder: Path,
    progress: Progress,
    tell: Tell,
) -> "FitResult | None":
    """Train the factorized network to answer like the original; without data write it as it is."""
    if data is None:
        from edgecv.nn.checkpoint import save_network

        save_network(folder / "model.safetensors", factorized)
        return None
    from edgecv.nn.distill.objective import HEALING, healed_by
    from edgecv.nn.training import fit
    from edgecv.nn.training.placement import place

    for parameter in factorized.module.parameters():
        parameter.requires_grad_(True)
    device = place(request.training).device.type
    return fit(
        factorized, data, request.training, folder,
        objective=healed_by(network, device=device), seed=request.seed, resume=request.resume,
        identity={"factorized": sha256_file(folder / CUT_FILE), "healing": str(HEALING)},
        progress=progress, tell=tell,
    )  # fmt: skip


def _as_json(report: Mapping[str, Any]) -> bytes:
    return json.dumps(report, indent=2, default=str).encode() + b"\n"
