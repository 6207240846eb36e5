"""The training loop."""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from edgecv.config.training import TrainSettings, with_learning_rate
from edgecv.errors import UsageError
from edgecv.nn.checkpoint import save_network
from edgecv.nn.network import Network
from edgecv.nn.training.averaging import Average
from edgecv.nn.training.checkpoints import load_newest, remove_checkpoints, sole_writer
from edgecv.nn.training.curves import Curves
from edgecv.nn.training.distributed import Team, in_turn, joined, spread, whole
from edgecv.nn.training.epoch import Run, evaluate, train_epoch
from edgecv.nn.training.freezing import freeze
from edgecv.nn.training.mixing import build_mixing
from edgecv.nn.training.objective import Objective
from edgecv.nn.training.optimizer import build_optimizer
from edgecv.nn.training.placement import Placement, busy_note, place, threads_of
from edgecv.nn.training.result import FitResult, epoch_line, result_of
from edgecv.nn.training.schedule import is_over
from edgecv.nn.training.signals import Stop, stop_on_signals
from edgecv.nn.training.state import Learner, Position, check_identity, identity_of, position_from
from edgecv.nn.training_data import TrainingData, steps_per_epoch
from edgecv.nn.weights import load_into, read_state_dict
from edgecv.progress import Progress, no_progress

ARTIFACT = "model.safetensors"
"""The weights of the best epoch, in the run folder."""


def fit(
    network: Network,
    data: TrainingData,
    settings: TrainSettings,
    folder: Path,
    *,
    objective: Objective,
    seed: int,
    resume: bool = False,
    identity: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
    tell: Callable[[str], None] = lambda line: None,
) -> FitResult:
    """Train ``network`` in place and leave it with the weights of its best epoch, in eval mode.

    Args:
        network: Its module is trained; ``stages`` should name this training already, they go into the artifact.
        data: Training and held-out images.
        settings: How.
        folder: The run folder, existing; see ARCHITECTURE.md for its files.
        objective: What is minimised.
        seed: Of everything random.
        resume: Go on from the newest sound checkpoint in the folder, if there is one; else those there are removed.
        identity: What else must be the same to go on (teacher's hash, …): key -> value.
        progress: Told after each step.
        tell: Given a line after each epoch, and for what the user should know at once; by the leading process only.

    Raises:
        UsageError: A setting that this network or machine cannot have, changed settings or data on resuming, a broken
            image, a full disk, a loss that is not finite. The last good checkpoint stays.
        KeyboardInterrupt: After SIGINT or SIGTERM, when the checkpoint is written.
    """
    settings = with_learning_rate(settings, pretrained=network.source.get("weights", "untrained") != "untrained")
    with joined(settings) as team, threads_of(settings, team.local_world) as threads, stop_on_signals() as stop:
        heard = tell if team.leads else _nothing
        placement = place(settings, team.local_rank)
        run = _start(network, data, settings, folder, objective, seed, placement, team, stop)
        run.progress = progress if team.leads else no_progress
        run.tell = heard
        run.identity = identity_of(network, data, settings, seed, placement.precision, identity or {})
        with sole_writer(folder) if team.leads else nullcontext():
            notes = _run(run, resume, threads)
        team.wait()
        load_into(network.module, read_state_dict(folder / ARTIFACT), str(folder / ARTIFACT))
    network.module.to("cpu").eval()
    for parameter in network.module.parameters():
        parameter.requires_grad_(False)
    return result_of(run.position, folder / ARTIFACT, notes)


def _run(run: Run, resume: bool, threads: int) -> tuple[str, ...]:
    """Begin or go on, train to the end, and return sentences about how."""
    if resume:
        _resume(run)
    elif run.team.leads:
        remove_checkpoints(run.folder)
    placement, team, settings = run.placement, run.team, run.settings
    notes = (
        f"{placement.device.type}, {placement.precision} ({placement.why}), threads: {threads}"
        + (f", processes: {team.world} ({settings.parallel})" if team.world > 1 else ""),
        f"learning rate {settings.learning_rate:g}, {_trained(run)}",
    )
    for note in (*notes, busy_note(threads)):
        if note:
            run.tell(note)
    _train(run)
    return notes


def _trained(run: Run) -> str:
    sizes = [(p.numel(), p.requires_grad) for p in run.network.module.parameters()]
    return f"{sum(n for n, on in sizes if on):,} of {sum(n for n, _ in sizes):,} parameters trained"


def _nothing(line: str) -> None:
    """Say nothing: what a process that does not lead does."""


def _start(
    network: Network, data: TrainingData, settings: TrainSettings, folder: Path, objective: Objective, seed: int,
    placement: Placement, team: Team, stop: Stop,
) -> Run:  # fmt: skip
    split = team.world > 1 and settings.parallel == "fsdp"
    module = copy.deepcopy(network.module) if split else network.module
    freeze(module, settings)
    memory = torch.channels_last if settings.channels_last and not split else torch.contiguous_format  # FSDP's limit
    module.to(placement.device, memory_format=memory)  # type: ignore[call-overload]
    extra = objective.parameters
    if extra is not None:
        extra.to(placement.device)
    student = spread(module, settings, team, placement.device)
    learner = Learner(
        module=module,
        optimizer=build_optimizer(module, extra, settings, settings.learning_rate),
        scaler=torch.amp.GradScaler(placement.device.type, enabled=placement.precision == "float16"),
        extra=extra,
        average=Average(module, settings.ema) if settings.ema else None,
        split=split,
    )
    run = Run(
        network, data, settings, folder, objective, seed, placement, team, stop, student, learner,
        steps_per_epoch(data, settings), build_mixing(settings, len(data.labels)),
    )  # fmt: skip
    if team.leads and not split:
        stop.leave = run.checkpoint
    return run


def _resume(run: Run) -> None:
    with in_turn():  # the leading process puts damaged ones aside
        state = load_newest(run.folder, run.tell)
    if state is None:
        run.tell(f"no checkpoint in '{run.folder}' to go on from; starting from the beginning")
        return
    check_identity(state["identity"], run.identity, str(run.folder))
    run.learner.load(state["learner"])
    run.position = position_from(state["position"])
    if run.position.best_epoch and not (run.folder / ARTIFACT).is_file():
        raise UsageError(
            f"'{run.folder / ARTIFACT}' is gone, the weights of epoch {run.position.best_epoch}, the best so far; put "
            "it back, or start anew with --force."
        )
    run.tell(f"going on from epoch {run.position.epoch + 1}, step {run.position.batch} of {run.steps}")


def _train(run: Run) -> None:
    """Train until the settings say that it is over, checkpointing after each epoch."""
    curves = Curves(run.folder, len(run.position.history)) if run.team.leads else None
    while not is_over(run.settings, run.position.top1):
        train_epoch(run)
        row = evaluate(run)
        with run.stop.changing:
            _end_epoch(run, row)
        if curves is not None:
            curves.add(run.position.history)
            run.checkpoint()
            run.tell(epoch_line(row, run.settings.epochs, run.position))
        elif run.learner.split:
            run.checkpoint()
    if curves is not None:
        curves.close(run.position.history)


def _end_epoch(run: Run, row: dict[str, Any]) -> None:
    position = run.position
    best = not position.history or row["top1"] > max(position.top1)
    if best:
        _save_artifact(run)
    run.position = Position(
        epoch=position.epoch + 1,
        step=position.step,
        total_s=position.total_s,
        best_epoch=position.epoch + 1 if best else position.best_epoch,
        history=[*position.history, row],
    )


def _save_artifact(run: Run) -> None:
    """Write the weights that were judged, averaged ones with ``ema``, as the run's artifact."""
    learner = run.learner
    with learner.average.swapped_in(learner.module) if learner.average else nullcontext():
        if learner.split:
            run.network.module.load_state_dict(whole(dict(learner.module.state_dict())))
        if run.team.leads:
            save_network(run.folder / ARTIFACT, run.network)
