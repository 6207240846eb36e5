"""The learning rate as a plain function of what has happened so far: nothing to save, nothing to get out of step."""

import math
from collections.abc import Sequence

from edgecv.config.training import TrainSettings


def rate_factor(settings: TrainSettings, step: int, steps_per_epoch: int, top1: Sequence[float]) -> float:
    """Return what the learning rate is multiplied by in one step.

    Args:
        settings: ``schedule`` and its parameters.
        step: Steps taken before this one, over all epochs.
        steps_per_epoch: Of every epoch.
        top1: Held-out top-1 after each epoch so far, for ``plateau``.

    Sources:
        Cosine: Loshchilov and Hutter 2016 (SGDR), without restarts. Step, and plateau divided by 10 "when the error
        plateaus": He et al. 2015, whose two steps were at 1/2 and 3/4. Warm-up: Goyal et al. 2017.
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    ramp = min(1.0, (step + 1) / (warmup + 1)) if warmup else 1.0
    if settings.schedule == "cosine":
        total = settings.epochs * steps_per_epoch
        share = max(0.0, step - warmup) / max(1.0, total - warmup)
        return ramp * (1 + math.cos(math.pi * min(1.0, share))) / 2
    if settings.schedule == "step":
        epoch = step // steps_per_epoch
        return ramp * settings.step_factor ** sum(epoch >= e for e in step_epochs(settings))
    if settings.schedule == "plateau":
        return ramp * settings.step_factor ** plateaus(top1, settings.patience)
    return ramp


def step_epochs(settings: TrainSettings) -> tuple[int, ...]:
    """Return the epochs after which ``step`` lowers the rate."""
    return settings.step_epochs or tuple(
        sorted({e for e in (settings.epochs // 2, settings.epochs * 3 // 4) if 0 < e < settings.epochs})
    )


def plateaus(top1: Sequence[float], patience: int) -> int:
    """Return how often ``patience`` epochs in a row brought nothing better.

    >>> plateaus([0.5, 0.6, 0.6, 0.59, 0.7, 0.7, 0.7], 2)
    2
    """
    best, waiting, found = -1.0, 0, 0
    for value in top1:
        best, waiting = (value, 0) if value > best else (best, waiting + 1)
        if waiting == patience:
            waiting, found = 0, found + 1
    return found


def is_over(settings: TrainSettings, top1: Sequence[float]) -> bool:
    """Return whether training ends after the epochs in ``top1``: all are done, or ``early_stop`` says so."""
    if len(top1) >= settings.epochs:
        return True
    if not settings.early_stop or not top1:
        return False
    return len(top1) - 1 - top1.index(max(top1)) >= settings.early_stop
