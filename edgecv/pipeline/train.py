"""``edgecv train``: a network and a folder of images to a trained checkpoint in a run folder."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.config.training import TrainSettings
from edgecv.errors import EdgecvError, UsageError
from edgecv.evaluate.statistics import wilson_interval
from edgecv.files import sha256_file, write_bytes
from edgecv.pipeline.export import require_extra
from edgecv.pipeline.run_data import open_run_data
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts, package_versions

if TYPE_CHECKING:
    from edgecv.nn.network import Network
    from edgecv.nn.training import FitResult
    from edgecv.nn.training_data import TrainingData

REPORT_FILE = "train.json"
TOOLS = ("edgecv", "torch", "timm", "torchvision")

Tell = Callable[[str], None]


def say_nothing(line: str) -> None:
    """Drop a line: the default of ``tell``."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What ``edgecv train`` was asked; field for field its options, see ``edgecv train --help``."""

    model: str
    data: Path
    settings: TrainSettings = field(default_factory=TrainSettings)
    eval_data: Path | None = None
    hold_out: float = 0.1
    output: Path | None = None
    weights: Path | None = None
    pretrained: bool = False
    init_from: Path | None = None
    resume: bool = False
    force: bool = False
    seed: int = 0


def train_model(
    request: TrainRequest, progress: Progress = no_progress, tell: Tell = say_nothing
) -> dict[str, Any] | None:
    """Train, write the run folder, and return the report; None in a process that does not lead.

    Raises:
        UsageError: Options that contradict each other, unreadable data, a folder with another training in it.
        EnvironmentRefusedError: An extra is not installed, weights cannot be had, or the device is not there.
        KeyboardInterrupt: A signal came; the checkpoint is written.
    """
    check_start(request.weights, request.pretrained, request.init_from)
    require_extra("train", "torch", "timm", "torchvision", "safetensors")
    folder = request.output or Path("runs") / run_name(request.model)
    progress("load PyTorch", 0, 1)
    from edgecv.nn.names import check_name
    from edgecv.nn.training import fit, supervised
    from edgecv.nn.training.distributed import joined

    progress("load PyTorch", 1, 1)
    check_name(request.model)
    with run_folder(folder, resume=request.resume, force=request.force), joined(request.settings) as team:
        data = open_run_data(
            request.data, request.eval_data, request.hold_out, request.seed, folder, progress, start=request.model
        )
        network, notes = build_start(request, data)
        network = staged(network, "train", request.settings, {"seed": request.seed, "data": data.digest})
        heard = tell if team.leads else say_nothing
        for note in (*data.notes, *notes):
            heard(note)
        result = fit(
            network, data, request.settings, folder,
            objective=supervised(network.input, request.settings), seed=request.seed, resume=request.resume,
            progress=progress, tell=tell,
        )  # fmt: skip
        if not team.leads:
            return None
        return write_report(folder, network, data, result, request, (*data.notes, *notes))


def check_start(weights: Path | None, pretrained: bool, init_from: Path | None) -> None:
    """Raise UsageError when more than one starting point is named."""
    named = [o for o, v in (("--weights", weights), ("--pretrained", pretrained), ("--init-from", init_from)) if v]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} contradict each other; give one.")


def run_name(model: str) -> str:
    """Return the default name of a run folder.

    >>> run_name("torchvision:resnet18"), run_name("runs/teacher/model.safetensors")
    ('torchvision-resnet18', 'teacher-tuned')
    """
    if model.endswith(".safetensors"):
        path = Path(model)
        return f"{path.parent.name or path.stem}-tuned"
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in model)


@contextmanager
def run_folder(folder: Path, *, resume: bool, force: bool) -> Iterator[None]:
    """Make the run folder; refuse one that holds a training unless that goes on or is to be replaced.

    A folder made here that an error leaves with neither a checkpoint nor an artifact in it is removed again.

    Raises:
        UsageError: It cannot be made or written, or holds a training.
    """
    if resume and force:
        raise UsageError("--resume goes on with a training and --force replaces it; give one.")
    found = [n for n in ("checkpoints", "model.safetensors", REPORT_FILE) if (folder / n).exists()]
    if found and not (resume or force) and not _follows():
        raise UsageError(
            f"'{folder}' holds a training already; go on with --resume, replace it with --force, or choose another -o."
        )
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"cannot make the run folder '{folder}': {e.strerror}; choose another -o.") from e
    try:
        yield
    except EdgecvError:
        if folder in made and not (folder / "checkpoints").exists() and not list(folder.glob("*.safetensors")):
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made[1:]:
                with suppress(OSError):  # another run lies in it by now
                    parent.rmdir()
        raise


def build_start(request: TrainRequest, data: "TrainingData") -> tuple["Network", list[str]]:
    """Return the network to train with a head for the data's classes, and sentences about where it starts."""
    from edgecv.nn.models import build_network, build_untrained
    from edgecv.nn.training.preparation import copy_from_shallower, start_from_scratch, with_dropout

    settings, notes = request.settings, []
    size, classes = settings.input_size or None, len(data.labels)
    start = {"num_classes": classes, "input_size": size, "seed": request.seed}
    if request.weights or request.pretrained or request.model.endswith(".safetensors"):
        network = build_network(request.model, weights=request.weights, **start)  # type: ignore[arg-type]
        notes.append(f"weights: {network.source.get('weights', 'unknown')}")
    else:
        network = build_untrained(request.model, **start)  # type: ignore[arg-type]
        notes.append(f"from scratch: {start_from_scratch(network, data, settings, request.seed)}")
    if request.init_from is not None:
        shallow = build_network(str(request.init_from)).module
        copied, of = copy_from_shallower(network.module, shallow)
        notes.append(f"{copied} of {of} layers copied from '{request.init_from}'")
        network.source["init_from"] = sha256_file(request.init_from)
    network = with_dropout(network, settings)
    if tuple(network.label_ids or network.labels) != data.labels:
        network = replace(network, labels=data.labels, label_ids=())
    return network, notes


def staged(network: "Network", name: str, settings: Any, facts: dict[str, Any]) -> "Network":
    """Return ``network`` with one more stage in what will be its manifest."""
    stage = {"name": name, "settings": {**asdict(settings), **facts}, "tools": package_versions(*TOOLS)}
    return replace(network, stages=(*network.stages, stage))


def write_report(
    folder: Path,
    network: "Network",
    data: "TrainingData",
    result: "FitResult",
    request: TrainRequest,
    notes: tuple[str, ...],
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge the artifact as it lies on disk, in float32, write ``train.json`` with ``facts`` and return it."""
    from edgecv.nn.training.evaluation import judge_checkpoint

    right, n = judge_checkpoint(result.checkpoint, data.held_out, request.settings), len(data.held_out)
    low, high = wilson_interval(right, n)
    report = {
        "artifact": str(result.checkpoint),
        "network": network.name,
        "source": dict(network.source),
        "classes": len(data.labels),
        "top1": right / n,
        "top1_interval": [low, high],
        "n": n,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "images_per_second": result.images_per_second,
        "waiting_share": result.waiting_share,
        "seconds": result.seconds,
        "notes": [*notes, *result.notes],
        "settings": asdict(request.settings),
        "data": {"digest": data.digest, "train": len(data.train), "held_out": n},
        "history": [dict(row) for row in result.history],
        **(facts or {}),
        "host": host_facts(seed=request.seed, n=n),
    }
    write_bytes(folder / REPORT_FILE, json.dumps(report, indent=2, default=str).encode() + b"\n")
    return report


def _follows() -> bool:
    """Return whether another process of this training leads, and may have begun to write already."""
    from edgecv.nn.training.distributed import team_of_environment

    return not team_of_environment().leads
