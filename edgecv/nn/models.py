"""Networks by name, with their weights, what they take and what they answer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgecv.errors import UsageError
from edgecv.nn.adapt import adapt, head_names, sized
from edgecv.nn.checkpoint import load_network, read_manifest
from edgecv.nn.construct import check_argument, construct, size_argument, split_arguments
from edgecv.nn.names import check_name, is_checkpoint, is_own
from edgecv.nn.network import Network, check_class_count, input_spec
from edgecv.nn.networks import NETWORKS, preprocessing
from edgecv.nn.structure import replay
from edgecv.nn.timm_networks import StateDict, build_timm
from edgecv.nn.torchvision_networks import TORCHVISION, build_torchvision
from edgecv.nn.weights import (
    describe_file,
    initialize_randomly,
    load_into,
    no_weights,
    read_state_dict,
)

Size = tuple[int, int]


def build_network(
    name: str,
    *,
    weights: Path | None = None,
    random_init: bool = False,
    num_classes: int | None = None,
    input_size: int | Size | None = None,
    seed: int = 0,
) -> Network:
    """Build a network by name with its weights.

    Args:
        name: ``resnet50``, ``resnet50.a1_in1k`` (timm), ``torchvision:resnet50``, one of edgecv's own (``speednet``,
            ``dsnet:width=0.5``), or the path of a checkpoint that edgecv wrote.
        weights: A state dict, ``.safetensors`` or ``.pth``; the number of classes is read from it.
        random_init: Seeded random weights instead of real ones, made to be measured, not trained.
        num_classes: Of the head; another number than the weights have gives a new, untrained head.
        input_size: Pixels of a square's side, or ``(height, width)``; else the network's own.
        seed: Seed of the random weights and of a new head.

    Returns:
        The network in eval mode, no parameter asking for gradients.

    Raises:
        UsageError: Unknown name (the nearest are given), the file does not fit, or the network not the size.
        EnvironmentRefusedError: No weights here and none to be had.
    """
    torch.manual_seed(seed)
    name, arguments = _checked(name, num_classes, size := _pair(input_size))
    if is_checkpoint(name):
        if weights is not None or random_init:
            raise UsageError(f"'{name}' holds the weights already; leave out --weights and --random-init.")
        network = load_network(Path(name))
    elif weights is not None and _holds_manifest(weights, name):
        network = load_network(weights)
    elif random_init:
        network = _build_weightless(name, arguments, num_classes, size)
        initialize_randomly(network.module, network.input.input_size, seed)
        network.source.update(weights="random-init", seed=str(seed))
    else:
        network = _build_weighted(name, arguments, weights)
    network = adapt(network, num_classes, size)
    network.module.eval()
    for parameter in network.module.parameters():
        parameter.requires_grad_(False)
    return network


def build_untrained(
    name: str, *, num_classes: int | None = None, input_size: int | Size | None = None, seed: int = 0
) -> Network:
    """Build a network to train from scratch: as its constructor draws it, in train mode, gradients on.

    The arguments are those of :func:`build_network`; a checkpoint gives its structure, not its weights.

    Raises:
        UsageError: Unknown name, or arguments the network does not take.
    """
    name, arguments = _checked(name, num_classes, size := _pair(input_size))
    torch.manual_seed(seed)
    if is_checkpoint(name):
        loaded = adapt(load_network(Path(name)), num_classes, size)
        torch.manual_seed(seed)
        fresh = replay(construct(loaded.name, loaded.arguments), loaded.structure, loaded.module.state_dict(), name)
        network = replace(loaded, module=fresh, source={}, stages=())
    else:
        network = _build_weightless(name, arguments, num_classes, size)
    network.source.update(weights="untrained", seed=str(seed))
    network.module.train()
    return network


def build_outline(name: str, *, num_classes: int | None = None, input_size: int | Size | None = None) -> Network:
    """Build a network on the meta device: names, shapes and what it takes, without weights or memory for them.

    The arguments are those of :func:`build_network`; ``name`` is no checkpoint.
    """
    name, arguments = _checked(name, num_classes, size := _pair(input_size))
    with torch.device("meta"):
        return _build_weightless(name, arguments, num_classes, size)


def _checked(name: str, num_classes: int | None, size: Size | None) -> tuple[str, dict[str, Any]]:
    name, arguments = split_arguments(name)
    check_name(name)
    if num_classes is not None:
        check_argument(name, "num_classes", num_classes)
    if size is not None:
        check_argument(name, "input_size", size)
    return name, arguments


def _pair(size: int | Size | None) -> Size | None:
    return (size, size) if isinstance(size, int) else size


def _holds_manifest(weights: Path, name: str) -> bool:
    if weights.suffix != ".safetensors":
        return False
    manifest = read_manifest(weights)
    if manifest is not None and manifest.architecture.partition(".")[0] != name.partition(".")[0]:
        raise UsageError(f"'{weights}' holds a {manifest.architecture}, not a {name}; leave the name out.")
    return manifest is not None


def _build_weightless(name: str, arguments: dict[str, Any], num_classes: int | None, size: Size | None) -> Network:
    if num_classes is not None:
        arguments = {**arguments, "num_classes": num_classes}
    if size is not None:
        arguments = {**arguments, **size_argument(name, size)}
    if is_own(name):
        network = _build_own(name, arguments)
    elif name.startswith(TORCHVISION):
        network = build_torchvision(name, None, None, arguments)
    else:
        network = build_timm(name, None, arguments)
    return network if size is None else replace(network, input=sized(network.input, size))


def _build_weighted(name: str, arguments: dict[str, Any], weights: Path | None) -> Network:
    if weights is None:
        if is_own(name):
            raise no_weights(name, "nobody publishes any; train it with edgecv train", None)
        return build_torchvision(name, None, None) if name.startswith(TORCHVISION) else build_timm(name, None)
    state = read_state_dict(weights)
    if is_own(name):
        network = _build_own(name, {**_head_length(name, arguments, state), **arguments})
    elif name.startswith(TORCHVISION):
        network = build_torchvision(name, state, weights)
    else:
        network = build_timm(name, state)
    load_into(network.module, state, str(weights))
    network.source.update(describe_file(weights, "file"))
    return network


def _build_own(name: str, arguments: Mapping[str, Any]) -> Network:
    arguments = {"num_classes": NETWORKS[name].classes, "input_size": NETWORKS[name].input_size, **arguments}
    module = construct(name, arguments)
    return Network(module, name, input_spec(preprocessing(name, arguments)), (), (), {}, 0, arguments)


def _head_length(name: str, arguments: dict[str, Any], state: StateDict) -> dict[str, int]:
    weight = state.get(f"{head_names(name, arguments)[-1]}.weight")
    return {} if weight is None or weight.ndim < 2 else {"num_classes": check_class_count(weight.shape[0])}
