import numpy as np
import onnx_ir as ir
from small_graphs import MANIFEST, images, residual_model, run, sqnr_db

from edgecv.config.device import FULL_RANGE
from edgecv.quantize.static import quantize_static
from edgecv.quantize.wide import quantize_wide

DATA = images(32)
OTHERS = images(32, seed=5)


def test_sixteen_bits_lose_what_the_weights_lose_and_no_more() -> None:
    model = residual_model(w3=np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1))
    reference = run(model, OTHERS)
    wide = quantize_wide(model, MANIFEST, lambda: iter([DATA])).model
    narrow = quantize_static(model, MANIFEST, lambda: iter([DATA]), scheme=FULL_RANGE).model
    assert sqnr_db(reference, run(wide, OTHERS)) > sqnr_db(reference, run(narrow, OTHERS)) + 2


def test_activations_are_uint16_and_weights_int8() -> None:
    quantized = quantize_wide(residual_model(), MANIFEST, lambda: iter([DATA]))
    zeros = {n.op_type: set[ir.DataType]() for n in quantized.model.graph}
    for node in quantized.model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) > 2:
            zeros[node.op_type].add(node.inputs[2].dtype)  # type: ignore[union-attr, arg-type]
    assert zeros["QuantizeLinear"] == {ir.DataType.UINT16}
    assert zeros["DequantizeLinear"] == {ir.DataType.UINT16, ir.DataType.INT8}
    assert quantized.model.opset_imports[""] >= 21
    assert quantized.summary["settings"]["activations"] == "uint16"


def test_it_says_that_the_cpu_runs_it_in_float() -> None:
    summary = quantize_wide(residual_model(), MANIFEST, lambda: iter([DATA])).summary
    assert summary["coverage"]["conv_int8"] == 0
    assert "4 layers run in float" in summary["notes"][0]
