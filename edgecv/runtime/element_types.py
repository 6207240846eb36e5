"""The element type of what an operator gives, from the types it takes; 0 where that is not known."""

from collections.abc import Callable, Mapping

from edgecv.runtime.onnx_records import Node
from edgecv.runtime.tensor_values import BOOL, FLOAT, INT32, INT64, UINT8

Types = Mapping[str, int]

_BY_ATTRIBUTE = {
    "Cast": ("to", 0), "BitCast": ("to", 0), "BlackmanWindow": ("output_datatype", FLOAT),
    "HammingWindow": ("output_datatype", FLOAT), "HannWindow": ("output_datatype", FLOAT),
}  # fmt: skip
_ALWAYS = {
    **dict.fromkeys(("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression"), INT64),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf"), BOOL),
    **dict.fromkeys(("And", "Or", "Xor", "Not"), BOOL),
    **dict.fromkeys(("MatMulInteger", "ConvInteger", "MatMulInteger16", "MulInteger"), INT32),
    **dict.fromkeys(("If", "Loop", "Scan"), 0),
}
_OF_INPUT = {
    "CastLike": 1, "Where": 1, "OneHot": 2, "QLinearConcat": 2, "MatMulIntegerToFloat": 2, "QAttention": 3,
    "QLinearWhere": 1,
}  # fmt: skip
"""Operators whose output has the type of another input than the first."""
_SECOND = {"TopK": INT64, "MaxPool": INT64, "Dropout": BOOL, "Unique": INT64}


def output_types(node: Node, types: Types) -> list[int]:
    """Return the type of each output of ``node``; ``types`` holds those of tensors computed before it."""
    inputs = [types.get(name, 0) for name in node.inputs]
    if node.op == "DynamicQuantizeLinear":
        return [UINT8, FLOAT, UINT8]
    first = _first(node, inputs)
    return [first, *[_SECOND.get(node.op, first)] * (len(node.outputs) - 1)]


def _first(node: Node, inputs: list[int]) -> int:
    if node.op in _ALWAYS:
        return _ALWAYS[node.op]
    if node.op in _BY_ATTRIBUTE:
        name, default = _BY_ATTRIBUTE[node.op]
        return integer(node, name, default)
    if node.op in _SPECIAL:
        return _SPECIAL[node.op](node, inputs)
    return _at(inputs, _OF_INPUT.get(node.op, 0))


def integer(node: Node, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.i is None else attribute.i


def _constant(node: Node, inputs: list[int]) -> int:
    value = node.attributes.get("value")
    if value is not None and value.tensors:
        return value.tensors[0].type
    if node.op == "ConstantOfShape" or {"value_float", "value_floats"} & node.attributes.keys():
        return FLOAT
    return INT64 if {"value_int", "value_ints"} & node.attributes.keys() else 0


def _quantized(node: Node, inputs: list[int]) -> int:
    return _at(inputs, 2) or integer(node, "output_dtype", 0) or UINT8


def _eye(node: Node, inputs: list[int]) -> int:
    return integer(node, "dtype", 0) or _at(inputs, 0)


def _at(inputs: list[int], index: int) -> int:
    return inputs[index] if index < len(inputs) else 0


_SPECIAL: dict[str, Callable[[Node, list[int]], int]] = {
    "Constant": _constant,
    "ConstantOfShape": _constant,
    "EyeLike": _eye,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": lambda node, inputs: integer(node, "output_dtype", 0) or _at(inputs, 1),
    "QLinearConv": lambda node, inputs: _at(inputs, 7) or UINT8,
    "QLinearMatMul": lambda node, inputs: _at(inputs, 7) or UINT8,
    "QGemm": lambda node, inputs: (_at(inputs, 8) or UINT8) if len(node.inputs) > 7 and node.inputs[7] else FLOAT,
}
