"""int8 weights of a whole network, rounded to the nearest codes; learned ones: ``edgecv.quantize.rounding``."""

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from edgecv.graph.values import constant_array, int_attribute
from edgecv.progress import Progress, no_progress
from edgecv.quantize.affine import Affine
from edgecv.quantize.draft import Draft
from edgecv.quantize.int8_nodes import weight_axis
from edgecv.quantize.pair_sums import adds_in_pairs, limit_channels
from edgecv.quantize.placement import Placement
from edgecv.quantize.weights import QuantizedWeight, quantize_weight


def quantize_weights(
    model: ir.Model,
    placement: Placement,
    affines: Mapping[str, Affine],
    *,
    portable: bool = True,
    progress: Progress = no_progress,
) -> dict[str, QuantizedWeight]:
    """Return the int8 weights of every layer of ``placement`` by node name; see :func:`quantize_static`."""
    nodes = {node.name: node for node in model.graph}
    weights = {}
    for done, name in enumerate(placement.layers, 1):
        node = nodes[name]
        weight = constant_array(node.inputs[1])
        bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        read = str(node.inputs[0].name)  # type: ignore[union-attr]
        scale = affines[placement.shared.get(read, read)].scale
        assert weight is not None  # by placement
        weights[name] = quantize_weight(weight, weight_axis(node), bias=bias, input_scale=float(scale))
        if portable and adds_in_pairs(weight.shape, int_attribute(node, "group", 1)):
            weights[name] = limit_channels(weight, weights[name])
        progress("weights", done, len(placement.layers))
    return weights


def limit_draft(draft: Draft) -> Draft:
    """Return the draft with every pair of weight codes inside its limit: what learned rounding took a step too far."""
    nodes = {node.name: node for node in draft.model.graph}
    weights = dict(draft.weights)
    for name, stored in draft.weights.items():
        weight = constant_array(nodes[name].inputs[1])
        assert weight is not None  # by placement
        if adds_in_pairs(weight.shape, int_attribute(nodes[name], "group", 1)):
            weights[name] = limit_channels(weight, stored, rescale=False)
    return replace(draft, weights=weights)
