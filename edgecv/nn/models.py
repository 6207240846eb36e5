"""Networks by name: timm's, torchvision's as ``torchvision:NAME``, with what they take and what they answer."""

import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import nn

from edgecv.errors import UsageError, nearest
from edgecv.nn.network import Network, check_class_count, input_spec
from edgecv.nn.torchvision_networks import TORCHVISION, build_torchvision, torchvision_names
from edgecv.nn.weights import (
    WEIGHTS_PACKAGES,
    check_reachable,
    describe_file,
    initialize_randomly,
    load_into,
    no_weights,
    package_file,
    read_state_dict,
)


def build_network(name: str, *, weights: Path | None = None, random_init: bool = False, seed: int = 0) -> Network:
    """Build a network by name with its weights.

    Args:
        name: ``resnet50``, ``resnet50.a1_in1k`` (timm), or ``torchvision:resnet50``.
        weights: A state dict, ``.safetensors`` or ``.pth``; the number of classes is read from it.
        random_init: Seeded random weights instead of real ones.
        seed: Seed of the random weights.

    Raises:
        UsageError: Unknown name (the nearest are given), or the file does not fit.
        EnvironmentRefusedError: No weights here and none to be had.
    """
    torch.manual_seed(seed)
    state = None if weights is None else read_state_dict(weights)
    check_name(name)
    build = build_torchvision if name.startswith(TORCHVISION) else _build_timm
    network = build(name, state, weights, random_init)
    if random_init:
        initialize_randomly(network.module, network.input.input_size, seed)
        network.source.update(weights="random-init", seed=str(seed))
    elif state is not None and weights is not None:
        load_into(network.module, state, str(weights))
        network.source.update(describe_file(weights, "file"))
    network.module.eval()
    for parameter in network.module.parameters():
        parameter.requires_grad_(False)
    return network


def list_networks(pattern: str = "*") -> list[str]:
    """Return the sorted names that match a shell pattern: timm's, then torchvision's as ``torchvision:NAME``."""
    names = sorted(timm.list_models()) + torchvision_names()
    tagged = sorted(timm.list_pretrained()) if "." in pattern else []
    return [n for n in names + tagged if fnmatch.fnmatch(n, pattern)]


def check_name(name: str) -> None:
    """Raise UsageError with the nearest names unless ``name`` is a network edgecv can build."""
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


def _build_timm(name: str, state: dict[str, torch.Tensor] | None, weights: Path | None, random_init: bool) -> Network:
    architecture, _, tag = name.partition(".")
    default_tag = tag in ("", _timm_config(architecture).get("tag"))
    package = WEIGHTS_PACKAGES.get(architecture) if default_tag else None
    own_weights = state is not None or random_init
    package_path = package_file(package) if package and not own_weights else None
    source: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    if state is not None and (classes := _classes_in(state, _timm_config(architecture).get("classifier"))):
        arguments["num_classes"] = classes
    if own_weights or package_path:
        module = timm.create_model(architecture, pretrained=False, **arguments)
    else:
        module = _download(name, architecture)
        source["weights"] = f"timm:{_timm_config(name).get('hf_hub_id') or name}"
    config = timm.data.resolve_model_data_config(module)
    published: dict[str, Any] = module.pretrained_cfg
    config["crop_pct"] = published.get("crop_pct", config["crop_pct"])
    if not own_weights:
        source["license"] = str(published.get("license") or "")
    if package and package_path:
        load_into(module, package.rename(read_state_dict(package_path), module), str(package_path))
        source.update(describe_file(package_path, f"package:{package.module}"), license=package.license)
        config.update(mean=package.mean, std=package.std)
    labels, label_ids = _imagenet_labels(module)
    info = getattr(module, "feature_info", None) or []
    stride = int(info[-1]["reduction"]) if len(info) else 0
    return Network(module, name, input_spec(config), labels, label_ids, source, stride)


def _timm_config(architecture: str) -> dict[str, Any]:
    config = timm.get_pretrained_cfg(architecture)
    return config.to_dict() if config is not None else {}


def _classes_in(state: dict[str, torch.Tensor], classifier: object) -> int | None:
    names = classifier if isinstance(classifier, list | tuple) else [classifier]
    for name in names:
        bias = state.get(f"{name}.bias")
        if bias is not None and bias.ndim == 1:
            return check_class_count(len(bias))
    return None


def _download(name: str, architecture: str) -> nn.Module:
    package = WEIGHTS_PACKAGES.get(architecture)
    if package is not None and package_file(package):
        package = None  # installed, and of another tag: installing it again would not help
    if not timm.is_model_pretrained(name):
        raise no_weights(name, "timm publishes none", package)
    try:
        if not is_cached(name):
            check_reachable(huggingface_hub.constants.ENDPOINT)
        module: nn.Module = timm.create_model(name, pretrained=True)
        return module
    except Exception as e:  # huggingface_hub, urllib, requests and ssl each raise their own
        reason = f"the download failed ({type(e).__name__}: {' '.join(str(e).split())[:120]})"
        raise no_weights(name, reason, package) from e


def is_cached(name: str) -> bool:
    """Return whether timm's published weights of ``name`` lie in the hub's local cache."""
    repository = _timm_config(name).get("hf_hub_id")
    files = ("model.safetensors", "pytorch_model.bin")
    return bool(repository) and any(
        isinstance(huggingface_hub.try_to_load_from_cache(str(repository), f), str) for f in files
    )


def _imagenet_labels(module: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    if subset is None:
        return (), ()
    info = ImageNetInfo(subset)
    ids = tuple(info.label_names())
    if len(ids) != module.num_classes:
        return (), ()
    return tuple(info.label_descriptions()), ids
