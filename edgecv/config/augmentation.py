"""Augmentations by name: what ``--augment crop,flip,rotation:15`` and a recipe's ``augment`` may say."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgecv.errors import UsageError, nearest

SMALL_SIDE = 96
"""Pixels up to which ``crop`` shifts the whole picture instead of cutting a part out: objects fill small pictures."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One entry of :data:`AUGMENTATIONS`.

    Attributes:
        function: ``module:function`` (pixels uint8 (H, W, 3), strength, ``random.Random``) → pixels.
        strength: When none is given.
        low: Least strength.
        high: Greatest strength.
        help: What the strength is.
    """

    function: str
    strength: float
    low: float
    high: float
    help: str


# Usual strengths: He et al. 2015 section 4.2 (4 of 32 pixels), Szegedy et al. 2014 section 6 (8 % of the area), Cubuk
# et al. 2019 (RandAugment 2 x 9); colours as Albumentations' defaults, rounded.
AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": Augmentation("", 0, 0, 0, f"pad-crop up to {SMALL_SIDE} pixels, resized-crop above"),
    "pad-crop": Augmentation("edgecv.nn.augmentations:pad_crop", 0.125, 0, 0.5, "largest shift, of the side"),
    "resized-crop": Augmentation("edgecv.nn.augmentations:resized_crop", 0.08, 0.01, 1, "smallest part, of the area"),
    "flip": Augmentation("edgecv.nn.augmentations:flip", 0.5, 0, 1, "share of images mirrored"),
    "vertical-flip": Augmentation("edgecv.nn.augmentations:vertical_flip", 0.5, 0, 1, "share of images turned over"),
    "rotation": Augmentation("edgecv.nn.augmentations:rotation", 15, 0, 180, "largest angle in degrees"),
    "rand-augment": Augmentation("edgecv.nn.augmentations:rand_augment", 9, 0, 30, "magnitude of two operations"),
    "rgb-shift": Augmentation("edgecv.nn.augmentations:rgb_shift", 0.1, 0, 1, "largest shift of a channel, of 255"),
    "hue-saturation-value": Augmentation(
        "edgecv.nn.augmentations:hue_saturation_value",
        0.3,
        0,
        1,
        "saturation and value by up to 1 ± it, hue by a quarter of it",
    ),
    "channel-shuffle": Augmentation("edgecv.nn.augmentations:channel_shuffle", 0.5, 0, 1, "share of images"),
    "clahe": Augmentation("edgecv.nn.augmentations:clahe", 0.5, 0, 1, "share of images"),
    "contrast": Augmentation("edgecv.nn.augmentations:contrast", 0.3, 0, 1, "factor of up to 1 ± it"),
    "gamma": Augmentation("edgecv.nn.augmentations:gamma", 0.3, 0, 4, "exponent between 1 / (1 + it) and 1 + it"),
    "brightness": Augmentation("edgecv.nn.augmentations:brightness", 0.3, 0, 1, "factor of up to 1 ± it"),
    "blur": Augmentation("edgecv.nn.augmentations:blur", 0.01, 0, 0.1, "largest Gaussian sigma, of the side"),
    "median-blur": Augmentation("edgecv.nn.augmentations:median_blur", 0.5, 0, 1, "share of images"),
    "gray": Augmentation("edgecv.nn.augmentations:gray", 0.2, 0, 1, "share of images"),
    "jpeg": Augmentation("edgecv.nn.augmentations:jpeg", 0.6, 0, 0.99, "largest loss of quality, of 100"),
}
"""Every augmentation; README and ``edgecv data show --help`` list them from here."""


def parse_augmentations(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return ``(name, strength)`` of each ``NAME`` or ``NAME:STRENGTH``; ``none`` alone gives nothing.

    Raises:
        UsageError: An unknown name (the nearest are given), a name twice, or a strength out of range.

    >>> parse_augmentations(["flip", "rotation:30"])
    (('flip', 0.5), ('rotation', 30.0))
    """
    if list(texts) in ([], ["none"]):
        return ()
    parsed: dict[str, float] = {}
    for text in texts:
        name, colon, strength = text.strip().partition(":")
        if name not in AUGMENTATIONS:
            known = "" if nearest(name, AUGMENTATIONS) else f" Known: {', '.join(AUGMENTATIONS)}."
            raise UsageError(f"there is no augmentation '{name}'.{nearest(name, AUGMENTATIONS)}{known}")
        if name in parsed:
            raise UsageError(f"augmentation '{name}' is given twice; give it once.")
        parsed[name] = _strength(name, strength) if colon else AUGMENTATIONS[name].strength
    if len({"crop", "pad-crop", "resized-crop"} & parsed.keys()) > 1:
        raise UsageError("crop, pad-crop and resized-crop exclude one another; give one of them.")
    return tuple(parsed.items())


def _strength(name: str, text: str) -> float:
    entry = AUGMENTATIONS[name]
    if entry.low == entry.high:
        raise UsageError(f"augmentation '{name}' takes no strength; it is {entry.help}, which do.")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not entry.low <= value <= entry.high:
        raise UsageError(
            f"augmentation '{name}': strength '{text}' is not a number from {entry.low:g} to {entry.high:g} "
            f"({entry.help})."
        )
    return value
