"""The images of a run: those it learns from, and those it is judged by, which no earlier run may have learnt from."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv.data.held_out import SPLIT_FILE
from edgecv.data.lists import MAX_LIST_BYTES
from edgecv.errors import UsageError
from edgecv.files import read_file, write_bytes
from edgecv.progress import Progress

if TYPE_CHECKING:
    from edgecv.nn.training_data import TrainingData


def open_run_data(
    path: Path, eval_path: Path | None, hold_out: float, seed: int, folder: Path, progress: Progress, *, start: str = ""
) -> "TrainingData":
    """Open the images; the leading process first, which records the division for the others.

    Args:
        path: Images to learn from.
        eval_path: Images to judge by; None to hold out a share of ``path``.
        hold_out: That share of each class.
        seed: Of the division.
        folder: The run folder.
        progress: See :mod:`edgecv.progress`.
        start: Checkpoint the run starts from, or its teacher's: what that run held out is held out here too.

    Raises:
        UsageError: As :func:`edgecv.nn.training_data.open_training_data`.
    """
    from edgecv.nn.training.distributed import in_turn
    from edgecv.nn.training_data import open_training_data

    with in_turn():
        own, earlier = folder / SPLIT_FILE, Path(start).parent / SPLIT_FILE
        if eval_path is None and start.endswith(".safetensors") and not own.exists() and earlier.is_file():
            write_bytes(own, read_file(earlier, "split", MAX_LIST_BYTES))
            try:
                return open_training_data(path, None, share=hold_out, seed=seed, folder=folder, progress=progress)
            except UsageError:  # that run had other images
                own.unlink(missing_ok=True)
        data = open_training_data(path, eval_path, share=hold_out, seed=seed, folder=folder, progress=progress)
        if eval_path is None and start.endswith(".safetensors") and not earlier.is_file():
            note = (
                f"no {SPLIT_FILE} lies beside '{start}': where it learnt from these images, it knows some of those "
                "held out here; give the --eval-data it was judged by"
            )
            return replace(data, notes=(*data.notes, note))
        return data
