"""Channels that must go together: through residuals, depthwise and grouped convolutions, concatenations, and heads.

The dependency graph is torch-pruning's (Fang et al., DepGraph, CVPR 2023). It is read once into plain indices, so that
any number of widths can be tried on copies of the network.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from edgecv.errors import UsageError
from edgecv.nn.prune.attention import find_heads

MAX_CHANNELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Edit:
    """What one unit of a group is in one module.

    Attributes:
        name: The module, or the parameter of a module that torch-pruning does not know.
        side: ``out``, ``in``, ``both`` (norms, depthwise), or ``parameter``.
        axis: Of a ``parameter``; else 0.
        indices: Channels of each unit, by unit.
    """

    name: str
    side: str
    axis: int
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Units of which any number can go, all modules that read or write them following suit.

    Attributes:
        name: The layer that writes the channels, or the attention whose heads they are.
        units: How many there are; a unit is a channel, one channel of every group of a grouped layer, or a head.
        width: Channels of the naming layer; a multiple of ``units``.
        edits: Every module touched.
        depthwise: Whether a depthwise convolution is among them.
        attributes: Integers to lower with every unit: module -> attribute -> by how much.
        items: torch-pruning's group, for its criteria; None for heads.
    """

    name: str
    units: int
    width: int
    edits: tuple[Edit, ...]
    depthwise: bool = False
    attributes: dict[str, dict[str, int]] = field(default_factory=dict)
    items: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A copy of the network with gradients enabled, and its groups."""

    module: nn.Module
    groups: tuple[ChannelGroup, ...]


def trace_groups(module: nn.Module, input_size: Sequence[int]) -> Traced:
    """Find every group of channels and heads of a network.

    Args:
        module: Left as it is.
        input_size: ``(3, height, width)``.

    Raises:
        UsageError: The network cannot be traced.
    """
    twin = copy.deepcopy(module).cpu().eval().requires_grad_(True)
    heads = find_heads(twin)
    example = torch.zeros((1, *input_size)).uniform_(generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(twin, example, verbose=False)
            ignored = [layer for attention in heads for layer in attention.ignored]
            found = [g for g in graph.get_all_groups(ignored_layers=ignored) if not _reaches_output(graph, g)]
    except Exception as e:  # the tracer asserts, indexes and recurses as it likes
        raise UsageError(
            f"the channels of this network cannot be traced ({type(e).__name__}: {' '.join(str(e).split())[:120]}); "
            "--unstructured prunes any network."
        ) from e
    groups = [g for g in (_read_group(graph, items) for items in found) if g is not None and g.units > 1]
    return Traced(twin, (*groups, *(_head_group(h) for h in heads if h.count > 1)))


def channel_groups(graph: Any, items: Any) -> int:
    """Return how many equal blocks the channels of a group come in: groups of a convolution or of a GroupNorm."""
    count = 1
    for dep, _ in items:
        layer = dep.target.module
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups < layer.out_channels:
            count = max(count, layer.groups)
        elif isinstance(layer, nn.GroupNorm):
            count = max(count, layer.num_groups)
    return count


def _reaches_output(graph: Any, items: Any) -> bool:
    """Whether the channels are what the network answers: nothing reads them."""
    return any(
        graph.is_out_channel_pruning_fn(dep.handler) and not dep.target.outputs and not _is_parameter(dep.target.module)
        for dep, _ in items
    )


def _read_group(graph: Any, items: Any) -> ChannelGroup | None:
    root = items[0].dep.target.module
    width = int(graph.get_out_channels(root))
    blocks = channel_groups(graph, items)
    if width % blocks or width > MAX_CHANNELS:
        return None
    units = width // blocks
    edits = []
    for item in items:
        edit = _read_edit(graph, item, units)
        if edit is not None:
            edits.append(edit)
    layers = (item.dep.target.module for item in items)
    depthwise = any(_is_depthwise(layer) for layer in layers)
    return ChannelGroup(graph._module2name[root], units, width, tuple(edits), depthwise, items=items)


def _read_edit(graph: Any, item: Any, units: int) -> Edit | None:
    node = item.dep.target
    layer = node.module
    if _is_parameter(layer):
        name, side, axis = graph._param_to_name[layer], "parameter", node.pruning_dim % layer.ndim
    elif not any(True for _ in layer.parameters(recurse=False)) and not hasattr(layer, "num_features"):
        return None  # torch-pruning's own nodes: element-wise, concatenation, reshape
    else:
        name, axis = graph._module2name[layer], 0
        both = {"both"} if isinstance(layer, _NORMS) or _is_depthwise(layer) else set[str]()
        side = "both" if both else ("out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in")
    by_unit: list[list[int]] = [[] for _ in range(units)]
    for index, origin in zip(item.idxs, item.root_idxs, strict=True):
        by_unit[(origin if origin is not None else index) % units].append(index)
    return Edit(name, side, axis, tuple(tuple(sorted(set(u))) for u in by_unit))


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


def _is_depthwise(layer: object) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels > 1


def _is_parameter(layer: object) -> bool:
    return isinstance(layer, Tensor)


def _head_group(heads: Any) -> ChannelGroup:
    edits = tuple(Edit(name, side, axis, indices) for name, side, axis, indices in heads.edits)
    return ChannelGroup(heads.name, heads.count, heads.count, edits, attributes={heads.name: heads.attributes})
