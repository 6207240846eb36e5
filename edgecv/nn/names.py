"""Names of networks: edgecv's own and timm's plain, torchvision's as ``torchvision:NAME``, and checkpoints."""

import fnmatch
from pathlib import Path

import timm

from edgecv.errors import UsageError, nearest
from edgecv.nn.networks import NETWORKS
from edgecv.nn.torchvision_networks import TORCHVISION, torchvision_names


def is_checkpoint(name: str) -> bool:
    """Return whether ``name`` names a checkpoint of edgecv rather than a network."""
    return name.endswith(".safetensors")


def is_own(name: str) -> bool:
    """Return whether ``name``, with or without ``:key=value`` arguments, is one of edgecv's own networks."""
    return name.partition(":")[0] in NETWORKS


def list_networks(pattern: str = "*") -> list[str]:
    """Return the names that match a shell pattern: edgecv's own, then timm's, then torchvision's, each sorted.

    The path of a checkpoint is the one name it matches.
    """
    if is_checkpoint(pattern):
        check_name(pattern)
        return [pattern]
    names = sorted(NETWORKS) + sorted(timm.list_models()) + torchvision_names()
    tagged = sorted(timm.list_pretrained()) if "." in pattern else []
    return [n for n in names + tagged if fnmatch.fnmatch(n, pattern)]


def check_name(name: str) -> None:
    """Raise UsageError with the nearest names unless ``name`` is a network edgecv can build."""
    if is_own(name):
        return
    if is_checkpoint(name):
        if not Path(name).is_file():
            raise UsageError(f"checkpoint '{name}' does not exist; check the path.")
        return
    if name.startswith(TORCHVISION):
        known = torchvision_names()
        if name not in known:
            raise UsageError(f"no network '{name}'.{nearest(name, known)} List: edgecv models 'torchvision:*'")
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UsageError(f"no network '{name}'.{nearest(name, list_networks())} List: edgecv models")
    if tag and name not in timm.list_pretrained():
        tags = [n for n in timm.list_pretrained() if n.split(".")[0] == architecture]
        raise UsageError(f"'{architecture}' has no weights tagged '{tag}'; known: {', '.join(tags) or 'none'}.")
