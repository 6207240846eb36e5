"""From pixels of 0..255 to what a network takes, on the device the pixels are on."""

import torch
from torch import Tensor

from edgecv.manifest import InputSpec


def normalize(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Return ``(pixels / 255 - mean) / std`` as float32, in the memory order of ``pixels``.

    It rounds as ``runtime.preprocess.to_model_input`` does, so that a network sees the same numbers in training, in
    evaluation and on the device.

    Args:
        pixels: uint8 or floating point (N, 3, H, W), 0..255; gradients flow through floating-point ones.
        spec: ``mean`` and ``std`` of pixels scaled to 0..1.
    """
    mean, std = (torch.tensor(values, device=pixels.device).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return (pixels.float() / 255 - mean) / std
