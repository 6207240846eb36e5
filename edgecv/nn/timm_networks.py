"""timm's networks: published weights from its hub, a package, or none."""

from collections.abc import Mapping
from typing import Any

import huggingface_hub
import timm
import torch
from torch import nn

from edgecv.nn.construct import construct
from edgecv.nn.network import Network, check_class_count, input_spec
from edgecv.nn.weights import (
    WEIGHTS_PACKAGES,
    check_reachable,
    describe_file,
    load_into,
    no_weights,
    package_file,
    read_state_dict,
)

StateDict = dict[str, torch.Tensor]


def build_timm(name: str, state: StateDict | None, arguments: Mapping[str, Any] | None = None) -> Network:
    """Build timm's ``name``: published weights without ``state`` and ``arguments``, else the constructor's draw.

    Raises:
        EnvironmentRefusedError: Published weights are wanted and cannot be had.
    """
    architecture, _, tag = name.partition(".")
    default_tag = tag in ("", _timm_config(architecture).get("tag"))
    package = WEIGHTS_PACKAGES.get(architecture) if default_tag else None
    own_weights = state is not None or arguments is not None
    package_path = package_file(package) if package and not own_weights else None
    source: dict[str, str] = {}
    given = dict(arguments or {})
    if state is not None and (classes := _classes_in(state, _timm_config(architecture).get("classifier"))):
        given["num_classes"] = classes
    if own_weights or package_path:
        module: Any = construct(architecture, given)
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
    if module.num_classes:
        given["num_classes"] = module.num_classes
    return Network(module, name, input_spec(config), labels, label_ids, source, stride, given)


def _timm_config(architecture: str) -> dict[str, Any]:
    config = timm.get_pretrained_cfg(architecture)
    return config.to_dict() if config is not None else {}


def _classes_in(state: StateDict, classifier: object) -> int | None:
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
