"""``edgecv train``."""

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.options import DataDir, Debug, Force, Json, Quiet, Seed, named_path
from edgecv.cli.output import emit, progress_bar, say
from edgecv.cli.settings_options import settings_options
from edgecv.config.training import TrainSettings


@settings_options(settings=TrainSettings())
def train(
    model: Annotated[
        str, typer.Argument(help="Network name (edgecv models), torchvision:NAME, or a checkpoint of edgecv.")
    ],
    data: DataDir,
    settings: TrainSettings,
    eval_data: Annotated[
        Path | None,
        typer.Option("--eval-data", parser=named_path, metavar="PATH", help="Images to judge on; else held out."),
    ] = None,
    hold_out: Annotated[float, typer.Option("--hold-out", help="Share of each class held out to judge on.")] = 0.1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; default runs/MODEL.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="State dict to start from.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from the published weights.")] = False,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", help="Copy layers of a trained shallower network of the family.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a training in this folder stopped.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Train a network on a folder of images, from scratch or from weights."""
    from edgecv.pipeline.train import TrainRequest, say_nothing, train_model

    request = TrainRequest(
        model=model, data=data, settings=settings, eval_data=eval_data, hold_out=hold_out, output=output,
        weights=weights, pretrained=pretrained, init_from=init_from, resume=resume, force=force, seed=seed,
    )  # fmt: skip
    tell = say_nothing if as_json or quiet else say
    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        report = train_model(request, progress, tell)
    if report is None:  # another process of this training speaks
        return
    low, high = report["top1_interval"]
    emit(
        report,
        as_json=as_json,
        quiet=quiet,
        notes=[
            f"speed: {report['images_per_second']:.0f} images/s, {report['waiting_share']:.0%} of the time waiting for "
            "data",
            "the best epoch was chosen on these images; for an unbiased figure: edgecv eval on others",
        ],
        verdict=f"held-out top-1 {report['top1']:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {report['n']}) after "
        f"epoch {report['best_epoch']} of {report['epochs']}",
        artifact=Path(report["artifact"]),
        next_command=f"edgecv export {report['artifact']}",
    )
