"""The edit ``depthwise``: other widths, and each k×k convolution as depthwise k×k and pointwise 1×1.

The step holds every width it sets, so that a checkpoint is rebuilt from it alone:
``{"step": "depthwise", "norm": "batch" | "none", "act": name, "modules": {name: {attribute: width}}, "separable":
[name, …]}``. Source of the pair: Howard et al. 2017, arXiv:1704.04861, figure 3.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from timm.layers import Conv2dSame
from torch import nn

from edgecv.errors import UsageError

MAX_WIDTH = 1 << 24
"""A flattened image before a linear layer can be this long; a network is first rebuilt without memory anyway."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leakyrelu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
}
"""What may stand between depthwise and pointwise, by its class's name in lower case."""

NORMS = ("batch", "none")

_ATTRIBUTES: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (nn.Conv2d, ("in_channels", "out_channels", "groups")),
    (nn.Linear, ("in_features", "out_features")),
    (nn.modules.batchnorm._NormBase, ("num_features",)),
    (nn.GroupNorm, ("num_channels",)),
    (nn.LayerNorm, ("normalized_shape",)),
)
"""Kinds of layers whose width can be set, and by which attributes."""


def apply(module: nn.Module, step: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Give ``module`` the widths of ``step``, then split its convolutions; every layer touched draws new weights.

    Args:
        module: As its constructor made it, or the step before left it; changed in place.
        step: See the module docstring.
        state: Not needed: the step is complete.

    Raises:
        UsageError: The step names what the network does not have, or a width out of range.
    """
    modules, separable, norm, act = (step.get(key) for key in ("modules", "separable", "norm", "act"))
    if (
        not isinstance(modules, Mapping)
        or not isinstance(separable, list | tuple)
        or norm not in NORMS
        or act not in ACTIVATIONS
    ):
        raise UsageError("the depthwise step of the checkpoint is incomplete; make the student again.")
    parts = dict(module.named_modules())
    for name in (*modules, *separable):
        if name not in parts:
            raise UsageError(f"the depthwise step names '{str(name)[:80]}', which the network does not have.")
    for name, widths in modules.items():
        set_widths(parts[name], name, widths)
    for name in separable:
        conv = module.get_submodule(name)
        if not is_plain(conv):
            raise UsageError(f"the depthwise step splits '{name[:80]}', which is no plain convolution.")
        module.set_submodule(name, separate(conv, norm, act))
    return module


def attributes_of(part: nn.Module) -> tuple[str, ...]:
    """Return the attributes that hold a layer's widths; empty for what has none that can be set."""
    return next((attributes for kind, attributes in _ATTRIBUTES if isinstance(part, kind)), ())


def set_widths(part: nn.Module, name: str, widths: Mapping[str, Any]) -> None:
    """Set a layer's widths and draw its tensors anew.

    Raises:
        UsageError: An attribute the layer does not have, or a width that is no number of channels.
    """
    allowed = attributes_of(part)
    if not isinstance(widths, Mapping) or set(widths) - set(allowed):
        raise UsageError(f"the depthwise step gives '{name[:80]}' widths that a {type(part).__name__} does not have.")
    for attribute, value in widths.items():
        if type(value) is not int or not 1 <= value <= MAX_WIDTH:
            raise UsageError(f"the depthwise step gives '{name[:80]}' {attribute} {value!r}, not in 1..{MAX_WIDTH}.")
        setattr(part, attribute, (value,) if attribute == "normalized_shape" else value)
    shapes = _shapes(part)
    for key, shape in shapes.items():
        old: Any = getattr(part, key, None)
        if old is None:
            continue
        new = torch.empty(shape, dtype=old.dtype, device=old.device)
        setattr(part, key, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
    reset: Any = part.reset_parameters
    reset()


def is_plain(part: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a layer is a convolution without more to it (weight standardisation, masks)."""
    return type(part) in (nn.Conv2d, Conv2dSame)


def separate(conv: nn.Conv2d, norm: str, act: str) -> nn.Sequential:
    """Return depthwise ``conv``, norm, activation, pointwise; stride, padding and dilation stay with the first."""
    channels = conv.in_channels
    like: dict[str, Any] = {
        key: getattr(conv, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    if type(conv) is not nn.Conv2d:
        like.pop("padding_mode")
    with torch.device(conv.weight.device):
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv_dw=type(conv)(channels, channels, groups=channels, bias=norm == "none", **like)
        )
        if norm == "batch":
            parts["norm"] = nn.BatchNorm2d(channels)
        parts["act"] = ACTIVATIONS[act]()
        parts["conv_pw"] = nn.Conv2d(channels, conv.out_channels, 1, bias=conv.bias is not None)
    return nn.Sequential(parts)


def _shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a layer from its widths."""
    if isinstance(part, nn.Conv2d):
        if part.in_channels % part.groups or part.out_channels % part.groups:
            raise UsageError(f"{part.in_channels} and {part.out_channels} channels do not divide by {part.groups}.")
        weight = (part.out_channels, part.in_channels // part.groups, *part.kernel_size)
        return {"weight": weight, "bias": (part.out_channels,)}
    if isinstance(part, nn.Linear):
        return {"weight": (part.out_features, part.in_features), "bias": (part.out_features,)}
    if isinstance(part, nn.GroupNorm):
        if part.num_channels % part.num_groups:
            raise UsageError(f"{part.num_channels} channels do not divide into {part.num_groups} groups.")
        return dict.fromkeys(("weight", "bias"), (part.num_channels,))
    if isinstance(part, nn.LayerNorm):
        return dict.fromkeys(("weight", "bias"), tuple(part.normalized_shape))
    width: Any = part.num_features
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
