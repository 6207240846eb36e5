"""The history of a training as files: CSV, a picture where matplotlib is, TensorBoard's where that is installed."""

import csv
import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecv.files import write_atomically

CSV_FILE, PICTURE_FILE, TENSORBOARD_FOLDER = "log.csv", "curves.png", "tensorboard"
_PICTURE_EVERY_S = 60.0
"""Drawing takes half a second; short epochs should not wait for it."""

_SCALARS = ("loss", "top1", "learning_rate", "images_per_second", "waiting_share")


class Curves:
    """Writes the history after each epoch."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        """Write into ``folder``; what TensorBoard has beyond ``epochs_done`` is dropped."""
        self._folder = folder
        self._drawn = time.monotonic()
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=epochs_done + 1)

    def add(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the files for a history whose last row is new.

        Raises:
            UsageError: The disk is full.
        """
        write_csv(self._folder / CSV_FILE, history)
        if self._board is not None:
            for name in _SCALARS:
                self._board.add_scalar(name, history[-1][name], history[-1]["epoch"])
        if time.monotonic() - self._drawn > _PICTURE_EVERY_S:
            draw(self._folder / PICTURE_FILE, history)
            self._drawn = time.monotonic()

    def close(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the picture a last time."""
        if self._board is not None:
            self._board.close()
        draw(self._folder / PICTURE_FILE, history)


def write_csv(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a row for each epoch."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, list(history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)

    if history:
        write_atomically(path, write)


def draw(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss and held-out top-1 over the epochs as PNG; nothing where matplotlib is not installed."""
    if not history or importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    epochs = [row["epoch"] for row in history]
    left, right = figure.subplots(1, 2)
    mark = "o" if len(epochs) == 1 else None
    left.plot(epochs, [row["loss"] for row in history], marker=mark, color="tab:blue")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(epochs, [100 * row["top1"] for row in history], marker=mark, color="tab:green")
    right.set(xlabel="epoch", ylabel="held-out top-1 (%)")
    rate = left.twinx()
    rate.plot(epochs, [row["learning_rate"] for row in history], color="0.7", linewidth=1)
    rate.set_ylabel("learning rate", color="0.5")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))
