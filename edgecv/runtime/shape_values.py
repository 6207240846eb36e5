"""What the rules of shape inference share."""

from collections.abc import Sequence

import numpy as np

from edgecv.runtime.onnx_records import Node

Shape = tuple[int, ...] | None
Values = Sequence[np.ndarray | None]

_MAX_GIVEN = 256  # sizes, axes and parts; more would cost time for nothing


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return what numpy's broadcasting makes of shapes."""
    known = [s for s in shapes if s is not None]
    if len(known) < len(shapes) or not known:
        return None
    rank = max(map(len, known))
    padded = [(1,) * (rank - len(s)) + s for s in known]
    return tuple(0 if 0 in column else max(column) for column in zip(*padded, strict=True))


def ints(node: Node, name: str) -> tuple[int, ...] | None:
    """Return an attribute's integers; None when it is absent or empty."""
    attribute = node.attributes.get(name)
    return attribute.ints if attribute is not None and attribute.ints else None


def given(node: Node, name: str, values: Values, index: int) -> tuple[int, ...] | None:
    """Return integers that older opsets keep in an attribute and newer ones in an input; None when not known."""
    found = ints(node, name)
    value = values[index] if index < len(values) else None
    if found is None and value is not None and value.size <= _MAX_GIVEN:
        found = tuple(int(v) for v in value.ravel())
    return found


def absent(node: Node, name: str, index: int) -> bool:
    """Return whether a value is given neither as attribute nor as input."""
    return name not in node.attributes and (index >= len(node.inputs) or not node.inputs[index])


def known(shape: Shape) -> tuple[int, ...]:
    """Return the shape; raise ValueError when it is not known."""
    if shape is None:
        raise ValueError("shape not known")
    return shape
