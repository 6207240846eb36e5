"""How many parameters each node of a graph has, and the product they come from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgecv.graph.values import constant_tensor

_PASSED_ON = ("DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze")
"""Between a stored weight and the layer that uses it."""

_LEARNED: Mapping[str, tuple[int, ...]] = {
    # Inputs that hold what was learned (onnx/docs/Operators.md). Of a batch normalisation the mean and variance are
    # statistics, which nobody counts as parameters; of a quantized layer the scales and zero points are codes' units.
    "Conv": (1, 2), "ConvTranspose": (1, 2), "DeformConv": (1, 3), "Gemm": (1, 2), "MatMul": (0, 1),
    "ConvInteger": (1,), "MatMulInteger": (0, 1), "QLinearConv": (3, 8), "QLinearMatMul": (3,), "QGemm": (3, 6),
    "BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2), "RMSNormalization": (1,), "PRelu": (1,), "Gather": (0,),
    "LSTM": (1, 2, 3), "GRU": (1, 2, 3), "RNN": (1, 2, 3),
    "FusedConv": (1, 2), "NhwcFusedConv": (1, 2), "FusedMatMul": (0, 1), "FusedGemm": (1, 2),
    "BiasGelu": (1,), "SkipLayerNormalization": (2, 3, 4), "MatMulNBits": (1,), "DynamicQuantizeMatMul": (1,),
    "MatMulIntegerToFloat": (1,), "Attention": (1, 2),
}  # fmt: skip

_ELEMENTWISE = ("Mul", "Add", "Sub", "Div", "Concat", "Where", "Expand", "Pow")
"""Layer scales, position embeddings and class tokens enter through these; a single number there is a constant."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one node learned.

    Attributes:
        count: Numbers, each counted at the first node that uses it.
        formula: The shapes they come from, such as ``64·3·7·7 + 64``.
        bytes: What they take in the file.
    """

    count: int = 0
    formula: str = ""
    bytes: int = 0


def count_parameters(model: ir.Model) -> dict[ir.Node, Parameters]:
    """Return the parameters of every node of the main graph that has any.

    Constants (limits of a clip, shapes, scales of quantizers, the mean and deviation of pixels) are none, nor are a
    batch normalisation's running statistics. A weight two nodes share is counted once.

    Args:
        model: Functions inlined.
    """
    counted: set[ir.Value] = set()
    found: dict[ir.Node, Parameters] = {}
    learned = False  # what stands in front of the first layer scales pixels
    for node in model.graph:
        learned = learned or node.op_type in _LEARNED
        terms = [v for v in _stored(node, elementwise=learned) if v not in counted]
        counted.update(terms)
        if terms:
            found[node] = _described(dict.fromkeys(terms))
    return found


def stored_weight(value: ir.Value | None) -> ir.Value | None:
    """Return the initializer behind a weight, quantized or reshaped perhaps; None for a computed value."""
    while value is not None and constant_tensor(value) is None:
        producer = value.producer()
        if producer is None or producer.op_type not in _PASSED_ON or not producer.inputs:
            return None
        value = producer.inputs[0]
    return value


def _stored(node: ir.Node, *, elementwise: bool) -> Iterator[ir.Value]:
    if node.op_type in _LEARNED:
        places = _LEARNED[node.op_type]
    elif elementwise and node.op_type in _ELEMENTWISE:
        places = tuple(range(len(node.inputs)))
    else:
        return
    for place in places:
        value = stored_weight(node.inputs[place]) if place < len(node.inputs) else None
        tensor = constant_tensor(value)
        if value is None or tensor is None or tensor.dtype == ir.DataType.BOOL:
            continue
        single = node.op_type in _ELEMENTWISE and tensor.size == 1
        index = node.op_type in (*_ELEMENTWISE, "Gather") and tensor.dtype.is_integer() and len(tensor.shape) < 2
        if not single and not index:
            yield value


def _described(values: Mapping[ir.Value, None]) -> Parameters:
    tensors = [t for v in values if (t := constant_tensor(v)) is not None]
    terms = ["·".join(map(str, t.shape)) or "1" for t in tensors]
    alike = len(terms) > 1 and len(set(terms)) == 1
    return Parameters(
        count=sum(t.size for t in tensors),
        formula=f"{len(terms)}·{terms[0]}" if alike else " + ".join(terms),
        bytes=sum(t.nbytes for t in tensors),
    )
