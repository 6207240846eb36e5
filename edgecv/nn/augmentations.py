"""Augmentations: each changes one picture, as far as its strength says and the generator it is given draws.

They run on Pillow and numpy, whose results do not depend on the number of threads; names and ranges stand in
:data:`edgecv.config.augmentation.AUGMENTATIONS`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

Pixels = np.ndarray
"""uint8 (H, W, 3), RGB."""

_CLAHE_TILE = 28  # pixels: the usual 8 x 8 tiles of a 224-pixel image
_CLAHE_CLIP = (1.0, 4.0)  # Albumentations' range


def pad_crop(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Shift by up to ``strength`` of each side; what comes in is the picture mirrored at its edge."""
    height, width = pixels.shape[:2]
    reach_y, reach_x = round(strength * height), round(strength * width)
    top, left = chance.randint(-reach_y, reach_y), chance.randint(-reach_x, reach_x)
    rows = _mirrored(height, reach_y)[top + reach_y :][:height]
    columns = _mirrored(width, reach_x)[left + reach_x :][:width]
    return pixels.take(rows, axis=0).take(columns, axis=1)


@lru_cache(maxsize=64)
def _mirrored(size: int, reach: int) -> npt.NDArray[np.intp]:
    return np.pad(np.arange(size), reach, mode="reflect")


def resized_crop(
    image: Image.Image, size: tuple[int, int], interpolation: str, strength: float, chance: Random
) -> Pixels:
    """Cut out a part of at least ``strength`` of the area, 3:4 to 4:3, and resize it to ``size`` (height, width)."""
    with _torch_seeded(chance):
        return np.asarray(_random_resized_crop(size, interpolation, strength)(image))


@lru_cache(maxsize=8)
def _random_resized_crop(size: tuple[int, int], interpolation: str, strength: float) -> Any:
    return v2.RandomResizedCrop(size, scale=(strength, 1.0), interpolation=v2.InterpolationMode(interpolation))


def flip(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Mirror left and right."""
    return pixels[:, ::-1] if chance.random() < strength else pixels


def vertical_flip(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Mirror top and bottom."""
    return pixels[::-1] if chance.random() < strength else pixels


def rotation(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Turn about the centre; the corners that come in are the mean colour."""
    angle = chance.uniform(-strength, strength)
    fill = pixels.reshape(-1, 3).mean(0).round().tolist()
    return _on_image(pixels, functional.rotate, angle, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)


def rand_augment(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Two operations drawn from RandAugment's list (Cubuk et al. 2019), at magnitude ``strength`` of 30."""
    with _torch_seeded(chance):
        return _on_image(pixels, _rand_augment(round(strength)))


@lru_cache(maxsize=8)
def _rand_augment(magnitude: int) -> Any:
    return v2.RandAugment(num_ops=2, magnitude=magnitude, interpolation=v2.InterpolationMode.BILINEAR, fill=[128] * 3)


def rgb_shift(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Add an offset to each channel."""
    shift = [round(255 * chance.uniform(-strength, strength)) for _ in range(3)]
    return (pixels.astype(np.int16) + np.array(shift, np.int16)).clip(0, 255).astype(np.uint8)


def hue_saturation_value(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Turn the hue by up to ``strength`` / 4 turns, multiply saturation and value by up to 1 ± ``strength``."""
    image = Image.fromarray(pixels)
    image = functional.adjust_hue(image, chance.uniform(-strength, strength) / 4)
    image = functional.adjust_saturation(image, 1 + chance.uniform(-strength, strength))
    return np.asarray(functional.adjust_brightness(image, 1 + chance.uniform(-strength, strength)))


def channel_shuffle(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Put the channels into another order."""
    if chance.random() >= strength:
        return pixels
    return pixels[..., chance.choice(((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))]


def clahe(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Equalize the lightness tile by tile with limited contrast (Zuiderveld 1994), by kornia."""
    drawn, clip = chance.random(), chance.uniform(*_CLAHE_CLIP)
    if drawn >= strength:
        return pixels
    from kornia.enhance import equalize_clahe

    lightness, *colors = Image.fromarray(pixels).convert("YCbCr").split()
    tiles = tuple(max(1, min(8, side // _CLAHE_TILE)) for side in pixels.shape[:2])
    plane = torch.from_numpy(np.array(lightness, np.float32) / 255)
    equal = (equalize_clahe(plane[None, None], clip, tiles)[0, 0].numpy() * 255).round().astype(np.uint8)
    return np.asarray(Image.merge("YCbCr", (Image.fromarray(equal), *colors)).convert("RGB"))


def contrast(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Move every pixel away from or towards the mean brightness."""
    return _on_image(pixels, functional.adjust_contrast, 1 + chance.uniform(-strength, strength))


def gamma(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Raise brightness, of 1, to a power."""
    exponent = (1 + strength) ** chance.uniform(-1, 1)
    return _on_image(pixels, functional.adjust_gamma, exponent)


def brightness(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Multiply by a factor."""
    return _on_image(pixels, functional.adjust_brightness, 1 + chance.uniform(-strength, strength))


def blur(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Blur by a Gaussian of up to ``strength`` of the shorter side."""
    sigma = chance.uniform(0, strength) * min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def median_blur(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Give each pixel the median of the 3 x 3 about it, in images of 160 pixels and more also of 5 x 5, by kornia."""
    drawn, wide = chance.random(), chance.random() < 0.5 and min(pixels.shape[:2]) >= 160
    if drawn >= strength:
        return pixels
    from kornia.filters import median_blur as by_kornia  # a quarter of the time of Pillow's

    side = 5 if wide else 3
    reach = side // 2
    edged = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")  # kornia's own edge is black
    planes = torch.from_numpy(edged.transpose(2, 0, 1).astype(np.float32))[None]
    middle: Pixels = by_kornia(planes, side)[0, :, reach:-reach, reach:-reach].numpy()
    return middle.astype(np.uint8).transpose(1, 2, 0)


def gray(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Take the colour away."""
    return _on_image(pixels, functional.to_grayscale, 3) if chance.random() < strength else pixels


def jpeg(pixels: Pixels, strength: float, chance: Random) -> Pixels:
    """Compress as JPEG of a quality from 100 down to ``100 (1 - strength)``."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=max(1, round(100 * (1 - chance.uniform(0, strength)))))
    return np.asarray(Image.open(file, formats=("JPEG",)).convert("RGB"))


def _on_image(pixels: Pixels, function: Any, *arguments: Any, **options: Any) -> Pixels:
    return np.asarray(function(Image.fromarray(pixels), *arguments, **options))


@contextmanager
def _torch_seeded(chance: Random) -> Iterator[None]:
    """Let torchvision's own draws be a function of ``chance``, and leave PyTorch's generator as it was."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(chance.getrandbits(63))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
