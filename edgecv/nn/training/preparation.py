"""Getting a network ready for training: initial weights, dropout rates, weights of a shallower relative."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.nn.construct import construct
from edgecv.nn.network import Network
from edgecv.nn.pixels import normalize
from edgecv.nn.structure import replay
from edgecv.nn.torchvision_networks import TORCHVISION
from edgecv.nn.training.freezing import classifiers
from edgecv.nn.training_data import TrainingData, evaluation_batches

_PIXELS_TO_LOOK_AT = 1 << 20
"""A thousand images of 32 px; what is made of them takes about 100 bytes a pixel."""


def with_dropout(network: Network, settings: TrainSettings) -> Network:
    """Return ``network`` rebuilt with the dropout and drop-path rates of ``settings``, its weights kept.

    Raises:
        UsageError: Its constructor takes no such rate.
    """
    if settings.dropout is None and settings.drop_path is None:
        return network
    dropout = "dropout" if network.name.startswith(TORCHVISION) else "drop_rate"
    rates = {dropout: settings.dropout, "drop_path_rate": settings.drop_path}
    arguments = {**network.arguments, **{k: v for k, v in rates.items() if v is not None}}
    state = network.module.state_dict()
    module = replay(construct(network.name, arguments), network.structure, state)
    module.load_state_dict(state)
    return replace(network, module=module, arguments=arguments)


def start_from_scratch(network: Network, data: TrainingData, settings: TrainSettings, seed: int) -> str:
    """Draw a fresh network's weights, and let it look at training images where it wants to; say what was done.

    A network with a method ``initialize_from_data`` is given normalised images, float32 ``(N, 3, H, W)``.
    """
    drawn = initialize_by_he(network.module, seed)
    how = f"{drawn} layers drawn by He's rule" if drawn else "drawn as its constructor does"
    if not hasattr(network.module, "initialize_from_data"):
        return how
    _, height, width = network.input.input_size
    some = data.train.limited(max(1, _PIXELS_TO_LOOK_AT // (height * width)))
    batches = evaluation_batches(some, network.input, workers=settings.workers)
    network.module.initialize_from_data(  # type: ignore[operator]
        torch.cat([normalize(batch.pixels, network.input) for batch in batches])
    )
    return f"{how}, the first from {len(some)} training images"


@torch.no_grad()
def initialize_by_he(module: nn.Module, seed: int) -> int:
    """Draw every convolution and hidden linear layer from N(0, 2 / fan-in), biases zero; return how many.

    A bias that the constructor set to one value, as that of a highway network's gates, was meant and stays.

    Transformers keep what their constructor drew (truncated normals of a fixed width, Dosovitskiy et al. 2020), as do
    classifiers, norms, and what a network has frozen (fixed filters).

    Source:
        He et al. 2015, Delving Deep into Rectifiers, equation 10.
    """
    if any(isinstance(m, nn.LayerNorm | nn.MultiheadAttention) for m in module.modules()):
        return 0
    heads = {id(m) for m in classifiers(module)}
    generator = torch.Generator().manual_seed(seed)
    count = 0
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear) or id(layer) in heads or not layer.weight.requires_grad:
            continue
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu", generator=generator)
        if layer.bias is not None and bool((layer.bias != layer.bias[0]).any()):
            layer.bias.zero_()
        count += 1
    return count


@torch.no_grad()
def copy_from_shallower(module: nn.Module, shallow: nn.Module) -> tuple[int, int]:
    """Copy the layers of a trained shallower network into a deeper one of its family.

    Layers are matched by stage, which is what lies between two poolings or strides, and by shape: the first of a stage
    go into the first of the same stage, those the shallower network lacks keep their initial weights, norms go with the
    layer before them. Linear layers are matched from the end. Simonyan and Zisserman
    2014, section 3.1: VGG's deeper configurations start from the first four convolutions and the last three linear
    layers of configuration A.

    Returns:
        How many layers were copied, of how many the deeper network has.

    Raises:
        UsageError: No layer fits.
    """
    ours, theirs = _stages(module), _stages(shallow)
    copied = 0
    for key, layers in ours.items():
        given = theirs.get(key, [])
        pairs = (
            zip(reversed(layers), reversed(given), strict=False)
            if key == "linear"
            else zip(layers, given, strict=False)
        )
        copied += sum(_copy(target, source) for target, source in pairs)
    if not copied:
        raise UsageError("no layer of the network given to start from fits this one; it must be of the same family.")
    return copied, sum(len(layers) for layers in ours.values())


def _stages(module: nn.Module) -> dict[object, list[tuple[nn.Module, nn.Module | None]]]:
    """Return the layers, each with the norm behind it: convolutions by stage and shape, linear layers together."""
    stage = 0
    stages: dict[object, list[tuple[nn.Module, nn.Module | None]]] = {}
    leaves = [m for m in module.modules() if not list(m.children())]
    for i, layer in enumerate(leaves):
        if isinstance(layer, nn.Linear):
            stages.setdefault("linear", []).append((layer, None))
        elif isinstance(layer, nn.Conv2d):
            behind = leaves[i + 1] if i + 1 < len(leaves) else None
            norm = behind if isinstance(behind, nn.modules.batchnorm._BatchNorm) else None
            stage += max(layer.stride) > 1
            stages.setdefault((stage, layer.weight.shape, layer.groups), []).append((layer, norm))
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            stage += 1
    return stages


def _copy(target: tuple[nn.Module, nn.Module | None], source: tuple[nn.Module, nn.Module | None]) -> bool:
    states: list[Mapping[str, Tensor]] = [part.state_dict() if part is not None else {} for part in source]
    for part, state in zip(target, states, strict=True):
        own = part.state_dict() if part is not None else {}
        if any(k not in own or own[k].shape != v.shape for k, v in state.items()):
            return False
    for part, state in zip(target, states, strict=True):
        if part is not None and state:
            part.load_state_dict(dict(state))
    return True
