"""A draft as a network that can be trained: fake quantizers exactly where the writer puts the real ones."""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecv.graph.values import add_initializer, constant_array
from edgecv.nn.graph_module import GraphModule
from edgecv.nn.learned import LayerWeight, TensorRange
from edgecv.quantize.bias_correction import bias_slot
from edgecv.quantize.draft import Draft
from edgecv.quantize.int8_nodes import fused_activation, output_tensor

_SPREAD_STEP = 8.0
"""A 255th of the spread of a sum of n products is about this times sqrt(n), in units of both scales: codes spread over
a third of the weight's 127 steps and a sixth of the input's 255."""


class QuantizedGraph(GraphModule):
    """Runs a draft with fake quantizers. Relu and Clip that a quantizer stands for are left out, as ONNX Runtime does.

    Attributes:
        layers: Node name to weight, scales and bias.
        ranges: Tensor name to its range.
    """

    def __init__(self, draft: Draft, *, symmetric: bool = False) -> None:
        """Take ``draft`` as the starting point; it is not changed.

        Args:
            draft: Where to start.
            symmetric: Its zero points must stay as they are, for signed activations.

        Raises:
            UntaughtOperatorError: See :class:`GraphModule`.
        """
        placement = draft.placement
        nodes = {str(n.name): n for n in draft.model.graph}
        folded = _folded(nodes, draft)
        super().__init__(draft.model, [str(n.name) for n in folded.values()])
        self._draft = draft
        self._int8 = {*placement.layers, *placement.others}
        self._input = {n: placement.shared.get(r, r) for n in placement.layers if (r := str(nodes[n].inputs[0].name))}  # type: ignore[union-attr]
        self._rounded: dict[str, Tensor] = {}
        self.ranges = {
            name: TensorRange(
                span, draft.levels, _highest(folded.get(name)), fixed=name in placement.from_input, tied=symmetric
            )
            for name, span in draft.ranges.items()
        }
        self.layers = {name: _layer(draft, nodes[name], self._input[name]) for name in placement.layers}
        self._slots = {}
        for name in placement.layers:
            slot = bias_slot(nodes[name])
            if slot is not None:
                self._slots[str(slot[0].name), slot[1]] = name
        self._modules_to_train = nn.ModuleList([*self.ranges.values(), *self.layers.values()])

    def forward(self, image: Tensor, keep: Collection[str] = ()) -> dict[str, Tensor]:
        """As :meth:`GraphModule.forward`; the tensors of ``keep`` are those before their quantizers."""
        self._rounded.clear()
        try:
            return super().forward(image, keep)
        finally:
            self._rounded.clear()

    def read(self, node: ir.Node, index: int, name: str, value: Tensor) -> Tensor:
        """Return weight and bias of a layer as stored, and tensors rounded where the draft says so."""
        if index == 1 and node.name in self.layers:
            return self.layers[node.name].rounded_weight(self._input_scale(node.name))
        owner = self._slots.get((str(node.name), index))
        if owner is not None:
            bias = self.layers[owner].rounded_bias(self._input_scale(owner))
            return value if bias is None else bias
        if name in self.ranges and (name in self._draft.placement.written or node.name in self._int8):
            if name not in self._rounded:
                self._rounded[name] = self.ranges[name].rounded(value)
            return self._rounded[name]
        return value

    def done(self, names: Collection[str]) -> None:
        """Let go of the rounded copies too."""
        for name in names:
            self._rounded.pop(name, None)

    def project(self) -> None:
        """Bring what a training step has moved back to where it can be stored."""
        for span in self.ranges.values():
            span.project()
        for layer in self.layers.values():
            layer.project()

    @torch.no_grad()
    def draft(self) -> Draft:
        """Return what has been learned: the same codes, scales and biases as the last forward pass had."""
        model = self._draft.model.clone()
        nodes = {str(n.name): n for n in model.graph}
        weights = {}
        for name, layer in self.layers.items():
            node = nodes[name]
            weights[name] = layer.stored(self._input_scale(name))
            _replace(model.graph, node, 1, layer.weight().numpy())
            slot, bias = bias_slot(node), layer.bias()
            if slot is not None and bias is not None:
                _replace(model.graph, *slot, bias.numpy())
        ranges = {name: span.range() for name, span in self.ranges.items()}
        return replace(self._draft, model=model, ranges=ranges, weights=weights)

    def _input_scale(self, layer: str) -> np.float32:
        return self.ranges[self._input[layer]].scale()


def _folded(nodes: dict[str, ir.Node], draft: Draft) -> dict[str, ir.Node]:
    """Return the Relu and Clip nodes whose work a quantizer does, by the tensor they write: its lowest code is 0."""
    found = {}
    for name in draft.placement.layers:
        activation = fused_activation(nodes[name])
        written = str(output_tensor(nodes[name]).name)
        affine = draft.affines.get(written)
        if activation is not None and written in draft.placement.written and affine and affine.zero_point == 0:
            found[written] = activation
    return found


def _highest(activation: ir.Node | None) -> float:
    bound = constant_array(activation.inputs[2]) if activation is not None and len(activation.inputs) > 2 else None
    return math.inf if bound is None else float(bound.reshape(()))


def _layer(draft: Draft, node: ir.Node, read: str) -> LayerWeight:
    stored = draft.weights[str(node.name)]
    slot = bias_slot(node)
    holder, index = slot if slot is not None else (node, 2)
    bias = constant_array(holder.inputs[index]) if slot is not None and len(holder.inputs) > index else None
    affines = draft.affines
    written = affines.get(str(output_tensor(node).name))
    fan_in = stored.codes.size // len(stored.scale)
    spread = _SPREAD_STEP * math.sqrt(fan_in) * float(affines[read].scale * stored.scale.mean())
    step = spread if written is None else float(written.scale)
    return LayerWeight(stored, bias, output_step=step, int32=holder is node)


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give ``node`` a constant of its own, in the shape of the old one."""
    old = node.inputs[index]
    assert old is not None and old.const_value is not None  # noqa: PT018 it held the layer's weight or bias
    shaped = np.ascontiguousarray(array.reshape(old.const_value.numpy().shape))
    node.replace_input_with(index, add_initializer(graph, f"{old.name}_tuned", shaped))
