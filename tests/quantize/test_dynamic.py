import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import images, residual_model, run, small_model, sqnr_db

from edgecv.errors import UsageError
from edgecv.quantize.dynamic import quantize_dynamic

TEST = images(32, seed=3)


def test_weights_are_int8_and_the_answers_near() -> None:
    model = residual_model()
    found = quantize_dynamic(model)
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > 30
    dtypes = {n.inputs[1].name: n.inputs[1].producer() for n in found.model.graph if n.op_type == "Conv"}  # type: ignore[union-attr]
    assert len(dtypes) == 3
    assert all(producer is not None and producer.op_type == "Mul" for producer in dtypes.values())
    assert found.summary["coverage"]["dequantize"] == 0


def test_the_summary_says_that_convolutions_gain_no_speed() -> None:
    assert "convolutions gain size, not speed" in quantize_dynamic(residual_model()).summary["notes"][0]


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("f = Flatten(image) y = Gemm(f, v, b)", (432, 5)),
        ("f = Flatten(image) y = Gemm<transB=1>(f, v, b)", (5, 432)),
        ("f = Flatten(image) h = MatMul(f, v) y = Add(h, b)", (432, 5)),
    ],
)
def test_a_product_runs_in_int8_inside_onnx_runtime(body: str, shape: tuple[int, int]) -> None:
    model = small_model(body, {"v": shape, "b": (5,)})
    found = quantize_dynamic(model)
    assert found.summary["coverage"]["matmul_int8"] == 1
    assert found.summary["coverage"]["matmul_float"] == 0
    assert found.summary["notes"] == []
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > 30


def test_two_products_of_one_tensor_measure_it_once() -> None:
    body = "f = Flatten(image) a = MatMul(f, v) c = MatMul(f, w) y = Add(a, c)"
    model = quantize_dynamic(small_model(body, {"v": (432, 5), "w": (432, 5)})).model
    assert sum(n.op_type == "DynamicQuantizeLinear" for n in model.graph) == 1


def test_same_input_same_bytes_and_the_input_is_not_changed() -> None:
    model = residual_model()
    before = ir.to_proto(model).SerializeToString()
    first, second = (ir.to_proto(quantize_dynamic(model).model).SerializeToString() for _ in range(2))
    assert first == second
    assert ir.to_proto(model).SerializeToString() == before


def test_excluded_and_unknown_nodes() -> None:
    found = quantize_dynamic(residual_model(), exclude=("Gemm_9",))
    assert found.summary["kept_float"] == {"Gemm_9": "excluded by the user"}
    with pytest.raises(UsageError, match="no node or layer 'gemm'"):
        quantize_dynamic(residual_model(), exclude=("gemm",))


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="no layer to quantize"):
        quantize_dynamic(small_model("y = Flatten(image)", {}))


def test_constants_that_are_no_weights_are_left_alone() -> None:
    model = small_model("m = Mul(image, k) f = Flatten(m) y = Gemm(f, v)", {"k": np.float32([2.0]), "v": (432, 5)})
    assert sqnr_db(run(model, TEST), run(quantize_dynamic(model).model, TEST)) > 30
