"""Networks by name: timm's, torchvision's as ``torchvision:NAME``, with what they take and what they answer."""

import fnmatch
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
import torchvision
from torch import nn

from edgecv.errors import UsageError, nearest
from edgecv.manifest import InputSpec
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

TORCHVISION = "torchvision:"


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
    """

    module: nn.Module
    name: str
    input: InputSpec
    labels: tuple[str, ...]
    label_ids: tuple[str, ...]
    source: dict[str, str]
    stride: int


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
    build = _build_torchvision if name.startswith(TORCHVISION) else _build_timm
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
    names = sorted(timm.list_models()) + [f"{TORCHVISION}{n}" for n in _torchvision_names()]
    tagged = sorted(timm.list_pretrained()) if "." in pattern else []
    return [n for n in names + tagged if fnmatch.fnmatch(n, pattern)]


def _torchvision_names() -> list[str]:
    return sorted(torchvision.models.list_models(module=torchvision.models))


def check_name(name: str) -> None:
    """Raise UsageError with the nearest names unless ``name`` is a network edgecv can build."""
    if name.startswith(TORCHVISION):
        known = [f"{TORCHVISION}{n}" for n in _torchvision_names()]
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
    check_name(name)
    architecture, _, tag = name.partition(".")
    package = None if tag else WEIGHTS_PACKAGES.get(architecture)
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
    if not random_init:
        source["license"] = str(published.get("license") or "")
    if package and package_path:
        load_into(module, package.rename(read_state_dict(package_path), module), str(package_path))
        source.update(describe_file(package_path, f"package:{package.module}"), license=package.license)
        config.update(mean=package.mean, std=package.std)
    labels, label_ids = _imagenet_labels(module)
    info = getattr(module, "feature_info", None) or []
    stride = int(info[-1]["reduction"]) if len(info) else 0
    return Network(module, name, _input_spec(config), labels, label_ids, source, stride)


def _timm_config(architecture: str) -> dict[str, Any]:
    config = timm.get_pretrained_cfg(architecture)
    return config.to_dict() if config is not None else {}


def _classes_in(state: dict[str, torch.Tensor], classifier: object) -> int | None:
    names = classifier if isinstance(classifier, list | tuple) else [classifier]
    for name in names:
        bias = state.get(f"{name}.bias")
        if bias is not None and bias.ndim == 1:
            return len(bias)
    return None


def _download(name: str, architecture: str) -> nn.Module:
    package = WEIGHTS_PACKAGES.get(architecture)
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


def _input_spec(config: dict[str, Any]) -> InputSpec:
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


def _build_torchvision(
    name: str, state: dict[str, torch.Tensor] | None, weights: Path | None, random_init: bool
) -> Network:
    check_name(name)
    short = name.removeprefix(TORCHVISION)
    published = list(torchvision.models.get_model_weights(short))
    chosen = next((w for w in published if weights and Path(w.url).name == weights.name), None)
    chosen = chosen or torchvision.models.get_model_weights(short).DEFAULT
    arguments: dict[str, Any] = {} if "inception" not in short and "googlenet" not in short else {"init_weights": True}
    source: dict[str, str] = {"license": "" if random_init else "BSD-3-Clause"}
    classes = None if state is None else _last_bias_length(state)
    if classes is not None:
        arguments["num_classes"] = classes
    if state is None and not random_init:
        try:
            if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name).is_file():
                check_reachable(chosen.url)
            module = torchvision.models.get_model(short, weights=chosen)
        except Exception as e:  # urllib and ssl raise their own
            raise no_weights(name, f"the download failed ({type(e).__name__}: {str(e)[:120]})", None) from e
        source["weights"] = f"torchvision:{chosen}"
    else:
        module = torchvision.models.get_model(short, weights=None, **arguments)
    imagenet = classes in (None, 1000)
    labels = tuple(chosen.meta["categories"]) if imagenet else ()
    label_ids = tuple(timm.data.ImageNetInfo().label_names()) if imagenet else ()
    return Network(module, name, _torchvision_spec(chosen), labels, label_ids, source, 32)


def _last_bias_length(state: dict[str, torch.Tensor]) -> int:
    biases = [v for k, v in state.items() if k.endswith(".bias") and v.ndim == 1]
    return len(biases[-1]) if biases else 1000


def _torchvision_spec(weights: Any) -> InputSpec:
    preset = weights.transforms()
    size, resize = preset.crop_size[0], preset.resize_size[0]
    return _input_spec(
        {
            "input_size": (3, size, size),
            "mean": preset.mean,
            "std": preset.std,
            "interpolation": preset.interpolation.value,
            "crop_pct": crop_share(size, resize),
            "crop_mode": "center",
        }
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
