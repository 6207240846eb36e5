"""Shapes of every value of a graph, for a batch of one size: what costs are counted from."""

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.graph.values import constant_tensor
from edgecv.runtime.session import open_session

_MAX_RUN_BYTES = 1 << 30
"""A larger model is not run for the sake of a shape."""


def fixed_shapes(model: ir.Model, batch: int = 1) -> ir.Model:
    """Return a copy of ``model`` with its functions inlined, its batch fixed and its shapes inferred anew.

    What ONNX's own inference does not know (operators of ONNX Runtime's own, lengths computed on the way) is read off
    one run on an image of zeros. A free dimension of an input other than its first stays free, and so does what
    follows from it.

    Args:
        model: Left as it is.
        batch: What the free first dimension of each input becomes.
    """
    copy = model.clone()
    common.InlinePass()(copy)
    for value in copy.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([batch, *value.shape[1:]])
    for value in (o for node in copy.graph.all_nodes() for o in node.outputs):
        value.shape = None  # what the file says speaks of another batch, and would win over what is inferred
    common.ShapeInferencePass(check_type=False, strict_mode=False)(copy)
    gaps = [
        o
        for node in copy.graph
        for o in node.outputs
        if o.name and dims(o) is None and (o.uses() or o.is_graph_output())
    ]
    if gaps:
        _run_for(copy, gaps)
    return copy


def dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the shape of a value when every dimension is known, else None."""
    if value is None:
        return None
    if (tensor := constant_tensor(value)) is not None:
        return tuple(d for d in tensor.shape if isinstance(d, int))
    if value.shape is None or not all(isinstance(d, int) for d in value.shape):
        return None
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def elements(value: ir.Value | None) -> int | None:
    """Return how many numbers a value holds, or None when its shape is not known."""
    shape = dims(value)
    return None if shape is None else math.prod(shape)


def value_bytes(value: ir.Value | None) -> int | None:
    """Return the bytes a value takes in memory, or None when its shape or type is not known."""
    count = elements(value)
    if value is None or count is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    return math.ceil(count * value.dtype.bitwidth / 8)


def _run_for(model: ir.Model, gaps: list[ir.Value]) -> None:
    """Set shape and type of values from one run on zeros; whatever ONNX Runtime refuses leaves them as they are."""
    feeds = {}
    for value in model.graph.inputs:
        shape = dims(value)
        if shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
            return
        feeds[str(value.name)] = np.zeros(shape, value.dtype.numpy())
    if sum(t.nbytes for v in model.graph.initializers.values() if (t := v.const_value) is not None) > _MAX_RUN_BYTES:
        return
    asked = model.clone()
    by_name = {o.name: o for node in asked.graph for o in node.outputs}
    asked.graph.outputs.extend(by_name[v.name] for v in gaps if by_name[v.name] not in asked.graph.outputs)
    try:
        session = open_session(ir.to_proto(asked).SerializeToString(), threads=1, optimize=False).session
        arrays = session.run([v.name for v in gaps], feeds)
    except Exception:  # onnxruntime's exceptions have no common base but this
        return
    for value, array in zip(gaps, arrays, strict=True):
        if isinstance(array, np.ndarray):
            value.shape = ir.Shape(array.shape)
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
