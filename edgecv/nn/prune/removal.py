"""Removing units of channel groups from a network, for good; and the same as a mask, to check the first against."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgecv.nn.prune.groups import ChannelGroup
from edgecv.nn.prune.plan import set_tensor

Choice = Mapping[int, Sequence[int]]
"""Index of a group -> units of it that go."""

_Places = dict[tuple[str, str, int], set[int]]


def remove_units(module: nn.Module, groups: Sequence[ChannelGroup], choice: Choice) -> None:
    """Cut the chosen units out of every module, in place.

    All indices are of the network as it was traced, whatever several groups take from one module (behind a
    concatenation).
    """
    parts = dict(module.named_modules())
    for (name, side, axis), gone in sorted(_places(groups, choice).items()):
        if side == "parameter":
            owner, _, key = name.rpartition(".")
            _cut_parameter(parts[owner], key, axis, gone)
        else:
            _cut_module(parts[name], side, gone)
    for index, units in choice.items():
        for name, attributes in groups[index].attributes.items():
            for attribute, per_unit in attributes.items():
                setattr(parts[name], attribute, getattr(parts[name], attribute) - per_unit * len(units))
    _follow_classifier(module)


def mask_units(module: nn.Module, groups: Sequence[ChannelGroup], choice: Choice) -> None:
    """Set to zero, in place, every weight that reads the chosen units: what a right removal answers the same as."""
    parts = dict(module.named_modules())
    with torch.no_grad():
        for (name, side, _), gone in _places(groups, choice).items():
            if side != "in":
                continue
            layer, indices = parts[name], sorted(gone)
            weight = layer.weight
            assert isinstance(weight, Tensor)
            if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1:
                block = layer.in_channels // layer.groups
                rows = layer.out_channels // layer.groups
                for i in indices:
                    group, inner = divmod(i, block)
                    weight[group * rows : (group + 1) * rows, inner] = 0
            else:
                weight[:, indices] = 0


def _places(groups: Sequence[ChannelGroup], choice: Choice) -> _Places:
    places: _Places = defaultdict(set)
    for index, units in choice.items():
        for edit in groups[index].edits:
            for unit in units:
                places[edit.name, edit.side, edit.axis].update(edit.indices[unit])
    return {place: gone for place, gone in places.items() if gone}


def _cut_module(layer: nn.Module, side: str, gone: set[int]) -> None:
    cut = _conv if isinstance(layer, nn.modules.conv._ConvNd) else _linear if isinstance(layer, nn.Linear) else _norm
    cut(layer, side, gone)


def _conv(layer: nn.Module, side: str, gone: set[int]) -> None:
    assert isinstance(layer, nn.modules.conv._ConvNd)
    first, second = (0, 1) if not layer.transposed else (1, 0)
    if side in ("out", "both"):
        width = layer.out_channels
        keep = _kept(width, gone)
        _select(layer, "weight", first, keep)
        _select_others(layer, width, keep)
        layer.out_channels = len(keep)
    if side == "both":  # depthwise: one input channel to each output channel
        layer.in_channels = layer.groups = layer.out_channels
    elif side == "in":
        block = layer.in_channels // layer.groups
        _select(layer, "weight", second, _kept(block, {i for i in gone if i < block}))
        layer.in_channels -= len(gone)


def _linear(layer: nn.Module, side: str, gone: set[int]) -> None:
    assert isinstance(layer, nn.Linear)
    if side == "in":
        keep = _kept(layer.in_features, gone)
        _select(layer, "weight", 1, keep)
        layer.in_features = len(keep)
        return
    width = layer.out_features
    keep = _kept(width, gone)
    _select(layer, "weight", 0, keep)
    _select_others(layer, width, keep)
    layer.out_features = len(keep)


def _norm(layer: nn.Module, side: str, gone: set[int]) -> None:
    attribute = next(
        a for a in ("num_features", "normalized_shape", "num_channels", "num_parameters") if a in vars(layer)
    )
    value = vars(layer)[attribute]
    width = value[-1] if isinstance(value, tuple) else value
    if attribute == "num_parameters" and width == 1:
        return
    keep = _kept(width, gone)
    _select_others(layer, width, keep)
    setattr(layer, attribute, (*value[:-1], len(keep)) if isinstance(value, tuple) else len(keep))


def _cut_parameter(owner: nn.Module, key: str, axis: int, gone: set[int]) -> None:
    parameter = owner._parameters[key]
    assert parameter is not None
    width = parameter.shape[axis]
    keep = _kept(width, gone)
    _select(owner, key, axis, keep)
    shape = vars(owner).get("normalized_shape")
    if isinstance(shape, tuple) and shape and shape[-1] == width:  # a norm torch-pruning does not know: timm's RmsNorm
        vars(owner)["normalized_shape"] = (*shape[:-1], len(keep))


def _select_others(layer: nn.Module, width: int, keep: list[int]) -> None:
    """Cut every further tensor of a layer that has an entry a channel: bias, statistics, gains of scaled layers."""
    for key, tensor in {**layer._parameters, **layer._buffers}.items():
        if tensor is None or tensor.ndim == 0 or tensor.shape[0] != width:
            continue
        if key != "weight" or tensor.ndim == 1:
            _select(layer, key, 0, keep)


def _select(owner: nn.Module, key: str, axis: int, keep: list[int]) -> None:
    tensor = owner._parameters.get(key)
    found = owner._buffers[key] if tensor is None else tensor
    assert found is not None
    indices = torch.tensor(keep, dtype=torch.long, device=found.device)
    set_tensor(owner, key, found.detach().index_select(axis, indices).contiguous())


def _kept(width: int, gone: set[int]) -> list[int]:
    keep = [i for i in range(width) if i not in gone]
    if not keep or not gone <= set(range(width)):
        raise ValueError(f"{len(gone)} of {width} channels cannot go")
    return keep


def _follow_classifier(module: nn.Module) -> None:
    """Tell timm's network how wide its features are now: what a new classifier is built from."""
    find: Callable[[], nn.Module] | None = getattr(module, "get_classifier", None)
    head = find() if find is not None else None
    if isinstance(head, nn.Linear):
        for attribute in ("head_hidden_size", "num_features"):
            if isinstance(vars(module).get(attribute), int) and vars(module)[attribute] > head.in_features:
                setattr(module, attribute, head.in_features)
