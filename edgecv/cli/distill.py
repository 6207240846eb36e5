"""``edgecv distill``."""

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.options import DataDir, Debug, Force, Json, Quiet, Seed, named_path
from edgecv.cli.output import emit, progress_bar, say
from edgecv.cli.settings_options import settings_options
from edgecv.config.distillation import DistillSettings
from edgecv.config.training import TrainSettings


@settings_options(settings=TrainSettings(), distillation=DistillSettings())
def distill(
    data: DataDir,
    teacher: Annotated[str, typer.Option("--teacher", help="Checkpoint, .onnx, or network with published weights.")],
    settings: TrainSettings,
    distillation: DistillSettings,
    student: Annotated[
        str, typer.Argument(help="Network name, torchvision:NAME, a checkpoint; or auto, with --like.")
    ] = "",
    student_option: Annotated[str, typer.Option("--student", help="The same as an option.")] = "",
    like: Annotated[str, typer.Option("--like", help="auto: CNN to make the depthwise-separable version of.")] = "",
    macs: Annotated[float, typer.Option("--macs", help="auto: share of its MACs (to 1), or their number.")] = 0.1,
    teacher_weights: Annotated[
        Path | None, typer.Option("--teacher-weights", help="State dict of a teacher given by name.")
    ] = None,
    eval_data: Annotated[
        Path | None,
        typer.Option("--eval-data", parser=named_path, metavar="PATH", help="Images to judge on; else held out."),
    ] = None,
    hold_out: Annotated[float, typer.Option("--hold-out", help="Share of each class held out to judge on.")] = 0.1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; default runs/STUDENT.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="State dict the student starts from.")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="The student starts from published weights.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a training in this folder stopped.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Train a small network to answer like a large one."""
    from edgecv.pipeline.distill import DistillRequest, distill_model
    from edgecv.pipeline.train import TrainRequest, say_nothing

    request = DistillRequest(
        train=TrainRequest(
            model=_one_student(student, student_option), data=data, settings=settings, eval_data=eval_data,
            hold_out=hold_out, output=output, weights=weights, pretrained=pretrained, resume=resume, force=force,
            seed=seed,
        ),
        teacher=teacher, teacher_weights=teacher_weights, distillation=distillation, like=like, macs=macs,
    )  # fmt: skip
    tell = say_nothing if as_json or quiet else say
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        report = distill_model(request, progress, tell)
    if report is None:  # another process of this training speaks
        return
    low, high = report["top1_interval"]
    of = report["teacher"]
    share = f", at {report['macs'] / of['macs']:.1%} of its MACs" if of["macs"] else ""
    emit(
        report,
        as_json=as_json,
        quiet=quiet,
        notes=[
            *(note for note in report["notes"] if note.startswith("teacher's logits")),
            f"speed: {report['images_per_second']:.0f} images/s, {report['waiting_share']:.0%} of the time waiting for "
            "data",
            f"teacher '{of['name']}': {of['top1']:.2%} on the same {report['n']} images",
        ],
        verdict=f"held-out top-1 {report['top1']:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {report['n']}), "
        f"{100 * (report['top1'] - of['top1']):+.2f} points to the teacher{share}",
        artifact=Path(report["artifact"]),
        next_command=f"edgecv export {report['artifact']}",
    )


def _one_student(argument: str, option: str) -> str:
    from edgecv.errors import UsageError

    if bool(argument) == bool(option):
        raise UsageError("name one student: edgecv distill NAME --teacher …, or --student auto --like NAME.")
    return argument or option
