"""From an image file to the pixels a model takes: one preprocessing for accuracy, calibration, device.

``resize_and_crop`` gives the same bytes as timm's evaluation transform (``timm.data.create_transform`` up to
its ``ToTensor``); tests/runtime/test_preprocess.py proves it over a grid. What follows, scaling to floats,
normalising and layout, is inside the exported graph, or in :func:`to_model_input` for a model with the
classic float input.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.runtime.decode import ImageSource, decode_image

__all__ = [
    "MAX_RESIZED_PIXELS",
    "ImageSource",
    "decode_image",
    "preprocess",
    "resize_and_crop",
    "resized_size",
    "to_model_input",
]

MAX_RESIZED_PIXELS = 32 << 20
"""128 MiB in Pillow's 4 bytes a pixel. Without it a 157-byte PNG of 1x20000 pixels makes 3 GB when its short
side is resized to 256."""

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def preprocess(source: ImageSource, spec: InputSpec, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode, resize and crop one image.

    An array that has exactly the model's height and width already is taken as preprocessed and returned as it
    is, without a copy; any other array is resized and cropped like a photograph.

    Args:
        source: What :func:`decode_image` takes.
        spec: What the model takes.
        size: ``(height, width)`` in pixels instead of the spec's, for models of dynamic size.

    Returns:
        uint8 of shape (H, W, 3), RGB.

    Raises:
        UsageError: See :func:`decode_image` and :func:`resize_and_crop`.
    """
    height, width = size or spec.input_size[1:]
    if isinstance(source, np.ndarray) and source.shape == (height, width, 3) and source.dtype == np.uint8:
        return source
    image = decode_image(source)
    try:
        return resize_and_crop(image, spec, size)
    except UsageError as e:
        raise UsageError(f"image '{source}': {e}" if isinstance(source, str | Path) else str(e)) from e


def resize_and_crop(image: Image.Image, spec: InputSpec, size: tuple[int, int] | None = None) -> np.ndarray:
    """Resize and crop as timm's evaluation transform does, byte for byte.

    ``center``: the short side becomes ``size / crop_pct``, the middle is cut out. ``squash``: both sides
    become ``size / crop_pct`` whatever the aspect. ``border``: the long side does, the rest is filled with
    the mean colour. A ``crop_pct`` above 1 leaves a black (``border``: mean) frame.

    Args:
        image: Mode RGB, from :func:`decode_image`.
        spec: ``input_size``, ``interpolation``, ``crop_pct``, ``crop_mode`` and (for ``border``) ``mean``.
        size: ``(height, width)`` in pixels instead of the spec's.

    Returns:
        uint8 of shape (H, W, 3), RGB, contiguous and owned by the caller.

    Raises:
        UsageError: The picture is so long and thin that resizing it would take more than
            :data:`MAX_RESIZED_PIXELS` pixels.

    Source:
        timm 1.0 ``transforms_imagenet_eval``, ``ResizeKeepRatio``, ``CenterCropOrPad``; torchvision 0.24
        ``resize``, ``center_crop``.
    """
    height, width = size or spec.input_size[1:]
    resized = resized_size((image.height, image.width), (height, width), spec)
    if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
        raise UsageError(
            f"a picture of {image.width}x{image.height} pixels is too long and thin: resized for a model "
            f"input of {width}x{height} it would have {resized[1]}x{resized[0]} pixels, over the limit of "
            f"{MAX_RESIZED_PIXELS}; crop it first."
        )
    if resized != (image.height, image.width):
        image = image.resize((resized[1], resized[0]), _RESAMPLING[spec.interpolation])
    fill = tuple(round(255 * m) for m in spec.mean) if spec.crop_mode == "border" else (0, 0, 0)
    return _center_crop(image, height, width, fill)


def to_model_input(images: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Turn preprocessed pixels into what the graph's input takes.

    Args:
        images: uint8 of shape (N, H, W, 3).
        spec: ``dtype``, ``layout`` and, for float32, ``mean`` and ``std``.

    Returns:
        ``images`` itself for uint8 NHWC. float32 is ``(x / 255 - mean) / std``, bit for bit what
        torchvision's ToTensor and Normalize give. NCHW is (N, 3, H, W), contiguous.
    """
    if spec.dtype == "float32":
        # In place and in this order: every step rounds as torchvision's does.
        values = images.astype(np.float32)
        values /= np.float32(255)
        values -= np.asarray(spec.mean, np.float32)
        values /= np.asarray(spec.std, np.float32)
        images = values
    if spec.layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def resized_size(image: tuple[int, int], target: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """Return (height, width) after the resize; ``image`` and ``target`` are (height, width) too."""
    # At least one pixel, here and below: timm itself fails where a side comes out as none.
    scaled = (max(1, math.floor(target[0] / spec.crop_pct)), max(1, math.floor(target[1] / spec.crop_pct)))
    if spec.crop_mode == "squash":
        return scaled
    if spec.crop_mode == "center" and scaled[0] == scaled[1]:
        # torchvision's Resize(int): the long side is rounded down.
        short, long = min(image), max(image)
        new_long = int(scaled[0] * long / short)
        return (new_long, scaled[0]) if image[1] <= image[0] else (scaled[0], new_long)
    # timm's ResizeKeepRatio: both sides are rounded to the nearest.
    ratios = (image[0] / scaled[0], image[1] / scaled[1])
    ratio = max(ratios) if spec.crop_mode == "border" else min(ratios)
    return max(1, round(image[0] / ratio)), max(1, round(image[1] / ratio))


def _center_crop(image: Image.Image, height: int, width: int, fill: tuple[int, ...]) -> np.ndarray:
    # Where the picture is smaller than the crop, torchvision pads (the odd pixel goes right or below) and
    # cuts nothing.
    top = 0 if height > image.height else round((image.height - height) / 2.0)
    left = 0 if width > image.width else round((image.width - width) / 2.0)
    bottom, right = min(top + height, image.height), min(left + width, image.width)
    pixels = np.array(image.crop((left, top, right, bottom)))
    if pixels.shape == (height, width, 3):
        return pixels
    out = np.empty((height, width, 3), np.uint8)
    out[:] = fill
    y, x = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    out[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return out
