"""What each part of a quantization costs in accuracy: every weight and every activation quantized alone.

Errors of single parts add up to nearly the error of the whole, so these figures also predict what keeping any
combination of layers in float would do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import constant_array
from edgecv.progress import Progress, no_progress
from edgecv.quantize.affine import Affine, round_through
from edgecv.quantize.bias_correction import bias_slot
from edgecv.quantize.draft import Draft, output_error
from edgecv.quantize.int8_nodes import fused_activation
from edgecv.quantize.placement import Placement
from edgecv.quantize.walk import Live, open_part, walk
from edgecv.quantize.weights import decode_weight

SENSITIVITY_IMAGES = 16
"""Calibration images that single parts are measured on."""

Arrays = list[np.ndarray]
"""A tensor over the images: one array for each part of them, as :mod:`edgecv.quantize.walk` cuts them."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Errors of the outputs (:func:`edgecv.quantize.draft.output_error`) when one part alone is quantized.

    Attributes:
        weights: Layer to the error of its stored weights and bias.
        tensors: Tensor with a scale of its own to the error of rounding it to its codes.
        alone: Layer to the error of its weights, input and output together.
        clipped: Tensor to the share of its values that its codes do not reach (0..1).
    """

    weights: Mapping[str, float]
    tensors: Mapping[str, float]
    alone: Mapping[str, float]
    clipped: Mapping[str, float]

    def predict(self, placement: Placement) -> float:
        """Return the error if single errors added up and just what ``placement`` names were quantized."""
        tensors = sum(self.tensors[placement.shared.get(t, t)] for t in placement.tensors if t in self.tensors)
        return tensors + sum(self.weights[layer] for layer in placement.layers)


def measure_sensitivity(
    draft: Draft, own: ir.Model, images: np.ndarray, *, progress: Progress = no_progress
) -> Sensitivity:
    """Walk once down the float network and quantize every weight and activation of ``draft`` by itself.

    About four runs of the rest of the network for each layer; memory is the widest cut through the graph.

    Args:
        draft: The quantization.
        own: The same float network with its own biases, before any correction; not changed.
        images: A few calibration images (:data:`SENSITIVITY_IMAGES`), as the graph takes them.
        progress: See :mod:`edgecv.progress`.
    """
    found = _Found(draft, {str(n.name): n for n in draft.model.graph})
    order = list(own.graph)
    reference: list[np.ndarray] = []
    for position, (node, live) in enumerate(walk(own, images)):
        if not position:
            first = {value: arrays for value, arrays in live.items() if value.producer() is None}
            run = _rest(own, order, first)
            reference = run(first)
            for value in first:
                found.quantize_tensor(value, first, partial(_error, reference, run))
        if found.concerns(node):
            run = _rest(own, order[position + 1 :], live)
            found.quantize_node(own, node, live, partial(_error, reference, run))
        progress("sensitivity", position + 1, len(order))
    return Sensitivity(found.weights, found.tensors, found.alone, found.clipped)


@dataclass(slots=True)
class _Found:
    """What the walk has gathered so far; ``pending`` holds a layer's outputs until its fused activation is reached."""

    draft: Draft
    corrected: Mapping[str, ir.Node]
    affines: Mapping[str, Affine] = field(init=False)
    weights: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    clipped: dict[str, float] = field(default_factory=dict)
    pending: dict[ir.Node, tuple[str, Arrays]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.affines = self.draft.affines

    def concerns(self, node: ir.Node) -> bool:
        quantized = any(o.name in self.affines for o in node.outputs)
        return quantized or node in self.pending or node.name in self.draft.weights

    def quantize_tensor(self, value: ir.Value, live: Live, error_of: Callable[[Live], float]) -> None:
        name = str(value.name)
        if name not in self.affines:
            return
        rounded, self.clipped[name] = _rounded(live[value], self.affines[name])
        self.tensors[name] = error_of({**live, value: rounded})

    def quantize_node(self, own: ir.Model, node: ir.Node, live: Live, error_of: Callable[[Live], float]) -> None:
        for value in node.outputs:
            self.quantize_tensor(value, live, error_of)
        if node in self.pending:
            layer, arrays = self.pending.pop(node)
            source = node.inputs[0]
            assert source is not None  # it is a Relu or Clip
            part = open_part(own, [node], node.outputs, {source: arrays})
            computed = [outputs[0] for outputs in part.run({source: arrays})]
            self._judge_alone(layer, node.outputs[0], computed, live, error_of)
        name = str(node.name)
        if name not in self.draft.weights:
            return
        output, source = node.outputs[0], node.inputs[0]
        assert source is not None  # a layer reads something, by placement
        self.weights[name] = error_of({**live, output: self._compute(own, node, live[source])})
        root = self.draft.placement.shared.get(str(source.name), str(source.name))
        computed = self._compute(own, node, _rounded(live[source], self.affines[root])[0])
        activation = fused_activation(node)
        if activation is None:
            self._judge_alone(name, output, computed, live, error_of)
        else:
            self.pending[activation] = (name, computed)

    def _judge_alone(
        self, layer: str, output: ir.Value, computed: Arrays, live: Live, error_of: Callable[[Live], float]
    ) -> None:
        affine = self.affines.get(str(output.name))
        rounded = computed if affine is None else _rounded(computed, affine)[0]
        self.alone[layer] = error_of({**live, output: rounded})

    def _compute(self, own: ir.Model, node: ir.Node, arrays: Arrays) -> Arrays:
        """Return the outputs of a layer with its stored weights and bias."""
        source, weight = node.inputs[0], node.inputs[1]
        assert source is not None
        assert weight is not None
        stored = decode_weight(self.draft.weights[str(node.name)])
        fed: Live = {source: arrays, weight: [stored] * len(arrays)}
        outputs = open_part(own, [node], node.outputs, fed).run(fed)
        shift = _bias(self.corrected[str(node.name)]) - _bias(node)
        if shift.ndim and node.op_type == "Conv":
            shift = shift.reshape(1, -1, *[1] * (outputs[0][0].ndim - 2))
        return [(parts[0] + shift).astype(np.float32) for parts in outputs]


def _rest(model: ir.Model, nodes: Sequence[ir.Node], live: Live) -> Callable[[Live], list[np.ndarray]]:
    """Return the function from the living tensors to the outputs of the graph, whose ``nodes`` are still to be run."""
    ends = list(model.graph.outputs)
    behind = [v for v in ends if v not in live]
    part = open_part(model, nodes, behind, live) if behind else None

    def run(changed: Live) -> list[np.ndarray]:
        computed = part.run(changed) if part is not None else []
        columns = {v: [parts[i] for parts in computed] for i, v in enumerate(behind)}
        return [np.concatenate(columns[v] if v in columns else changed[v]) for v in ends]

    return run


def _error(reference: Sequence[np.ndarray], run: Callable[[Live], list[np.ndarray]], live: Live) -> float:
    return output_error(reference, run(live))


def _rounded(arrays: Arrays, affine: Affine) -> tuple[Arrays, float]:
    """Return a tensor as its codes give it back, and the share of its values that lie outside of them."""
    scale, zero = float(affine.scale), affine.zero_point
    low, high = (-zero - 0.5) * scale, (affine.levels - zero + 0.5) * scale
    outside = sum(int(((a < low) | (a > high)).sum()) for a in arrays)
    rounded = [round_through(a, affine).astype(np.float32, copy=False) for a in arrays]
    return rounded, outside / max(1, sum(a.size for a in arrays))


def _bias(node: ir.Node) -> np.ndarray:
    """Return the bias of a layer wherever it is held, float32 of shape (channels,); one zero when it has none."""
    slot = bias_slot(node)
    held = None if slot is None or len(slot[0].inputs) <= slot[1] else constant_array(slot[0].inputs[slot[1]])
    return np.zeros((), np.float32) if held is None else held.reshape(-1)
