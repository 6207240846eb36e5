"""Channels put in an order in which few neighbouring weights are large together (see :mod:`edgecv.quantize.pair_sums`).

The order of the channels between two convolutions is free: write them in another and read them in the same, and the
network answers as before. In MobileNetV2 and EfficientNet-Lite0 it takes nearly all pairs at risk out of the layers
that read an expanded tensor (thousands of them), and a quarter to a half where a residual stream ties the order of
several layers.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array
from edgecv.quantize.free_channels import ChannelGroup, free_groups, weight_of
from edgecv.quantize.int8_nodes import weight_axis
from edgecv.quantize.pair_sums import kernel_rows, pair_limit
from edgecv.quantize.weights import WEIGHT_LIMIT, least_error_scales

_MOST_ROWS = 1024
"""Rows of weights of one layer that are looked at: enough to tell which channels are large together."""

_ROUNDS = 100
"""Rounds of exchanging partners; each takes what gains most, and the search ends when nothing gains."""


def order_channels(model: ir.Model) -> int:
    """Reorder the channels of every group where that takes pairs at risk away, in place; return how many groups.

    A group is left alone when it touches the network's input or output, or anything but layers with constant weights
    and operators that answer for each channel by itself.
    """
    changed = 0
    for group in free_groups(model.graph):
        channels = {weight_of(n).shape[weight_axis(n)] for n in (*group.writers, *group.both)}
        channels |= {weight_of(n).shape[1 - weight_axis(n)] for n in group.readers}
        if len(channels) != 1 or (count := channels.pop()) % 2 or count < 4:
            continue
        cost = _pair_costs(group.readers, count)
        order = _match(cost)
        if _total(cost, order) < _total(cost, np.arange(count)):
            _reorder(model.graph, group, order)
            changed += 1
    return changed


def _pair_costs(readers: Sequence[ir.Node], count: int) -> np.ndarray:
    """Return how much is lost when two channels are neighbours, float32 (channels, channels), symmetric.

    For each pair it is the squared excess over the limit, as a share of the layer's squared weights.
    """
    cost = np.zeros((count, count), np.float32)
    limit = pair_limit()
    rng = np.random.default_rng(0)
    for node in readers:
        rows = kernel_rows(weight_of(node), weight_axis(node)).astype(np.float32)
        positions = rows.shape[1] // count
        if (most := max(1, _MOST_ROWS // positions)) < len(rows):
            rows = rows[np.sort(rng.choice(len(rows), most, replace=False))]
        scale = least_error_scales(rows)
        scale = np.where(scale > 0, scale, np.float32(1))
        codes = np.clip(np.rint(rows / scale[:, None]), -WEIGHT_LIMIT, WEIGHT_LIMIT).reshape(-1, count)
        scales = np.repeat(scale, positions)
        power = max(float(np.square(rows, dtype=np.float64).sum()), float(np.finfo(np.float32).tiny))
        for sign in (1, -1):
            cost += _excess(sign * codes * scales[:, None], limit * scales) / np.float32(power)
    np.fill_diagonal(cost, 0)
    return cost


def _excess(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the sum over rows of the squared excess of every two columns over the row's limit.

    Counted from the side of each value over half its limit, so that two such values count twice.
    """
    found = np.zeros((values.shape[1], values.shape[1]), np.float32)
    large = values > limits[:, None] / 2
    for channel in np.flatnonzero(large.any(axis=0)):
        rows = np.flatnonzero(large[:, channel])
        over = values[rows]
        over += (values[rows, channel] - limits[rows])[:, None]
        np.maximum(over, 0, out=over)
        found[channel] = np.einsum("ij,ij->j", over, over)
    return found + found.T


def _match(cost: np.ndarray) -> np.ndarray:
    """Return an order of the channels whose neighbours (2j, 2j + 1) cost little together.

    A greedy matching, costly channels first, then exchanges of partners between two pairs while any gains.
    """
    heavy = cost.sum(axis=1)
    free = np.ones(len(cost), bool)
    pairs = []
    for channel in np.argsort(-heavy, kind="stable"):
        if not free[channel]:
            continue
        free[channel] = False
        others = np.flatnonzero(free)
        partner = others[np.lexsort((-heavy[others], cost[channel, others]))[0]]
        free[partner] = False
        pairs.append((channel, partner))
    matched = np.array(pairs)
    for _ in range(_ROUNDS):
        if not _exchange(matched, cost):
            break
    return matched.reshape(-1)


def _exchange(pairs: np.ndarray, cost: np.ndarray) -> bool:
    """Exchange partners between pairs where it gains, best first, each pair at most once, in place."""
    first, second = pairs[:, 0].copy(), pairs[:, 1].copy()
    now = cost[first, second]
    crossed = cost[np.ix_(first, second)]
    both = now[:, None] + now[None, :]
    straight = both - cost[np.ix_(first, first)] - cost[np.ix_(second, second)]
    across = both - crossed - crossed.T
    gain = np.triu(np.maximum(straight, across), 1)
    ranked = np.flatnonzero(gain > 1e-6 * max(float(now.sum()), float(np.finfo(np.float32).tiny)))
    ranked = ranked[np.argsort(-gain.reshape(-1)[ranked], kind="stable")]
    used = np.zeros(len(pairs), bool)
    for i, j in zip(*np.unravel_index(ranked, gain.shape), strict=True):
        if used[i] or used[j]:
            continue
        used[i] = used[j] = True
        if straight[i, j] >= across[i, j]:
            pairs[i], pairs[j] = (first[i], first[j]), (second[i], second[j])
        else:
            pairs[i], pairs[j] = (first[i], second[j]), (first[j], second[i])
    return bool(used.any())


def _total(cost: np.ndarray, order: np.ndarray) -> float:
    return float(cost[order[::2], order[1::2]].sum())


def _reorder(graph: ir.Graph, group: ChannelGroup, order: np.ndarray) -> None:
    for node in (*group.writers, *group.both):
        _take(graph, node, 1, order, weight_axis(node))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = constant_array(node.inputs[2])
            _take(graph, node, 2, order, axis=0 if bias is None else bias.ndim - 1)
    for node in group.readers:
        _take(graph, node, 1, order, 1 - weight_axis(node))


def _take(graph: ir.Graph, node: ir.Node, index: int, order: np.ndarray, axis: int) -> None:
    """Reorder a constant input; it keeps its name unless others read it too."""
    value = node.inputs[index]
    array = constant_array(value)
    assert value is not None  # by _is_layer
    assert array is not None
    taken = np.ascontiguousarray(np.take(array, order, axis=axis))
    if len(list(value.uses())) == 1 and value.is_initializer():
        value.const_value = ir.tensor(taken, name=value.name)
        return
    node.replace_input_with(index, add_initializer(graph, f"{value.name}_ordered", taken))
