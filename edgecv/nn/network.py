"""A PyTorch network together with what it takes and what it answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec

MAX_CLASSES = 100_000
"""ImageNet-21k has 21,841; a hostile checkpoint can name 10 million and take 80 GB."""


@dataclass(frozen=True, slots=True)
class Network:
    """A PyTorch network in eval mode with what is known about it.

    Attributes:
        module: Takes float32 ``(N, 3, H, W)``, gives logits ``(N, classes)``.
        name: As the user named it.
        input: Size, normalisation and resize rule, in timm's words; layout ``NCHW``, dtype ``float32``.
        labels: Human class names, or empty.
        label_ids: Folder names (WordNet ids for ImageNet), or empty.
        source: The manifest's ``source``: where the weights come from.
        stride: Pixels of the input to one cell of the last feature map; 0 when not known.
        arguments: Of the constructor, as the manifest records them.
        structure: Edits made to the fresh network since, as the manifest records them.
        stages: What was done to it, as the manifest records it.
    """

    module: nn.Module
    name: str
    input: InputSpec
    labels: tuple[str, ...]
    label_ids: tuple[str, ...]
    source: dict[str, str]
    stride: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    structure: tuple[Mapping[str, Any], ...] = ()
    stages: tuple[Mapping[str, Any], ...] = ()


def check_class_count(count: int) -> int:
    """Return ``count``; raise UsageError above :data:`MAX_CLASSES`, before a network of that size is allocated."""
    if not 1 <= count <= MAX_CLASSES:
        raise UsageError(f"the checkpoint's classifier has {count} classes; edgecv builds up to {MAX_CLASSES}.")
    return count


def input_spec(config: dict[str, Any]) -> InputSpec:
    """Return the input of a float32 NCHW network from a configuration in timm's words."""
    return InputSpec(
        name="image",
        input_size=tuple(config["input_size"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=str(config["interpolation"]),
        crop_pct=float(config["crop_pct"]),
        crop_mode=str(config["crop_mode"]),
        layout="NCHW",
        dtype="float32",
    )


def crop_share(size: int, resize: int) -> float:
    """Return the ``crop_pct`` for which ``floor(size / crop_pct)`` is exactly ``resize`` despite rounding.

    >>> import math
    >>> math.floor(224 / crop_share(224, 232))
    232
    """
    share = size / resize
    while math.floor(size / share) < resize:
        share = math.nextafter(share, 0)
    return share
