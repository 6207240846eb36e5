"""``edgecv distill``: a student learns from a teacher, by the loop and into the run folder of ``edgecv train``."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.config.distillation import DistillSettings
from edgecv.errors import UsageError
from edgecv.files import sha256_bytes
from edgecv.pipeline.export import require_extra
from edgecv.pipeline.run_data import open_run_data
from edgecv.pipeline.train import (
    Tell,
    TrainRequest,
    build_start,
    check_start,
    run_folder,
    run_name,
    say_nothing,
    staged,
    write_report,
)
from edgecv.progress import Progress, no_progress
from edgecv.workspace import user_cache

if TYPE_CHECKING:
    from edgecv.nn.distill.kept_logits import KeptLogits
    from edgecv.nn.distill.teacher import Teacher
    from edgecv.nn.network import Network
    from edgecv.nn.training.distributed import Team
    from edgecv.nn.training_data import TrainingData

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class DistillRequest:
    """What ``edgecv distill`` was asked; field for field its options, see ``edgecv distill --help``.

    Attributes:
        train: As for ``edgecv train``; its ``model`` is the student, or ``auto``.
        teacher: Checkpoint, ``.onnx`` or network name.
        teacher_weights: State dict of a teacher given by name.
        distillation: Losses and weights.
        like: Network that an ``auto`` student is the depthwise-separable version of.
        macs: Of an ``auto`` student, see :func:`edgecv.nn.student.student_of`.
    """

    train: TrainRequest
    teacher: str
    teacher_weights: Path | None = None
    distillation: DistillSettings = field(default_factory=DistillSettings)
    like: str = ""
    macs: float = 0.1


def distill_model(
    request: DistillRequest, progress: Progress = no_progress, tell: Tell = say_nothing
) -> dict[str, Any] | None:
    """Train the student, write the run folder, and return the report; None in a process that does not lead.

    The report is that of ``edgecv train`` with ``teacher`` (name, top-1 on the same images, MACs) and ``macs`` beside.

    Raises:
        UsageError: Options that contradict each other, a teacher without the data's classes, unreadable data.
        EnvironmentRefusedError: An extra is not installed, weights or provider cannot be had.
        KeyboardInterrupt: A signal came; the checkpoint is written.
    """
    wanted, settings = request.train, request.train.settings
    check_student(request)
    check_start(wanted.weights, wanted.pretrained, wanted.init_from)
    require_extra("train", "torch", "timm", "torchvision", "safetensors")
    folder = wanted.output or Path("runs") / run_folder_name(request)
    progress("load PyTorch", 0, 1)
    from edgecv.nn.distill.objective import distilled, in_order
    from edgecv.nn.distill.teacher import class_columns, open_teacher
    from edgecv.nn.names import check_name
    from edgecv.nn.training import fit
    from edgecv.nn.training.distributed import joined
    from edgecv.nn.training.placement import place

    progress("load PyTorch", 1, 1)
    check_name(request.like or wanted.model)
    with run_folder(folder, resume=wanted.resume, force=wanted.force), joined(settings) as team:
        device = place(settings, team.local_rank).device
        teacher = open_teacher(
            request.teacher, weights=request.teacher_weights, provider=request.distillation.teacher_provider,
            threads=settings.threads or "auto", device=device,
        )  # fmt: skip
        start = wanted.model if wanted.model.endswith(".safetensors") else request.teacher
        data = open_run_data(wanted.data, wanted.eval_data, wanted.hold_out, wanted.seed, folder, progress, start=start)
        columns = class_columns(teacher, data.labels)
        network, notes = build_student(request, data)
        facts = {"seed": wanted.seed, "data": data.digest, "teacher": teacher.name, "teacher_sha256": teacher.digest}
        network = staged(network, "distill", settings, {**asdict(request.distillation), **facts})
        heard = tell if team.leads else say_nothing
        for note in (*data.notes, *notes):
            heard(note)
        ask = in_order(teacher.ask, columns)
        kept = keep_logits(request, teacher, network, data, ask, team)
        objective = distilled(
            teacher, network.module, network.input, request.distillation, label_smoothing=settings.label_smoothing,
            ask=(lambda pixels, batch: ask(pixels)) if kept is None else kept,
        )  # fmt: skip
        result = fit(
            network, data, settings, folder, objective=objective, seed=wanted.seed, resume=wanted.resume,
            identity={"teacher": teacher.digest or teacher.name, **_as_text(request.distillation)},
            progress=progress, tell=tell,
        )  # fmt: skip
        if not team.leads:
            return None
        notes = [*data.notes, *notes, *kept_note(kept)]
        compared = compare(teacher, network, data, columns, settings.workers)
        return write_report(folder, network, data, result, wanted, tuple(notes), compared)


def check_student(request: DistillRequest) -> None:
    """Raise UsageError unless a student is named, or ``auto`` and what it shall be like."""
    if request.train.model == AUTO and not request.like:
        raise UsageError("--student auto needs the network it shall be like: --like resnet50.")
    if request.train.model != AUTO and request.like:
        raise UsageError(f"--like goes with --student auto; '{request.train.model}' is a network of its own.")
    if request.train.model == AUTO and (request.train.weights or request.train.pretrained):
        raise UsageError("--student auto has no weights to start from; leave out --weights and --pretrained.")


def run_folder_name(request: DistillRequest) -> str:
    """Return the default name of the run folder: the student's."""
    return f"{run_name(request.like)}-student" if request.train.model == AUTO else run_name(request.train.model)


def build_student(request: DistillRequest, data: "TrainingData") -> tuple["Network", list[str]]:
    """Return the student with a head for the data's classes, and sentences about where it starts."""
    wanted = request.train
    if wanted.model != AUTO:
        return build_start(wanted, data)
    from edgecv.nn.student import student_of
    from edgecv.nn.training.preparation import start_from_scratch, with_dropout

    size = wanted.settings.input_size or None
    network = student_of(
        request.like, macs=request.macs, num_classes=len(data.labels), input_size=size, seed=wanted.seed
    )
    made = network.stages[-1]["settings"]
    how = start_from_scratch(network, data, wanted.settings, wanted.seed)
    note = f"student: {request.like}, depthwise-separable, {made['macs'] / 1e6:.1f} M MACs ({made['macs_share']:.1%})"
    network = replace(with_dropout(network, wanted.settings), labels=data.labels, label_ids=())
    return network, [note, f"from scratch: {how}"]


def keep_logits(
    request: DistillRequest, teacher: "Teacher", network: "Network", data: "TrainingData", ask: Any, team: "Team"
) -> "KeptLogits | None":
    """Return the answers kept on disk, or None where they cannot be: not asked for, or images are mixed."""
    from edgecv.nn.distill.kept_logits import KeptLogits

    wanted, settings = request.distillation, request.train.settings
    needs_features = bool(wanted.hints)  # the teacher runs anyway
    if wanted.keep_logits == "off" or settings.mixup or settings.cutmix or needs_features:
        if wanted.keep_logits == "on":
            raise UsageError("keep_logits on does not go with mixup, cutmix or hints: the teacher must see each batch.")
        return None
    spec = network.input
    seen = (teacher.digest or teacher.name, data.digest, spec.input_size, spec.interpolation, settings.augment)
    name = sha256_bytes(repr(seen).encode())[:32]
    path = user_cache("teacher-logits") / f"{name}-{team.rank}-of-{team.world}.db"
    return KeptLogits(path, ask, always=wanted.keep_logits == "on")


def kept_note(kept: "KeptLogits | None") -> list[str]:
    """Return what was measured of keeping logits, and how often that served; close the file."""
    if kept is None:
        return []
    served = [f"teacher's logits of {kept.hits} images came from an earlier run"] if kept.hits else []
    notes = [*([f"teacher's logits: {kept.note}"] if kept.note else []), *served]
    kept.close()
    return notes


def compare(
    teacher: "Teacher", network: "Network", data: "TrainingData", columns: list[int] | None, workers: int
) -> dict[str, Any]:
    """Return the teacher's top-1 on the held-out images, preprocessed as it wants them, and the MACs of both."""
    from edgecv.nn.size import count_macs
    from edgecv.nn.training_data import evaluation_batches

    right = sum(
        int((teacher.ask(b.pixels.to(_device(teacher)), columns).argmax(1).cpu() == b.targets).sum())
        for b in evaluation_batches(data.held_out, teacher.spec, workers=workers)
    )
    macs = None if teacher.module is None else count_macs(teacher.module, teacher.spec.input_size)
    return {
        "teacher": {"name": teacher.name, "top1": right / len(data.held_out), "macs": macs},
        "macs": count_macs(network.module, network.input.input_size),
    }


def _device(teacher: "Teacher") -> Any:
    first = None if teacher.module is None else next(teacher.module.parameters(), None)
    return "cpu" if first is None else first.device


def _as_text(settings: DistillSettings) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(settings).items()}
