"""Another number of classes, or another input size, on a network that has its weights already."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.construct import construct, size_argument
from edgecv.nn.network import Network

WHOLE_BELOW_PX = 96
"""Images this small are cut out already (CIFAR, digits): resized as they are, nothing is cropped off."""


def adapt(network: Network, num_classes: int | None, size: tuple[int, int] | None) -> Network:
    """Return ``network`` for ``num_classes`` and ``size``; what fits already is left alone.

    A head of another length is replaced by one with fresh weights; the labels, which were the old head's, go.

    Raises:
        UsageError: The network has no head that follows the number of classes, or cannot take the size.
    """
    if size is not None and size != network.input.input_size[1:]:
        network = _resize(network, size)
    if num_classes is not None and num_classes != network.arguments.get("num_classes"):
        network = _replace_heads(network, num_classes)
    return network


def sized(spec: InputSpec, size: tuple[int, int]) -> InputSpec:
    """Return ``spec`` for another size; below :data:`WHOLE_BELOW_PX` the whole image is used."""
    share = 1.0 if max(size) < WHOLE_BELOW_PX else spec.crop_pct
    return replace(spec, input_size=(spec.input_size[0], *size), crop_pct=share)


def outline(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the module without memory for its weights, for its names and shapes."""
    with torch.device("meta"):
        return construct(name, arguments)


def head_names(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the layers of a network whose length is the number of classes, auxiliary ones included."""
    one, other = (outline(name, {**arguments, "num_classes": count}) for count in (11, 13))
    shapes = {k: v.shape for k, v in one.state_dict().items()}
    changed = [k for k, v in other.state_dict().items() if shapes.get(k) != v.shape]
    return list(dict.fromkeys(k.rpartition(".")[0] for k in changed))


def _replace_heads(network: Network, num_classes: int) -> Network:
    heads = head_names(network.name, network.arguments)
    found = [(head, network.module.get_submodule(head)) for head in heads]
    if not found or not all(isinstance(layer, nn.Linear | nn.Conv2d) for _, layer in found):
        raise UsageError(
            f"'{network.name}' has no classifier that {num_classes} classes could be put on; take another network."
        )
    for name, layer in found:
        network.module.set_submodule(name, _like(layer, num_classes))
    if hasattr(network.module, "num_classes"):
        setattr(network.module, "num_classes", num_classes)  # noqa: B010 - nn.Module's own attributes are tensors
    return replace(network, labels=(), label_ids=(), arguments={**network.arguments, "num_classes": num_classes})


def _like(layer: nn.Module, count: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, count, bias=layer.bias is not None)
    assert isinstance(layer, nn.Conv2d)
    return nn.Conv2d(layer.in_channels, count, layer.kernel_size, bias=layer.bias is not None)  # type: ignore[arg-type]


def _resize(network: Network, size: tuple[int, int]) -> Network:
    """Record the new size; a network whose weights depend on it must know how to change them, or is refused."""
    argument = size_argument(network.name, size)
    if argument:
        arguments = {**network.arguments, **argument}
        before, after = outline(network.name, network.arguments), outline(network.name, arguments)
        shapes = {k: v.shape for k, v in before.state_dict().items()}
        resample: Any = getattr(network.module, "set_input_size", None)
        if resample is not None:  # timm's transformers resample their position embeddings
            resample(img_size=size)
        elif shapes != {k: v.shape for k, v in after.state_dict().items()}:
            height, width = network.input.input_size[1:]
            raise UsageError(
                f"the weights of '{network.name}' are for {height}x{width} pixels and cannot be used at "
                f"{size[0]}x{size[1]}; leave out --input-size or train it anew."
            )
        network = replace(network, arguments=arguments)
    return replace(network, input=sized(network.input, size))
