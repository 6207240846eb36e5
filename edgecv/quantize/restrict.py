"""Keeping layers of a draft in float.

A layer that stays float gets its own bias back: the shift that makes up for rounded weights goes with these weights.
"""

from collections.abc import Collection
from dataclasses import replace

import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array
from edgecv.quantize.bias_correction import bias_slot
from edgecv.quantize.draft import Draft
from edgecv.quantize.placement import Placement, place_quantizers


def keep_float(draft: Draft, own: ir.Model, nodes: Collection[str], reason: str) -> Draft:
    """Return a draft in which ``nodes`` stay float; so do operators without weights that no int8 node needs any more.

    Args:
        draft: The whole quantization; not changed.
        own: The same float network with its own biases, before any correction.
        nodes: Names out of ``draft.placement.layers`` and ``draft.placement.others``.
        reason: Recorded for every such layer in ``Placement.kept_float``.
    """
    if not nodes:
        return draft
    placed = without(draft, nodes)
    before = draft.placement
    kept = dict(before.kept_float) | {n: reason for n in before.layers if n not in placed.layers}
    return replace(
        draft,
        model=_with_own_biases(draft.model, own, [n for n in before.layers if n in nodes]),
        placement=replace(placed, kept_float=kept),
        ranges={t: draft.ranges[before.shared.get(t, t)] for t in placed.tensors if t not in placed.shared},
        weights={n: draft.weights[n] for n in placed.layers},
    )


def without(draft: Draft, nodes: Collection[str]) -> Placement:
    """Return the placement of ``draft`` as it is when ``nodes`` stay float."""
    allowed = {*draft.placement.layers, *draft.placement.others} - set(nodes)
    return place_quantizers(draft.model, [str(n.name) for n in draft.model.graph if n.name not in allowed])


def _with_own_biases(model: ir.Model, own: ir.Model, layers: Collection[str]) -> ir.Model:
    """Return a copy of ``model`` in which ``layers`` have the biases they have in ``own``."""
    copy = model.clone()
    ours, theirs = ({str(n.name): n for n in m.graph} for m in (copy, own))
    for name in layers:
        here, there = bias_slot(ours[name]), bias_slot(theirs[name])
        if here is None:
            continue
        node, index = here
        original = None
        if there is not None and len(there[0].inputs) > there[1]:
            original = constant_array(there[0].inputs[there[1]])
        if original is not None:
            node.replace_input_with(index, add_initializer(copy.graph, f"{name}_own_bias", original))
        elif len(node.inputs) > index:
            node.resize_inputs(index)
    return copy
