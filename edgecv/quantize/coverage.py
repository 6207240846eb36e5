"""What ONNX Runtime really runs: the graph after its own optimizations, counted."""

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from edgecv.quantize.sessions import open_graph

_INT8_OPS = frozenset({"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm"})
_FLOAT_CONVS = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose")
_FLOAT_PRODUCTS = ("Gemm", "MatMul", "FusedMatMul", "FusedGemm")


@dataclass(frozen=True, slots=True)
class Coverage:
    """Nodes of the optimized graph by the arithmetic they run in.

    Attributes:
        conv_int8: Convolutions in an int8 kernel.
        conv_float: Convolutions left in float.
        matmul_int8: Matrix products in an int8 kernel.
        matmul_float: Matrix products left in float; those of attention, which have no weights, are among them.
        other_int8: Further nodes in an int8 kernel (QLinearAdd, QLinearConcat, …).
        quantize: QuantizeLinear nodes left.
        dequantize: DequantizeLinear nodes left.
    """

    conv_int8: int
    conv_float: int
    matmul_int8: int
    matmul_float: int
    other_int8: int
    quantize: int
    dequantize: int

    def as_dict(self) -> dict[str, int]:
        """Return the counts under their names."""
        return asdict(self)


def measure_coverage(model: ir.Model) -> Coverage:
    """Load ``model`` in ONNX Runtime's CPU provider and count the nodes it ends up with.

    Raises:
        UsageError: ONNX Runtime refuses the model.
    """
    counts = optimized_operators(model)
    convs_int8 = counts["QLinearConv"] + counts["ConvInteger"]
    products_int8 = counts["QLinearMatMul"] + sum(counts[o] for o in _INT8_OPS - {"ConvInteger"})
    linear = sum(n for op, n in counts.items() if op.startswith("QLinear"))
    return Coverage(
        conv_int8=convs_int8,
        conv_float=sum(counts[o] for o in _FLOAT_CONVS),
        matmul_int8=products_int8,
        matmul_float=sum(counts[o] for o in _FLOAT_PRODUCTS),
        other_int8=linear - counts["QLinearConv"] - counts["QLinearMatMul"],
        quantize=counts["QuantizeLinear"],
        dequantize=counts["DequantizeLinear"],
    )


def optimized_operators(model: ir.Model) -> Counter[str]:
    """Return how often each operator occurs after ONNX Runtime's extended optimizations (before layout changes).

    Raises:
        UsageError: ONNX Runtime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        path = Path(folder) / "optimized.onnx"
        open_graph(model, save_optimized=path)
        return Counter(node.op_type for node in ir.load(path).graph.all_nodes())
