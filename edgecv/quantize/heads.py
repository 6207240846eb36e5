"""The head of a detector: the layers that work for box coordinates alone or for scores alone.

Coordinates are regressed to fractions of a pixel and scores are compared with thresholds, so eight bits cost a detector
most in its last layers, which are a small part of its work. They are found by what they lead to, not by their names.
"""

from collections.abc import Iterable, Iterator

import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.graph.values import constant_array
from edgecv.quantize.int8_nodes import PASSING_OPS, WEIGHT_OPS

BOX_NUMBERS = 4
"""Numbers of a box, in whatever coordinates."""

HEAD_REASON = "in a detection head"

_BOXES, _OTHERS = 1, 2


def detection_head(model: ir.Model) -> tuple[str, ...]:
    """Return the layers that lead to boxes alone or to everything but boxes, in the order of the graph.

    What a network gives is looked at where it is still apart: from its outputs backwards through operators that only
    move values and through Concat, or at the boxes and scores that go into a NonMaxSuppression. Boxes are a tensor of
    three dimensions whose last or middle one is 4: (N, anchors, 4) or (N, 4, anchors). A layer of the head leads to
    boxes and nothing else, or to other results and to no boxes; layers of the trunk lead to both. Without boxes, or
    with nothing beside them, there is no head: a classifier has none, nor has a network with one convolution for
    boxes and scores together.

    Args:
        model: Shapes are inferred on a copy; every node has a unique name.
    """
    if not _may_detect(model):
        return ()
    copy = common.ShapeInferencePass()(model.clone()).model
    reached: dict[ir.Value, int] = {}
    for value, kind in _results(copy.graph):
        reached[value] = reached.get(value, 0) | kind
    if {_BOXES, _OTHERS} - set(reached.values()):
        return ()
    layers = []
    for node in reversed(list(copy.graph)):
        leads_to = 0
        for output in node.outputs:
            leads_to |= reached.get(output, 0)
        for read in node.inputs:
            if read is not None and leads_to and _carries_numbers(read):
                reached[read] = reached.get(read, 0) | leads_to
        if leads_to in (_BOXES, _OTHERS) and node.op_type in WEIGHT_OPS and constant_array(node.inputs[1]) is not None:
            layers.append(str(node.name))
    return tuple(reversed(layers))


def _carries_numbers(value: ir.Value) -> bool:
    """Tell whether a value is computed with; what is an index only says which boxes are picked."""
    return value.dtype is None or value.dtype.is_floating_point()


def _may_detect(model: ir.Model) -> bool:
    """Tell cheaply that a network gives more than one thing."""
    value: ir.Value | None = model.graph.outputs[0]
    while value is not None and (node := value.producer()) is not None and node.op_type in PASSING_OPS:
        value = node.inputs[0]
    last = None if value is None else value.producer()
    return len(model.graph.outputs) > 1 or (last is not None and last.op_type in ("Concat", "NonMaxSuppression"))


def _results(graph: ir.Graph) -> Iterator[tuple[ir.Value, int]]:
    """Yield what the network gives, box tensors and others, before they are joined or selected from."""
    suppressions = [n for n in graph if n.op_type == "NonMaxSuppression"]
    for node in suppressions:
        yield from ((v, kind) for v, kind in zip(node.inputs[:2], (_BOXES, _OTHERS), strict=True) if v is not None)
    if suppressions:
        return
    yield from _apart(graph.outputs)


def _apart(values: Iterable[ir.Value | None]) -> Iterator[tuple[ir.Value, int]]:
    for value in values:
        if value is None or constant_array(value) is not None:
            continue
        node = value.producer()
        if _holds_boxes(value):
            yield value, _BOXES
        elif node is not None and node.op_type == "Concat":
            yield from _apart(node.inputs)
        elif node is not None and node.op_type in PASSING_OPS:
            yield from _apart(node.inputs[:1])
        else:
            yield value, _OTHERS


def _holds_boxes(value: ir.Value) -> bool:
    shape = value.shape
    return shape is not None and len(shape) == 3 and BOX_NUMBERS in (shape[1], shape[2])
