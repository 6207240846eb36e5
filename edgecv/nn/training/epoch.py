"""One epoch: its steps, and the judgement after it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.config.training import TrainSettings
from edgecv.errors import EdgecvError, UsageError
from edgecv.nn.network import Network
from edgecv.nn.training.checkpoints import save_checkpoint
from edgecv.nn.training.distributed import Team, average_gradients, share_buffers
from edgecv.nn.training.evaluation import count_right
from edgecv.nn.training.freezing import set_training_mode
from edgecv.nn.training.mixing import Mix
from edgecv.nn.training.objective import Objective
from edgecv.nn.training.optimizer import set_learning_rate, trained_parameters
from edgecv.nn.training.placement import Placement
from edgecv.nn.training.schedule import rate_factor
from edgecv.nn.training.signals import Stop
from edgecv.nn.training.state import Learner, Position, seed_step
from edgecv.nn.training_data import Batch, TrainingData, training_batches
from edgecv.progress import Progress, no_progress

_AGREE_EVERY = {"cpu": 1, "cuda": 20}
"""Steps between two looks at the loss and at what the processes want; on a GPU each look waits for it."""


@dataclass(slots=True)
class Run:
    """A training under way: what it was started with, and how far it is."""

    network: Network
    data: TrainingData
    settings: TrainSettings
    folder: Path
    objective: Objective
    seed: int
    placement: Placement
    team: Team
    stop: Stop
    student: nn.Module
    learner: Learner
    steps: int
    mixing: Mix | None
    position: Position = field(default_factory=Position)
    identity: dict[str, str] = field(default_factory=dict)
    progress: Progress = no_progress
    tell: Callable[[str], None] = print
    loss_sum: float | Tensor = 0.0
    images: int = 0
    saved_at: float = field(default_factory=time.monotonic)

    def checkpoint(self) -> None:
        """Write a checkpoint; where the network is split every process must call."""
        with self.stop.changing:
            state = {"identity": self.identity, "position": asdict(self.position), "learner": self.learner.state()}
            if self.team.leads:
                save_checkpoint(self.folder, state)
        self.saved_at = time.monotonic()


def train_epoch(run: Run) -> None:
    """Take the steps of the current epoch that are not done yet.

    Raises:
        UsageError: A broken image, or a loss that is not finite.
        KeyboardInterrupt: A signal came; the checkpoint is written.
    """
    set_training_mode(run.learner.module)
    for batch in _timed_batches(run):
        began = time.perf_counter()
        seed_step(run.seed, run.position, run.team)
        set_learning_rate(run.learner.optimizer, _learning_rate(run, run.position.step))
        run.learner.begin_step()
        loss = _backward(run, batch)
        with run.stop.changing:
            _update(run)
            run.learner.end_step()
            run.position.batch += 1
            run.position.step += 1
            run.loss_sum = run.loss_sum + loss * len(batch.targets)
            run.images += len(batch.targets)
            _spend(run, time.perf_counter() - began)
        run.progress("training", run.position.step, run.settings.epochs * run.steps)
        if run.position.step % _AGREE_EVERY[run.placement.device.type] == 0 or run.position.batch == run.steps:
            _agree(run)


def evaluate(run: Run) -> dict[str, Any]:
    """Judge the weights, averaged ones with ``ema``, and return the epoch's row of the history.

    Raises:
        KeyboardInterrupt: A signal came; the checkpoint is written.
    """
    began = time.perf_counter()
    average, position = run.learner.average, run.position
    try:
        with average.swapped_in(run.learner.module) if average else nullcontext():
            share_buffers(run.learner.module, run.team)
            right = count_right(
                run.learner.module, run.data.held_out, run.network.input, run.settings, run.placement,
                team=Team() if run.learner.split else run.team, check=lambda: _leave_if_asked(run),
            )  # fmt: skip
    except _AskedToStopError:
        _stop(run)
    evaluation_s = time.perf_counter() - began
    position.total_s += evaluation_s
    return {
        "epoch": position.epoch + 1,
        "loss": position.loss_sum / max(1, position.images),
        "top1": right / len(run.data.held_out),
        "learning_rate": _learning_rate(run, position.step - 1),
        "images": position.images,
        "images_per_second": position.images / position.training_s if position.training_s else 0.0,
        "waiting_share": position.waiting_s / position.training_s if position.training_s else 0.0,
        "training_s": position.training_s,
        "waiting_s": position.waiting_s,
        "evaluation_s": evaluation_s,
    }


def _timed_batches(run: Run) -> Iterator[Batch]:
    """Yield the epoch's batches, counting the time they are waited for.

    Raises:
        UsageError: A broken image; a checkpoint is written first.
    """
    batches = iter(
        training_batches(
            run.data, run.network.input, run.settings, epoch=run.position.epoch, seed=run.seed,
            rank=run.team.rank, world=run.team.world, start_batch=run.position.batch,
        )
    )  # fmt: skip
    while run.position.batch < run.steps:
        began = time.perf_counter()
        try:
            batch = next(batches)
        except EdgecvError as e:
            if run.team.world == 1:
                run.checkpoint()
            place = f"epoch {run.position.epoch + 1}, step {run.position.batch}"
            raise UsageError(
                f"{e} The training stopped at {place}; put that file right and start again with --force (other images "
                "are other data, which --resume refuses)."
            ) from e
        waited = time.perf_counter() - began
        with run.stop.changing:
            run.position.waiting_s += waited
            _spend(run, waited)
        yield batch


def _spend(run: Run, seconds: float) -> None:
    run.position.training_s += seconds
    run.position.total_s += seconds


def _learning_rate(run: Run, step: int) -> float:
    return run.settings.learning_rate * rate_factor(run.settings, step, run.steps, run.position.top1)


def _backward(run: Run, batch: Batch) -> Tensor:
    """Return the mean loss of this process's images, its gradients accumulated."""
    device = run.placement.device
    memory = torch.channels_last if run.settings.channels_last else torch.contiguous_format
    pixels = batch.pixels.to(device, non_blocking=True).float().contiguous(memory_format=memory)
    targets = batch.targets.to(device, non_blocking=True)
    if run.mixing is not None:
        pixels, targets = run.mixing(pixels, targets)
    with run.placement.autocast():
        loss = run.objective(run.student, pixels, targets, batch)
    # Processes may differ by an image; DDP takes the mean of their gradients, one process that of the images.
    images = min(run.settings.batch, len(run.data.train))
    share = len(batch.targets) * run.team.world / images
    run.learner.optimizer.zero_grad(set_to_none=True)
    run.learner.scaler.scale(loss * share if share != 1 else loss).backward()  # type: ignore[no-untyped-call]
    average_gradients(run.learner.extra, run.team)
    return loss.detach()


def _update(run: Run) -> None:
    learner = run.learner
    if run.settings.clip_norm:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_(trained_parameters(learner.optimizer), run.settings.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.average is not None:
        learner.average.update(learner.module, run.position.step + 1)


def _agree(run: Run) -> None:
    """Put the processes' losses together, and do what one of them wants: stop, or a checkpoint because it is time."""
    due = run.team.leads and time.monotonic() - run.saved_at >= 60 * run.settings.checkpoint_minutes
    wishes = [float(run.loss_sum), run.images, run.stop.requested.is_set(), due]
    loss_sum, images, stop, due_now = run.team.total(wishes, run.placement.device)
    with run.stop.changing:
        run.position.loss_sum += loss_sum
        run.position.images += int(images)
        run.loss_sum, run.images = 0.0, 0
    if not math.isfinite(loss_sum):
        raise UsageError(
            f"the loss is not finite any more in epoch {run.position.epoch + 1}, step {run.position.batch}; lower "
            "--learning-rate, or add --warmup-epochs or --clip-norm."
        )
    if stop:
        _stop(run)
    if due_now:
        run.checkpoint()


class _AskedToStopError(Exception):
    """A signal came while the network was judged."""


def _leave_if_asked(run: Run) -> None:
    if run.stop.requested.is_set():
        raise _AskedToStopError


def _stop(run: Run) -> None:
    run.checkpoint()
    run.tell(f"stopped in epoch {run.position.epoch + 1}, step {run.position.batch} of {run.steps}; go on: --resume")
    raise KeyboardInterrupt
