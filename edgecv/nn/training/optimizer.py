"""The optimizer and its parameter groups: decay where it belongs, smaller steps near the input."""

from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError


def build_optimizer(
    module: nn.Module, extra: nn.Module | None, settings: TrainSettings, learning_rate: float
) -> torch.optim.Optimizer:
    """Return sgd or adamw over what is not frozen.

    Norms, biases and what the network itself names (timm's ``no_weight_decay``: position embeddings) get no weight
    decay; with ``layer_decay`` each group of layers has ``lr_scale`` to the power of its distance from the classifier
    (Clark et al. 2020, ELECTRA; Bao et al. 2021, BEiT). Biases of norms learn ``bias_rate`` times as fast: where epochs
    are few they are what is learnt too late (Page 2019; Jordan 2024, arXiv:2404.00498, section 3.4).

    Args:
        module: The network, some of it frozen.
        extra: Modules of the objective that are trained along.
        settings: Optimizer, momentum, weight decay, layer decay.
        learning_rate: Of a group whose ``lr_scale`` is 1.

    Raises:
        UsageError: Everything is frozen.
    """
    excluded = set(module.no_weight_decay()) if hasattr(module, "no_weight_decay") else set()  # type: ignore[operator]
    if settings.layer_decay < 1:
        groups = param_groups_layer_decay(
            module, settings.weight_decay, no_weight_decay_list=excluded, layer_decay=settings.layer_decay
        )
    else:
        groups = param_groups_weight_decay(module, settings.weight_decay, no_weight_decay_list=excluded)
    if not groups:
        raise UsageError("every layer is frozen, there is nothing to train; choose an earlier stage for freeze_to.")
    if extra is not None:
        groups += param_groups_weight_decay(extra, settings.weight_decay)
    for group in groups:
        group.setdefault("lr_scale", 1.0)
    if settings.bias_rate != 1:
        groups = _faster_biases(module, groups, settings.bias_rate)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=settings.momentum, nesterov=settings.nesterov)


def _faster_biases(module: nn.Module, groups: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
    biases = {id(m.bias) for m in module.modules() if isinstance(m, norms) and m.bias is not None}
    divided = []
    for group in groups:
        for fast in (False, True):
            parameters = [p for p in group["params"] if (id(p) in biases) is fast]
            if parameters:
                scale = group["lr_scale"] * (factor if fast else 1)
                divided.append({**group, "params": parameters, "lr_scale": scale})
    return divided


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group its part of ``learning_rate``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return every parameter the optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
