"""Groups of layers between which the order of the channels is free."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgecv.graph.tied import TiedValues
from edgecv.graph.values import constant_array, int_attribute
from edgecv.quantize.int8_nodes import weight_axis
from edgecv.quantize.pair_sums import adds_in_pairs

_CHANNELWISE = frozenset(
    {"Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Elu", "Gelu", "Mul", "Add", "Sub"}
    | {"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "Identity", "Cast"}
)
"""Operators that answer for each channel by itself, the same for all."""

_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})


@dataclass(slots=True)
class ChannelGroup:
    """Layers at the channels of one set of tied values: those that write them, read them, or do both (depthwise)."""

    writers: list[ir.Node]
    readers: list[ir.Node]
    both: list[ir.Node]


def free_groups(graph: ir.Graph) -> list[ChannelGroup]:
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
    groups: defaultdict[ir.Value, ChannelGroup] = defaultdict(lambda: ChannelGroup([], [], []))
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


def weight_of(node: ir.Node) -> np.ndarray:
    """Return the constant weight of a layer of a group."""
    weight = constant_array(node.inputs[1])
    assert weight is not None  # by _is_layer
    return weight


def _data(node: ir.Node) -> ir.Value:
    assert node.inputs[0] is not None  # every operator here has one
    return node.inputs[0]


def _computed(node: ir.Node) -> Iterator[ir.Value]:
    return (v for v in node.inputs if v is not None and constant_array(v) is None)
