"""Which groups of nodes are worth trying in float: predicted gain against the work they would make there."""

from collections.abc import Collection, Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.graph.values import constant_array
from edgecv.quantize.draft import Draft
from edgecv.quantize.int8_nodes import PASSING_OPS, data_inputs, output_tensor, weight_axis
from edgecv.quantize.placement import Placement
from edgecv.quantize.restrict import without
from edgecv.quantize.sensitivity import Sensitivity

_PRODUCTS_PER_ELEMENT = 64
"""Multiplications that take as much longer in float as one element takes to be converted: about what profiles of
mobile networks show on x86 with VNNI. It orders what is measured first and decides nothing."""


Sizes = Mapping[str, int]
"""Tensor to the number of its elements for one image."""


def tensor_sizes(model: ir.Model) -> Sizes:
    """Return the size of every computed tensor; a dimension that cannot be inferred counts once."""
    shaped = model.clone()
    common.ShapeInferencePass()(shaped)
    return {str(value.name): _elements(value) for node in shaped.graph for value in node.outputs} | {
        str(value.name): _elements(value) for value in shaped.graph.inputs
    }


def promising_moves(
    draft: Draft, whole: Placement, parts: Sensitivity, sizes: Sizes, smallest_gain: float, *, single: bool
) -> list[frozenset[str]]:
    """Return groups of int8 nodes to keep float: by turns the most predicted gain for its work, and the most gain.

    What work costs differs by a factor of several between layers, so the first alone would never try some of the best.

    Args:
        draft: What some layers may be missing from already.
        whole: The placement with every layer in int8.
        parts: Errors of single parts, which are added up.
        sizes: Of the network's tensors.
        smallest_gain: Groups with less predicted gain than this are left out, unless ``single``.
        single: Only layers by themselves; otherwise also all that write or read one tensor, together.
    """
    moves = {frozenset([layer]) for layer in draft.placement.layers}
    if not single:
        moves |= set(around_tensors(draft))
    before, work_before = parts.predict(draft.placement), float_work(draft.model, whole, draft.placement, sizes)
    gains, worth = {}, {}
    for nodes in moves:
        placed = without(draft, nodes)
        gains[nodes] = before - parts.predict(placed)
        work = float_work(draft.model, whole, placed, sizes) - work_before
        worth[nodes] = gains[nodes] / max(work, 1)
    by_worth = sorted(moves, key=lambda nodes: (-worth[nodes], sorted(nodes)))
    by_gain = sorted(moves, key=lambda nodes: (-gains[nodes], sorted(nodes)))
    order = dict.fromkeys(nodes for pair in zip(by_worth, by_gain, strict=True) for nodes in pair)
    return [nodes for nodes in order if single or gains[nodes] >= smallest_gain]


def around_tensors(draft: Draft) -> list[frozenset[str]]:
    """Return, for every quantized tensor, the int8 nodes that write or read it: together in float, they free it."""
    touched: dict[str, set[str]] = {}
    int8 = {*draft.placement.layers, *draft.placement.others}
    for node in draft.model.graph:
        if node.name in int8:
            for value in _tensors(node):
                name = str(value.name)
                touched.setdefault(draft.placement.shared.get(name, name), set()).add(str(node.name))
    return [frozenset(nodes) for tensor, nodes in touched.items() if tensor in draft.ranges]


def float_work(model: ir.Model, whole: Placement, placed: Placement, sizes: Sizes) -> float:
    """Return the work that what is in ``whole`` but not in ``placed`` makes in float, in elements converted."""
    ours = {*whole.layers, *whole.others} - {*placed.layers, *placed.others}
    quantized = set(placed.tensors)
    total = 0.0
    converted: set[str] = set()
    for node in model.graph:
        if node.name not in ours:
            continue
        converted.update(str(v.name) for v in _tensors(node) if v.name in quantized)
        weight = constant_array(node.inputs[1]) if node.name in whole.layers else None
        if weight is not None:
            positions = sizes[str(node.outputs[0].name)] / weight.shape[weight_axis(node)]
            total += positions * weight.size / _PRODUCTS_PER_ELEMENT
    return total + sum(sizes[name] for name in converted)


def _tensors(node: ir.Node) -> Collection[ir.Value]:
    written = list(node.outputs) if node.op_type in PASSING_OPS else [output_tensor(node)]
    return [*data_inputs(node), *written]


def _elements(value: ir.Value) -> int:
    count = 1
    for dimension in list(value.shape or ())[1:]:
        count *= dimension if isinstance(dimension, int) else 1
    return count
