"""A sheet of pictures to look at: originals beside what the augmentations make of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgecv.config.augmentation import SMALL_SIDE, parse_augmentations
from edgecv.data.dataset import Dataset
from edgecv.data.folder import open_dataset
from edgecv.files import write_atomically
from edgecv.manifest import InputSpec
from edgecv.nn.augment import Pipeline, build_pipeline
from edgecv.nn.sampling import image_keys
from edgecv.progress import Progress, no_progress
from edgecv.runtime.decode import decode_image

DRAWS = 3
"""Draws of all augmentations together."""

_USUAL_SIDE = 224
_CELL = 144  # pixels of the larger side of a picture: seven columns fit a screen
_GAP = 6
_TEXT = 13
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def write_contact_sheet(
    data: Path,
    texts: Sequence[str],
    output: Path,
    *,
    count: int,
    size: int = 0,
    seed: int = 0,
    progress: Progress = no_progress,
) -> tuple[int, int]:
    """Write :func:`contact_sheet` of some images of a data set as PNG.

    Args:
        data: What ``data.folder.open_dataset`` takes.
        texts: ``NAME`` or ``NAME:STRENGTH``.
        output: The PNG.
        count: Images, evenly spaced over the data set.
        size: Pixels of the square input; 0: 224, or the first image's shorter side where that is less.
        seed: Of the draws.
        progress: Told while an archive is unpacked and after each row.

    Returns:
        How many images, at how many pixels.

    Raises:
        UsageError: See ``open_dataset`` and :func:`contact_sheet`.
    """
    dataset = open_dataset(data, progress=progress).limited(count)
    side = size or min(_USUAL_SIDE, *decode_image(dataset.samples[0][0]).size)
    spec = InputSpec("image", (3, side, side), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if side <= SMALL_SIDE:
        spec = replace(spec, crop_pct=1.0)
    sheet = contact_sheet(dataset, texts, spec, seed, progress)
    write_atomically(output, lambda temporary: sheet.save(temporary, "PNG"))
    return len(dataset), side


def contact_sheet(
    dataset: Dataset,
    texts: Sequence[str],
    spec: InputSpec,
    seed: int,
    progress: Progress = no_progress,
) -> Image.Image:
    """Return a picture with a row for each image: as evaluated, after each augmentation alone, after all together.

    Args:
        dataset: Images of the rows; few.
        texts: ``NAME`` or ``NAME:STRENGTH``.
        spec: Size and resize rule, as for training.
        seed: Of the draws.
        progress: Told after each row.

    Raises:
        UsageError: An unknown augmentation or a broken image.
    """
    columns = _columns(texts, spec)
    cell = _cell_size(spec)
    font = ImageFont.load_default(_TEXT)
    left = _GAP + max(int(font.getlength(line)) for i in range(len(dataset)) for line in _label(dataset, i))
    sheet = Image.new(
        "RGB",
        (left + _GAP + len(columns) * (cell[0] + _GAP), 2 * _TEXT + _GAP + len(dataset) * (cell[1] + _GAP)),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for c, (title, _, _) in enumerate(columns):
        draw.text((left + _GAP + c * (cell[0] + _GAP), _GAP), title, _INK, font)
    for row, (path, _) in enumerate(dataset.samples):
        top = 2 * _TEXT + _GAP + row * (cell[1] + _GAP)
        draw.text((_GAP, top), "\n".join(_label(dataset, row)), _INK, font)
        for c, (_, pipeline, epoch) in enumerate(columns):
            key = int(image_keys(np.array([row]), epoch, seed)[0])
            picture = Image.fromarray(np.ascontiguousarray(pipeline(path, key)))
            sheet.paste(_enlarged(picture, cell), (left + _GAP + c * (cell[0] + _GAP), top))
        progress("images", row + 1, len(dataset))
    return sheet


def _columns(texts: Sequence[str], spec: InputSpec) -> list[tuple[str, Pipeline, int]]:
    """Return title, pipeline and epoch (which draw) of each column."""
    columns = [("original", build_pipeline((), spec), 0)]
    names = [text for text, _ in zip(texts, parse_augmentations(texts), strict=False)]
    if len(names) > 1:
        columns += [(name, build_pipeline([name], spec), DRAWS + i) for i, name in enumerate(names)]
    together = build_pipeline(names, spec)
    title = "together" if len(names) > 1 else (names or ["none"])[0]
    return [*columns, *((f"{title}, {draw + 1}", together, draw) for draw in range(DRAWS))]


def _label(dataset: Dataset, row: int) -> tuple[str, str]:
    name = dataset.class_names[dataset.class_indices[row]] if dataset.class_names else ""
    return tuple(text if len(text) <= 24 else f"{text[:23]}…" for text in (name, dataset.samples[row][0].name))  # type: ignore[return-value]


def _cell_size(spec: InputSpec) -> tuple[int, int]:
    _, height, width = spec.input_size
    scale = _CELL / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _enlarged(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    """Return the picture in the cell's size; pixels of small ones stay visible as squares."""
    method = Image.Resampling.NEAREST if picture.width < cell[0] else Image.Resampling.LANCZOS
    return picture.resize(cell, method)
