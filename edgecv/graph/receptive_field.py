"""Receptive fields: which pixels of the input each value of a graph can see.

A field is followed along each of the image's two axes by itself: its size, the distance in pixels between neighbouring
positions (stride) and the centre of the first position's field (offset), all in pixels of the input. The rules for
windows are those of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019
(doi:10.23915/distill.00021); where paths meet, the field is the union of theirs.
"""

import math
from dataclasses import dataclass

import onnx_ir as ir

from edgecv.graph.field import Field, join
from edgecv.graph.field_rules import through
from edgecv.graph.parameters import stored_weight
from edgecv.graph.shapes import dims

_MOST_CHANNELS = 4
"""An image of four dimensions whose last has no more than these has them last: gray, RGB, RGBA."""


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The field of one value, each as ``(vertical, horizontal)`` in pixels.

    Attributes:
        size: Pixels seen, those of the padding included; None for the whole image.
        stride: Between neighbouring positions; None where there is one position, or they do not lie in a row.
        offset: Centre of the first position's field, 0 being the centre of the first pixel; None with ``size``.
    """

    size: tuple[float | None, float | None]
    stride: tuple[float | None, float | None]
    offset: tuple[float | None, float | None]


def receptive_fields(model: ir.Model) -> dict[ir.Value, ReceptiveField]:
    """Return the receptive field of every value that depends on the image, the first input of 3 or 4 dimensions.

    Exact for convolutions, poolings, paddings and whatever works on each position by itself; an upper bound behind
    operators that mix positions in other ways (normalisations over the image, attention in windows), which count as
    seeing the whole image.

    Args:
        model: With shapes, see :func:`edgecv.graph.shapes.fixed_shapes`.
    """
    start = _image(model)
    if start is None:
        return {}
    image, axes = start
    known = {image: (Field((axes[0],), 1.0, 1.0, 0.0), Field((axes[1],), 1.0, 1.0, 0.0))}
    for node in model.graph:
        sources = [(i, v) for i, v in enumerate(node.inputs) if v is not None and stored_weight(v) is None]
        seen = [(i, known[v]) for i, v in sources if v in known]
        if not seen or node.op_type in ("Shape", "Size"):
            continue
        for output in node.outputs:
            rows, columns = (
                join([through(node, output, place, fields[axis]) for place, fields in seen]) for axis in (0, 1)
            )
            known[output] = (rows, columns)
    return {value: _reported(*fields) for value, fields in known.items()}


def _image(model: ir.Model) -> tuple[ir.Value, tuple[int, int]] | None:
    for value in model.graph.inputs:
        shape = dims(value)
        if shape is not None and len(shape) in (3, 4):
            channels_last = len(shape) == 4 and shape[-1] <= _MOST_CHANNELS < shape[1]
            return value, ((1, 2) if channels_last else (len(shape) - 2, len(shape) - 1))
    return None


def _reported(rows: Field, columns: Field) -> ReceptiveField:
    fields = (rows, columns)
    size, stride, offset = (
        tuple(f.size if f.is_local else None for f in fields),
        tuple(f.stride if len(f.axes) == 1 else None for f in fields),
        tuple(f.offset if f.is_local and not math.isnan(f.offset) else None for f in fields),
    )
    return ReceptiveField((size[0], size[1]), (stride[0], stride[1]), (offset[0], offset[1]))
