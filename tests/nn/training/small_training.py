"""A training that takes a second, for the tests beside this file and as a process of its own."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgecv.config.training import TrainSettings
from edgecv.nn.models import build_untrained
from edgecv.nn.network import Network
from edgecv.nn.training import FitResult, fit, supervised
from edgecv.nn.training_data import TrainingData, open_training_data

SETTINGS: dict[str, Any] = {
    "epochs": 2, "batch": 8, "learning_rate": 0.05, "ema": 0.9, "mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1,
    "augment": ("flip",), "workers": 0, "threads": 1, "precision": "float32", "checkpoint_minutes": 0.0,
}  # fmt: skip
SIZE = 16


def small_data(colors: Path, folder: Path) -> TrainingData:
    folder.mkdir(parents=True, exist_ok=True)
    return open_training_data(colors, share=0.25, seed=0, folder=folder)


def small_network(name: str = "speednet", **arguments: Any) -> Network:
    text = ",".join(f"{k}={v}" for k, v in ({"width": 0.1} | arguments).items()) if name == "speednet" else ""
    return build_untrained(f"{name}:{text}" if text else name, num_classes=3, input_size=SIZE, seed=0)


def small_fit(colors: Path, folder: Path, *, resume: bool = False, **changes: Any) -> FitResult:
    """Train speednet with everything on that could differ after a resumption."""
    calls = {k: changes.pop(k) for k in ("progress", "tell", "identity", "seed") if k in changes}
    network = changes.pop("network", None) or small_network()
    settings = TrainSettings(**(SETTINGS | changes))
    data = small_data(colors, folder)
    objective = supervised(network.input, settings)
    return fit(network, data, settings, folder, objective=objective, resume=resume, **({"seed": 5} | calls))


def in_child(work: Callable[[], object]) -> int:
    """Fork, do ``work`` in the child, and return how it ended: exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as e:
            print(f"{type(e).__name__}: {e}", file=sys.stderr)
            os._exit(130 if isinstance(e, KeyboardInterrupt) else 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def newest_state(folder: Path) -> dict[str, Any]:
    newest = max((folder / "checkpoints").glob("state-*.pt"))
    return dict(torch.load(newest, weights_only=True))
