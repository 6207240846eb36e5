"""The shape of what an operator gives: enough of ONNX's shape inference to see a graph ask for gigabytes.

Shapes are plain numbers: open dimensions are bound before (:mod:`edgecv.runtime.graph_facts`). None means not known,
as behind operators whose output depends on values; nothing here trusts what the file says about its own tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any

from edgecv.runtime.onnx_records import Node
from edgecv.runtime.operators import words
from edgecv.runtime.shape_layers import RULES as LAYERS
from edgecv.runtime.shape_moves import RULES as MOVES
from edgecv.runtime.shape_values import Shape, Values, broadcast


def output_shapes(node: Node, shapes: Sequence[Shape], values: Values) -> list[Shape]:
    """Return the shape of each output of ``node``; None where it is not known.

    Args:
        node: The operator.
        shapes: Of its inputs.
        values: Of its inputs, where they are small constants.
    """
    rule = RULES.get(node.op, _same)
    try:
        found = rule(node, shapes, values)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError):
        found = None  # inputs that do not fit the operator: ONNX Runtime refuses them itself
    if not isinstance(found, list):
        found = [found] * len(node.outputs)
    return (found + [None] * len(node.outputs))[: len(node.outputs)]


def _same(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return shapes[0] if shapes else None


def _broadcast(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return broadcast(shapes)


def _scalar(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return ()


def _unknown(node: Node, shapes: Sequence[Shape], values: Values) -> Shape:
    return None


def _picked(*indices: int) -> Callable[[Node, Sequence[Shape], Values], Shape]:
    return lambda node, shapes, values: broadcast([shapes[i] for i in indices])


RULES: dict[str, Callable[[Node, Sequence[Shape], Values], Any]] = {
    **LAYERS,
    **MOVES,
    **dict.fromkeys(
        words(
            """Add And BiasAdd BiasGelu BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
            LessOrEqual Max Mean Min Mod Mul MulInteger Or Pow Sub Sum Where Xor"""
        ),
        _broadcast,
    ),
    **dict.fromkeys(words("QLinearAdd QLinearMul"), _picked(0, 3)),
    "QLinearWhere": _picked(0, 1, 4),
    **dict.fromkeys(words("Attention Constant DFT Det ExpandDims If Loop ReorderInput Scan"), _unknown),
    "Size": _scalar,
}
"""Operator -> its rule; an operator without one gives what it takes."""
