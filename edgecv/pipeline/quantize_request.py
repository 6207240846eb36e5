"""What ``edgecv quantize`` is asked, and the images it is to work on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecv.config.device import load_device
from edgecv.config.recipe import QUANTIZE_MODES
from edgecv.errors import UsageError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, sha256_file
from edgecv.manifest import Manifest
from edgecv.runtime.providers import parse_providers

if TYPE_CHECKING:
    from edgecv.data.dataset import Dataset

DEFAULT_CALIBRATION_IMAGES = 512
"""Ranges stop moving long before this; more costs time, never memory."""

CALIBRATION_BATCH = 4
"""Images whose activations are in memory at once while ranges are collected."""


@dataclass(frozen=True, slots=True)
class QuantizeRequest:
    """What ``edgecv quantize`` was asked; field for field its options, see ``edgecv quantize --help``.

    ``model`` None means the folder's current model; ``max_drop`` is in percentage points of top-1. ``keep_float`` holds
    layers, and at most one of ``auto`` and a number of further layers to choose. ``device`` None means int8 that any
    CPU computes alike. ``activations`` is 8 or 16 bits. ``int8_heads`` quantizes a detector's head too.
    """

    model: Path | None
    mode: str
    data: "Path | Dataset | None" = None
    images: int = DEFAULT_CALIBRATION_IMAGES
    ranges: str = "mse"
    method: str = "auto"
    keep_float: tuple[str, ...] = ()
    device: str | None = None
    activations: int = 8
    int8_heads: bool = False
    explain: bool = False
    output: Path | None = None
    eval_data: "Path | Dataset | None" = None
    max_drop: float | None = None
    bench: bool = True
    provider: str = "cpu"
    preset: str = "rapid"
    threads: str = "auto"
    force: bool = False
    seed: int = 0


def check_request(request: QuantizeRequest, source: Path) -> None:
    """Raise UsageError when options are missing, contradict each other or are out of range."""
    check_regular_file(source, "model", MAX_MODEL_BYTES)
    if request.mode not in QUANTIZE_MODES:
        raise UsageError(f"mode '{request.mode}' is not one of {', '.join(QUANTIZE_MODES)}.")
    parse_providers(request.provider)
    if request.device is not None:
        if request.mode != "int8":
            raise UsageError(
                f"--device chooses how int8 is written, and says nothing about {request.mode}; leave it out."
            )
        load_device(request.device)
    if request.mode == "int8" and request.data is None:
        raise UsageError("int8 needs images to calibrate on; add --data DIR (training images, about 100 or more).")
    _check_int8_options(request)
    if request.max_drop is not None and not 0 <= request.max_drop <= 100:
        raise UsageError(f"--max-drop {request.max_drop} is not in 0..100 percentage points.")
    if request.max_drop is not None and request.eval_data is None:
        raise UsageError(
            "--max-drop needs labelled images to judge on; add --eval-data DIR (not the calibration images)."
        )


def _check_int8_options(request: QuantizeRequest) -> None:
    from edgecv.quantize.layer_names import is_choice

    chosen = [v for v in request.keep_float if is_choice(v)]
    if request.activations not in (8, 16):
        raise UsageError(f"--activations {request.activations} is neither 8 nor 16.")
    wide = request.activations == 16
    asked = {"--explain": request.explain, "--activations 16": wide, "--keep-float auto or a number": bool(chosen)}
    if request.mode != "int8" and (given := [option for option, on in asked.items() if on]):
        raise UsageError(f"{given[0]} is for --int8; it says nothing about {request.mode}; leave it out.")
    chosen_rungs = {
        "--method": request.method != "auto",
        "--ranges": request.ranges != "mse",
        "--device": request.device is not None,
        "--int8-heads": request.int8_heads,
    }
    if request.mode != "int8" and (given := [option for option, on in chosen_rungs.items() if on]):
        raise UsageError(f"{given[0]} is for --int8; it says nothing about {request.mode}; leave it out.")
    if wide and (given := [option for option, on in asked.items() if on and option != "--activations 16"]):
        raise UsageError(f"{given[0]} measures int8 activations; leave it out with --activations 16.")


def calibration_set(request: QuantizeRequest, manifest: Manifest) -> "Dataset | None":
    """Return the images to calibrate on; None when the mode needs none or there are none."""
    from edgecv.data.calibration import draw_calibration
    from edgecv.data.folder import open_dataset

    if request.data is None or request.mode == "dynamic":
        return None
    dataset = open_dataset(request.data) if isinstance(request.data, Path) else request.data
    return draw_calibration(dataset, min(request.images, len(dataset)), seed=request.seed)


def check_disjoint(request: QuantizeRequest, dataset: "Dataset | None") -> None:
    """Refuse judging images that calibrate, before any work is done."""
    from edgecv.data.folder import open_dataset

    if dataset is None or request.eval_data is None:
        return
    judging = open_dataset(request.eval_data) if isinstance(request.eval_data, Path) else request.eval_data
    calibrating = {sha256_file(path) for path, _ in dataset.samples}
    shared = [path for path, _ in judging.samples if sha256_file(path) in calibrating]
    if shared:
        raise UsageError(
            f"{len(shared)} of the {len(judging)} judging images calibrate too (first: '{shared[0].name}'); "
            "judge on others, or calibrate on a part: edgecv data split"
        )


def input_batches(dataset: "Dataset", manifest: Manifest) -> Callable[[], Iterator[np.ndarray]]:
    """Return a factory of the model's own inputs over ``dataset``, a few images at a time."""
    from edgecv.data.batches import iter_batches
    from edgecv.runtime.preprocess import to_model_input

    def batches() -> Iterator[np.ndarray]:
        size = manifest.input.batch or CALIBRATION_BATCH
        for batch in iter_batches(dataset, manifest.input, size):
            yield to_model_input(batch.images, manifest.input)

    return batches
