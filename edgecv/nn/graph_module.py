"""A float ONNX graph run by PyTorch, so that gradients flow through it.

``onnx2torch`` (1.5.15, the latest) refuses every graph that today's exporter writes (``Reshape`` with ``allowzero``),
and its modules do not keep the names of tensors, which is where quantizers are placed.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgecv.errors import UsageError
from edgecv.graph.interface import only_image_input
from edgecv.graph.values import constant_array
from edgecv.nn.operators import OPERATORS
from edgecv.nn.shape_operators import Operator


class UntaughtOperatorError(UsageError):
    """PyTorch is not taught an operator of the graph, or the way it is used."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One node: what computes it, the names it reads, and those of them that nobody reads later."""

    node: ir.Node
    operator: Operator
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    finished: tuple[str, ...]


class GraphModule(nn.Module):
    """Runs a graph node by node; constants are not trained.

    A subclass changes what a node reads by overriding :meth:`read`.
    """

    def __init__(self, model: ir.Model, skipped: Collection[str] = ()) -> None:
        """Take the graph apart.

        Args:
            model: A float model with one image input; it is only read.
            skipped: Names of nodes that hand on their first input as it is.

        Raises:
            UntaughtOperatorError: A node's operator is none of :data:`edgecv.nn.operators.OPERATORS`.
        """
        super().__init__()
        self.feed = str(only_image_input(model).name)
        self.results = tuple(str(v.name) for v in model.graph.outputs)
        self.constants = _constants(model.graph)
        self._steps = _steps(model.graph, {self.feed, *self.results, *self.constants}, skipped)

    def forward(self, image: Tensor, keep: Collection[str] = ()) -> dict[str, Tensor]:
        """Return the graph's outputs, and the tensors of ``keep``, by name.

        Args:
            image: A batch as the graph takes it: uint8 (N, H, W, 3) or float32 (N, 3, H, W).
            keep: Names of values inside the graph that are wanted too.

        Raises:
            UntaughtOperatorError: A node uses its operator in a way that is not built.
        """
        values: dict[str, Tensor] = {**self.constants, self.feed: image}
        kept: dict[str, Tensor] = {}
        for step in self._steps:
            read = [None if n is None else self.read(step.node, i, n, values[n]) for i, n in enumerate(step.inputs)]
            try:
                made = step.operator(step.node, read)
            except NotImplementedError as e:
                raise UntaughtOperatorError(_refusal(step.node, str(e))) from None
            produced = (made,) if isinstance(made, Tensor) else made
            values.update(zip(step.outputs, produced, strict=False))
            kept.update({n: values[n] for n in step.outputs if n in keep})
            for name in step.finished:
                del values[name]
            self.done(step.finished)
        return kept | {name: values[name] for name in self.results}

    def read(self, node: ir.Node, index: int, name: str, value: Tensor) -> Tensor:
        """Return what ``node`` gets for its input ``index``, which is ``value``, called ``name``."""
        return value

    def done(self, names: Collection[str]) -> None:
        """Hear that nobody reads the values of these names any more."""


def _constants(graph: ir.Graph) -> dict[str, Tensor]:
    nodes = [o for node in graph if node.op_type == "Constant" for o in node.outputs]
    found = {}
    for value in (*graph.initializers.values(), *nodes):
        array = constant_array(value)
        if array is not None:
            found[str(value.name)] = torch.from_numpy(np.array(array))
    return found


def _steps(graph: ir.Graph, stay: Collection[str], skipped: Collection[str]) -> list[_Step]:
    nodes = [n for n in graph if n.op_type != "Constant"]
    reads = Counter(v.name for n in nodes for v in n.inputs if v is not None)
    steps = []
    for node in nodes:
        known = "Identity" if node.name in skipped else node.op_type
        operator = None if node.domain else OPERATORS.get(known)
        if operator is None:
            raise UntaughtOperatorError(_refusal(node, ""))
        inputs = tuple(None if v is None else str(v.name) for v in node.inputs)
        reads.subtract(n for n in inputs if n is not None)
        finished = {n: None for n in inputs if n is not None and not reads[n] and n not in stay}
        steps.append(_Step(node, operator, inputs, tuple(str(o.name) for o in node.outputs), tuple(finished)))
    return steps


def _refusal(node: ir.Node, way: str) -> str:
    name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    return (
        f"fine-tuning cannot run the operator {name} of node '{node.name}'{f' ({way})' if way else ''}; "
        "stop at an earlier rung of the ladder with --method."
    )
