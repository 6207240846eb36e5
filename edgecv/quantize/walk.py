"""Running a graph node by node over a few images, so that a tensor can be changed on the way and the rest run on."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecv.graph.interface import only_image_input
from edgecv.graph.values import constant_array
from edgecv.quantize.sessions import open_graph

Live = dict[ir.Value, list[np.ndarray]]
"""Tensors that later nodes still read: one array for each part of the images."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some nodes of a graph as a session of their own.

    Attributes:
        session: Its inputs are named ``x0``, ``x1``, … in the order of ``feeds``.
        feeds: The tensors it reads.
    """

    session: Any
    feeds: tuple[ir.Value, ...]

    def run(self, live: Mapping[ir.Value, Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """Return the outputs for each part of the images: ``result[part][output]``."""
        parts = len(live[self.feeds[0]]) if self.feeds else 1
        return [
            self.session.run(None, {f"x{i}": live[value][p] for i, value in enumerate(self.feeds)})
            for p in range(parts)
        ]


def walk(model: ir.Model, images: np.ndarray, *, keep: Collection[ir.Value] = ()) -> Iterator[tuple[ir.Node, Live]]:
    """Compute one node after the other and yield each with the tensors that are alive after it.

    Memory is the widest cut through the graph, for all images. Changing an entry of the tensors changes what the nodes
    behind it read. Computed constants (a weight behind its DequantizeLinear) are alive with a single part.

    Args:
        model: A graph with one image input; not changed.
        images: Of the graph's own input.
        keep: Tensors not to drop when nobody reads them any more.
    """
    graph = model.graph
    left = {value: len(list(value.uses())) for value in (*graph.inputs, *(o for n in graph for o in n.outputs))}
    feed = only_image_input(model)
    live: Live = {feed: split_images(feed, images)}
    for node in graph:
        part = open_part(model, [node], node.outputs, live)
        results = part.run(live)
        for index, output in enumerate(node.outputs):
            live[output] = [arrays[index] for arrays in results]
        yield node, live
        for value in {v for v in node.inputs if v in live}:
            left[value] -= sum(1 for v in node.inputs if v is value)
            if not left[value] and value not in keep and not value.is_graph_output():
                del live[value]


def split_images(feed: ir.Value, images: np.ndarray) -> list[np.ndarray]:
    """Return the images as one part, or as whole batches of the size the graph is fixed to (a rest is left out)."""
    fixed = feed.shape[0] if feed.shape is not None and isinstance(feed.shape[0], int) else 0
    if not fixed:
        return [images]
    padded = images if len(images) >= fixed else np.resize(images, (fixed, *images.shape[1:]))
    return [padded[i : i + fixed] for i in range(0, len(padded) - fixed + 1, fixed)]


def open_part(
    model: ir.Model, nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], live: Mapping[ir.Value, list[np.ndarray]]
) -> Part:
    """Open a session of ``nodes`` that reads from ``live`` what they do not compute themselves.

    Args:
        model: The graph they are from; not changed.
        nodes: In the order of the graph.
        outputs: Tensors they compute.
        live: Every computed tensor they read; gives its dtype and rank.
    """
    copies: dict[ir.Value, ir.Value] = {}
    inputs: list[ir.Value] = []
    constants: list[ir.Value] = []

    def copy_of(value: ir.Value | None) -> ir.Value | None:
        if value is None or value in copies:
            return None if value is None else copies[value]
        if value in live:
            inputs.append(_input(f"x{len(inputs)}", live[value][0]))
            copies[value] = inputs[-1]
        else:
            array = constant_array(value)
            assert array is not None, f"'{value.name}' is neither constant nor computed yet"
            constants.append(_constant(f"c{len(constants)}", array))
            copies[value] = constants[-1]
        return copies[value]

    made = []
    for node in nodes:
        read = [copy_of(v) for v in node.inputs]
        written = [ir.Value(name=f"y{len(copies)}_{i}", type=o.type) for i, o in enumerate(node.outputs)]
        copies.update(zip(node.outputs, written, strict=True))
        made.append(ir.Node(node.domain, node.op_type, read, node.attributes.values(), outputs=written, name=node.name))
    imports = dict(model.opset_imports)
    graph = ir.Graph(inputs, [copies[o] for o in outputs], nodes=made, initializers=constants, opset_imports=imports)
    feeds = {copy: value for value, copy in copies.items()}
    return Part(open_graph(ir.Model(graph, ir_version=model.ir_version)), tuple(feeds[i] for i in inputs))


def _input(name: str, array: np.ndarray) -> ir.Value:
    """A float tensor may have any shape of its rank; a list of numbers keeps its length, which Resize must know."""
    kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    is_list = array.dtype.kind == "i" and array.ndim == 1
    shape = array.shape if is_list else [f"{name}_{axis}" for axis in range(array.ndim)]
    return ir.Value(name=name, type=kind, shape=ir.Shape(shape))


def _constant(name: str, array: np.ndarray) -> ir.Value:
    kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    return ir.Value(name=name, type=kind, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=name))
