"""Test-time augmentation: one decision from several views of an image, their probabilities averaged."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecv.errors import UsageError, nearest
from edgecv.evaluate.classifier import Classifier, Scores
from edgecv.manifest import InputSpec
from edgecv.runtime.preprocess import decode_image, preprocess, resize_and_crop, resized_size

VIEWS = ("none", "flip", "fivecrop")
"""``flip``: the image and its mirror image. ``fivecrop``: the four corners and the centre of the resized image before
its crop; they differ the more the crop cuts off, and are all equal for a ``crop_pct`` of 1 on a square image."""

Pixels = npt.NDArray[np.uint8]


def check_views(name: str) -> str:
    """Return ``name`` if it is one of :data:`VIEWS`.

    Raises:
        UsageError: It is not.
    """
    if name not in VIEWS:
        raise UsageError(f"--tta '{name}' is not one of {', '.join(VIEWS)}.{nearest(name, VIEWS)}")
    return name


def reader(views: str) -> Callable[[Path, InputSpec], Pixels]:
    """Return what reads one file: uint8 (H, W, 3), or (5, H, W, 3) for ``fivecrop``."""
    return five_crops if views == "fivecrop" else preprocess


def average_probabilities(model: Classifier, images: Pixels, views: str) -> Scores:
    """Return the mean probabilities over the views of each image, (N, classes).

    Args:
        model: The model.
        images: What :func:`reader` made, stacked: (N, H, W, 3) or (N, 5, H, W, 3).
        views: One of :data:`VIEWS`.
    """
    if views == "none":
        return model.probabilities(model.scores(images))
    if views == "flip":
        mirrored = np.ascontiguousarray(images[:, :, ::-1])
        pair = (model.probabilities(model.scores(x)) for x in (images, mirrored))
        return np.asarray(sum(pair) / 2.0)
    count, crops = images.shape[:2]
    flat = model.probabilities(model.scores(images.reshape(count * crops, *images.shape[2:])))
    return np.asarray(flat.reshape(count, crops, -1).mean(axis=1))


def five_crops(path: Path, spec: InputSpec) -> Pixels:
    """Return the four corners and the centre of the resized image, uint8 (5, H, W, 3)."""
    image = decode_image(path)
    height, width = spec.input_size[1:]
    centre = resize_and_crop(image, spec)
    tall, wide = resized_size((image.height, image.width), (height, width), spec)
    if tall < height or wide < width:
        return np.stack([centre] * 5)  # nothing to choose from: the crop is larger than the image
    # To exactly the size that the resize before the crop gives, and nothing cut off.
    whole = resize_and_crop(image, replace(spec, crop_mode="squash", crop_pct=1.0), (tall, wide))
    bottom, right = tall - height, wide - width
    corners = [whole[y : y + height, x : x + width] for y in (0, bottom) for x in (0, right)]
    return np.stack([*corners, centre])
