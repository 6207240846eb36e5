"""Tensors that must share one factor per channel: what cross-layer equalization may scale together.

A convolution frees the channels it writes from those it reads. Everything between two convolutions that answers for
each channel by itself, and in proportion (Relu, MaxPool, the mean, a residual Add), ties its tensors into one group.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.graph.tied import TiedValues
from edgecv.graph.values import constant_array

_PROPORTIONAL = frozenset(
    {"Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
)
"""Operators with f(s · x) = s · f(x) for each channel and every s > 0."""

_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Tensors tied to the same factors, and the layers that put the factors in and take them out again.

    Attributes:
        channels: Number of channels, dimension 1 of every tensor.
        tensors: Names of the tensors, without those that only a Relu or Clip reads (they have no quantizer).
        producers: Conv and Gemm nodes that write into the group; their output channels are scaled.
        consumers: Conv and Gemm nodes that read from it; their input channels are scaled back.
        bounds: Output of every Clip(0, bound) inside the group, to its bound.
        only_depthwise: All consumers take one input channel for each output channel, so that scaling their weights
            is lost in their per-channel weight scales.
    """

    channels: int
    tensors: tuple[str, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    bounds: Mapping[str, float]
    only_depthwise: bool


def find_groups(model: ir.Model) -> list[ChannelGroup]:
    """Return every group that can be scaled, in the order of the graph.

    A group is left out when it touches the network's input or output, an operator that is not known to be proportional,
    a subgraph, a layer whose weights are computed, or weights that two nodes read.

    Args:
        model: A float model whose nodes have names; not changed.
    """
    shaped = model.clone()
    common.ShapeInferencePass()(shaped)  # a file need not say the shapes of its inner tensors
    graph = shaped.graph
    tied, blocked = TiedValues(), set[ir.Value](graph.outputs) | set(graph.inputs)
    producers: list[ir.Node] = []
    for node in graph:
        if is_scalable_layer(node):
            producers.append(node)
        elif not _tie(node, tied):
            blocked.update([*_computed(node), *node.outputs])
    inside = set(graph)
    for node in graph.all_nodes():
        if node not in inside:  # a subgraph may read any value around it
            blocked.update(_computed(node))
    closed = {tied.root(v) for v in blocked}
    members: defaultdict[ir.Value, list[ir.Value]] = defaultdict(list)
    for node in graph:
        for value in node.outputs:
            members[tied.root(value)].append(value)
    writers, readers = defaultdict[ir.Value, list[ir.Node]](list), defaultdict[ir.Value, list[ir.Node]](list)
    for node in producers:
        writers[tied.root(node.outputs[0])].append(node)
        readers[tied.root(node.inputs[0])].append(node)  # type: ignore[arg-type]
    return [
        _group(members[r], writers[r], readers[r]) for r in members if r not in closed and writers[r] and readers[r]
    ]


def is_scalable_layer(node: ir.Node) -> bool:
    """Tell whether ``node`` is a Conv or Gemm whose weights are its own constants, channels where they usually are."""
    if node.op_type not in ("Conv", "Gemm") or node.domain:
        return False
    weight, bias = constant_array(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or weight.dtype != np.float32 or constant_array(node.inputs[0]) is not None:
        return False
    if len(list(node.inputs[1].uses())) > 1:  # type: ignore[union-attr]
        return False
    transposed = node.attributes.get("transA")
    if node.op_type == "Gemm" and transposed is not None and transposed.as_int():
        return False
    channels = weight.shape[output_axis(node)]
    constant = constant_array(bias)
    return bias is None or (constant is not None and constant.size == channels)


def output_axis(node: ir.Node) -> int:
    """Return the dimension of the weight of a Conv or Gemm that counts output channels."""
    transposed = node.attributes.get("transB")
    return 0 if node.op_type == "Conv" or (transposed is not None and transposed.as_int()) else 1


def _tie(node: ir.Node, tied: TiedValues) -> bool:
    """Join the tensors of a node that passes factors on; False when it does not."""
    computed = list(_computed(node))
    if node.domain or len(node.outputs) != 1:
        return False
    output = node.outputs[0]
    one = len(computed) == 1
    passes = one and (
        node.op_type in _PROPORTIONAL
        or (node.op_type == "Clip" and clip_bound(node) is not None)
        or (node.op_type in _FLATTENING and _drops_ones(computed[0], output))
    )
    if not passes and not (node.op_type == "Add" and len(computed) == 2 and _same_channels(*computed)):
        return False
    for value in computed:
        tied.join(value, output)
    return True


def clip_bound(node: ir.Node) -> float | None:
    """Return c of a Clip(0, c), infinite where there is no upper bound; None for any other Clip."""
    low, high = (node.inputs[i] if len(node.inputs) > i else None for i in (1, 2))
    bottom, top = constant_array(low), constant_array(high)
    if bottom is None or float(bottom.reshape(-1)[0]) != 0 or (high is not None and top is None):
        return None
    bound = float("inf") if top is None else float(top.reshape(-1)[0])
    return bound if bound > 0 else None


def _drops_ones(before: ir.Value, after: ir.Value) -> bool:
    """Tell whether (N, C, 1, 1) becomes (N, C)."""
    producer = before.producer()
    if before.shape is None or after.shape is None or len(after.shape) != 2 or len(before.shape) < 3:
        return False
    pooled = producer is not None and producer.op_type in ("GlobalAveragePool", "GlobalMaxPool")
    return before.shape[1] == after.shape[1] and (pooled or all(d == 1 for d in before.shape[2:]))


def _same_channels(a: ir.Value, b: ir.Value) -> bool:
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape) or len(a.shape) < 2:
        return False
    return isinstance(a.shape[1], int) and a.shape[1] == b.shape[1]


def _group(tensors: list[ir.Value], producers: list[ir.Node], consumers: list[ir.Node]) -> ChannelGroup:
    clips = [n for v in tensors if (n := v.producer()) is not None and n.op_type == "Clip"]
    bounds = {str(n.outputs[0].name): b for n in clips if (b := clip_bound(n)) is not None and np.isfinite(b)}
    weight = constant_array(producers[0].inputs[1])
    assert weight is not None  # by is_scalable_layer
    return ChannelGroup(
        channels=weight.shape[output_axis(producers[0])],
        tensors=tuple(str(v.name) for v in tensors if not _only_activated(v)),
        producers=tuple(str(n.name) for n in producers),
        consumers=tuple(str(n.name) for n in consumers),
        bounds=bounds,
        only_depthwise=all(_is_depthwise(n) for n in consumers),
    )


def _only_activated(value: ir.Value) -> bool:
    readers = [u.node.op_type for u in value.uses()]
    return len(readers) == 1 and readers[0] in ("Relu", "Clip")


def _is_depthwise(node: ir.Node) -> bool:
    weight, groups = constant_array(node.inputs[1]), node.attributes.get("group")
    return node.op_type == "Conv" and weight is not None and weight.shape[1] == 1 and groups is not None


def _computed(node: ir.Node) -> Iterator[ir.Value]:
    return (v for v in node.inputs if v is not None and constant_array(v) is None)
