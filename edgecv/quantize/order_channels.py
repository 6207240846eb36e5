"""Channels put in an order in which few neighbouring weights are large together (see :mod:`edgecv.quantize.pair_sums`).

The order of the channels between two convolutions is free: write them in another and read them in the same, and the
network answers as before. In MobileNetV2 and EfficientNet-Lite0 it takes nearly all pairs at risk out of the layers
that read an expanded tensor (thousands of them), and a quarter to a half where a residual stream ties the order of
several layers.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecv.graph.tied import TiedValues
from edgecv.graph.values import add_initializer, constant_array, int_attribute
from edgecv.quantize.pair_sums import adds_in_pairs, kernel_rows, pair_limit
from edgecv.quantize.placement import weight_axis
from edgecv.quantize.weights import WEIGHT_LIMIT, least_error_scales

_CHANNELWISE = frozenset(
    {"Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Elu", "Gelu", "Mul", "Add", "Sub"}
    | {"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "Identity", "Cast"}
)
"""Operators that answer for each channel by itself, the same for all."""

_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})

_MOST_ROWS = 1024
"""Rows of weights of one layer that are looked at: enough to tell which channels are large together."""

_ROUNDS = 100
"""Rounds of exchanging partners; each takes what gains most, and the search ends when nothing gains."""


@dataclass(slots=True)
class _Group:
    """Layers at the channels of one set of tied values: those that write them, read them, or do both (depthwise)."""

    writers: list[ir.Node]
    readers: list[ir.Node]
    both: list[ir.Node]


def order_channels(model: ir.Model) -> int:
    """Reorder the channels of every group where that takes pairs at risk away, in place; return how many groups.

    A group is left alone when it touches the network's input or output, or anything but layers with constant weights
    and operators that answer for each channel by itself.
    """
    changed = 0
    for group in _groups(model.graph):
        channels = {_weight(n).shape[weight_axis(n)] for n in (*group.writers, *group.both)}
        channels |= {_weight(n).shape[1 - weight_axis(n)] for n in group.readers}
        if len(channels) != 1 or (count := channels.pop()) % 2 or count < 4:
            continue
        cost = _pair_costs(group.readers, count)
        order = _match(cost)
        if _total(cost, order) < _total(cost, np.arange(count)):
            _reorder(model.graph, group, order)
            changed += 1
    return changed


def _groups(graph: ir.Graph) -> list[_Group]:
    """Return the groups whose order is free and read by a layer that adds in pairs, in the order of the graph."""
    tied, blocked = TiedValues(), set[ir.Value](graph.outputs) | set(graph.inputs)
    layers: list[ir.Node] = []
    for node in graph:
        if _is_layer(node):
            layers.append(node)
            if _is_depthwise(node):
                tied.join(_data(node), node.outputs[0])
        elif _keeps_channels(node):
            for value in _computed(node):
                tied.join(value, node.outputs[0])
        else:
            blocked.update([*_computed(node), *node.outputs])
    inside = set(graph)
    for node in graph.all_nodes():
        if node not in inside:  # a subgraph may read any value around it
            blocked.update(_computed(node))
    closed = {tied.root(v) for v in blocked}
    groups: defaultdict[ir.Value, _Group] = defaultdict(lambda: _Group([], [], []))
    for node in layers:
        if _is_depthwise(node):
            groups[tied.root(_data(node))].both.append(node)
        else:
            groups[tied.root(node.outputs[0])].writers.append(node)
            groups[tied.root(_data(node))].readers.append(node)
    return [g for root, g in groups.items() if root not in closed and g.writers and g.readers]


def _is_layer(node: ir.Node) -> bool:
    """Tell whether a Conv or Gemm has constant weights and bias, and one group or as many as channels."""
    if node.op_type not in ("Conv", "Gemm") or node.domain:
        return False
    weight = constant_array(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant_array(bias)
    if weight is None or weight.dtype != np.float32 or constant_array(node.inputs[0]) is not None:
        return False
    if bias is not None and (array is None or array.size != weight.shape[weight_axis(node)]):
        return False
    if node.op_type == "Gemm":
        return not int_attribute(node, "transA", 0)
    return int_attribute(node, "group", 1) == 1 or _is_depthwise(node)


def _is_depthwise(node: ir.Node) -> bool:
    weight = constant_array(node.inputs[1])
    return (
        node.op_type == "Conv"
        and weight is not None
        and not adds_in_pairs(weight.shape, int_attribute(node, "group", 1))
    )


def _keeps_channels(node: ir.Node) -> bool:
    """Tell whether every tensor of ``node`` has the same channels in the same order, in dimension 1."""
    if node.domain or len(node.outputs) != 1:
        return False
    if node.op_type in _CHANNELWISE:
        return all(a is None or a.size == 1 for a in map(constant_array, node.inputs))
    if node.op_type not in _FLATTENING:
        return False
    before, after = _data(node), node.outputs[0]
    producer = before.producer()
    if before.shape is None or after.shape is None or len(after.shape) != 2:
        return False
    pooled = producer is not None and producer.op_type in ("GlobalAveragePool", "GlobalMaxPool")
    return before.shape[1] == after.shape[1] and (pooled or all(d == 1 for d in before.shape[2:]))


def _pair_costs(readers: Sequence[ir.Node], count: int) -> np.ndarray:
    """Return how much is lost when two channels are neighbours, float32 (channels, channels), symmetric.

    For each pair it is the squared excess over the limit, as a share of the layer's squared weights.
    """
    cost = np.zeros((count, count), np.float32)
    limit = pair_limit()
    rng = np.random.default_rng(0)
    for node in readers:
        rows = kernel_rows(_weight(node), weight_axis(node)).astype(np.float32)
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


def _reorder(graph: ir.Graph, group: _Group, order: np.ndarray) -> None:
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


def _weight(node: ir.Node) -> np.ndarray:
    weight = constant_array(node.inputs[1])
    assert weight is not None  # by _is_layer
    return weight


def _data(node: ir.Node) -> ir.Value:
    assert node.inputs[0] is not None  # every operator here has one
    return node.inputs[0]


def _computed(node: ir.Node) -> Iterator[ir.Value]:
    return (v for v in node.inputs if v is not None and constant_array(v) is None)
