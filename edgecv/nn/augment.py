"""From an image file to augmented pixels: decoding, the crop, then each augmentation by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from random import Random
from typing import Any

import numpy as np

from edgecv.config.augmentation import AUGMENTATIONS, SMALL_SIDE, parse_augmentations
from edgecv.errors import EnvironmentRefusedError
from edgecv.manifest import InputSpec
from edgecv.runtime.decode import decode_image
from edgecv.runtime.preprocess import ImageSource, preprocess

CHEAP = frozenset({"pad-crop", "flip", "vertical-flip", "channel-shuffle"})
"""Augmentations that take less time than handing an image from one process to another."""

_KORNIAS = frozenset({"clahe", "median-blur"})


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Augmentations ready to run on images of one size.

    Attributes:
        spec: Size and resize rule of the network.
        resized_crop: Its strength; None where the whole picture is kept, as for evaluation.
        steps: Name, function and strength of the others, in order.
    """

    spec: InputSpec
    resized_crop: float | None
    steps: tuple[tuple[str, Callable[[np.ndarray, float, Random], np.ndarray], float], ...]

    @property
    def cheap(self) -> bool:
        """Whether an image that is decoded already costs next to nothing."""
        return self.resized_crop is None and all(name in CHEAP for name, _, _ in self.steps)

    def frame(self, source: ImageSource, chance: Random) -> np.ndarray:
        """Return the picture as uint8 (H, W, 3) in the network's size, nothing else changed.

        Raises:
            UsageError: See ``runtime.preprocess``.
        """
        if self.resized_crop is None:
            return preprocess(source, self.spec)
        crop = _function("resized-crop")
        pixels: np.ndarray = crop(
            decode_image(source), self.spec.input_size[1:], self.spec.interpolation, self.resized_crop, chance
        )
        return pixels

    def augment(self, pixels: np.ndarray, chance: Random) -> np.ndarray:
        """Return framed pixels after every step; may be a view of what came in, which is not changed."""
        for _, function, strength in self.steps:
            pixels = function(pixels, strength, chance)
        return pixels

    def __call__(self, source: ImageSource, key: int) -> np.ndarray:
        """Return an image file as augmented uint8 (H, W, 3): the same for the same key."""
        chance = Random(key)
        return self.augment(self.frame(source, chance), chance)


def build_pipeline(texts: Sequence[str], spec: InputSpec) -> Pipeline:
    """Return the augmentations named by ``NAME`` or ``NAME:STRENGTH`` for a network's input.

    Raises:
        UsageError: See :func:`edgecv.config.augmentation.parse_augmentations`.
        EnvironmentRefusedError: A library that one of them needs is not installed.
    """
    chosen = dict(parse_augmentations(texts))
    if "crop" in chosen:
        name = "pad-crop" if min(spec.input_size[1:]) <= SMALL_SIDE else "resized-crop"
        chosen = {
            name if k == "crop" else k: AUGMENTATIONS[name].strength if k == "crop" else v for k, v in chosen.items()
        }
    if _KORNIAS & chosen.keys():
        _import_kornia()
    resized_crop = chosen.pop("resized-crop", None)
    steps = tuple((name, _function(name), strength) for name, strength in chosen.items())
    return Pipeline(spec, resized_crop, steps)


def _import_kornia() -> None:
    """Import it here, once, and not in each worker process of each epoch."""
    try:
        import_module("kornia")
    except ImportError as e:
        wanted = " and ".join(sorted(_KORNIAS))
        raise EnvironmentRefusedError(f"{wanted} need kornia; install it with: pip install 'edgecv[train]'") from e


def _function(name: str) -> Any:
    module, _, function = AUGMENTATIONS[name].function.partition(":")
    return getattr(import_module(module), function)
