import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.quantize import insert
from edgecv.quantize.static import quantize_static

DATA = images(32)
TEST = images(64, seed=9)


def quantized(model: ir.Model, **options: object) -> ir.Model:
    return quantize_static(model, MANIFEST, lambda: iter([DATA]), **options).model  # type: ignore[arg-type]


def test_the_file_is_valid_and_weights_and_biases_are_stored_as_integers() -> None:
    model = quantized(residual_model())
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    kinds = {v.const_value.dtype for v in model.graph.initializers.values() if v.const_value is not None}
    large = {
        n
        for n, v in model.graph.initializers.items()
        if v.const_value.dtype == ir.DataType.FLOAT and v.const_value.size > 8
    }  # type: ignore[union-attr]
    assert kinds == {ir.DataType.INT8, ir.DataType.INT32, ir.DataType.UINT8, ir.DataType.FLOAT}
    assert not large, "float weights were left in the file"


def test_the_copy_of_a_tensor_is_named_dequantized() -> None:
    names = [o.name for node in quantized(residual_model()).graph for o in node.outputs]
    assert {"image_dequantized", "low_dequantized", "s_dequantized"} <= set(names)
    assert "a_dequantized" not in names


def test_tensors_that_only_move_share_one_scale() -> None:
    model = quantized(residual_model())
    scales = {n.outputs[0].name: n.inputs[1].name for n in model.graph if n.op_type == "QuantizeLinear"}  # type: ignore[union-attr]
    assert scales["p_quantized"] == scales["s_quantized"]
    assert scales["f_quantized"] == scales["g_quantized"]


def test_same_input_same_bytes() -> None:
    first, second = (ir.to_proto(quantized(residual_model())).SerializeToString() for _ in range(2))
    assert first == second


def one_huge_weight() -> dict[str, np.ndarray]:
    """A depthwise layer with a huge weight on a channel that is always zero: one scale for the tensor ruins it."""
    rng = np.random.default_rng(0)
    first, bias = (rng.standard_normal((8, 3, 3, 3)) * 0.3).astype(np.float32), np.full(8, 0.2, np.float32)
    first[7], bias[7] = 0, 0
    second = (rng.standard_normal((8, 1, 3, 3)) * 0.3).astype(np.float32)
    second[7] = 50
    return {"w1": first, "b1": bias, "w2": second}


def test_an_excluded_layer_keeps_its_float_weights_inside_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    float_model = residual_model(**one_huge_weight())
    reference = run(float_model, TEST)
    model = quantized(float_model, exclude=("Conv_2",))
    without = run(model, TEST, without=("WeightBiasQuantization",))
    np.testing.assert_array_equal(run(model, TEST), without)
    monkeypatch.setattr(insert, "_shield_float_layers", lambda graph, layers: 0)
    exposed = quantized(float_model, exclude=("Conv_2",))
    assert sqnr_db(reference, run(exposed, TEST)) < sqnr_db(reference, run(model, TEST)) - 5


def test_an_excluded_layer_behind_a_transpose_is_shielded_too() -> None:
    body = """
        a = Conv(image, w, b)
        t = Transpose<perm=[0,1,3,2]>(a)
        c = Conv(t, v, b)
        u = Transpose<perm=[0,1,3,2]>(c)
        d = Conv(u, w, b)
        g = GlobalAveragePool(d) f = Flatten(g) y = Gemm(f, k)
    """
    weight = np.float32(
        np.random.default_rng(0).standard_normal((3, 3, 1, 1)) * np.logspace(-3, 0, 3).reshape(-1, 1, 1, 1)
    )
    shapes: dict[str, object] = {"w": (3, 3, 1, 1), "v": weight, "b": (3,), "k": (3, 5)}
    model = quantized(small_model(body, shapes), exclude=("Conv_2",))
    np.testing.assert_array_equal(run(model, TEST), run(model, TEST, without=("WeightBiasQuantization",)))


@pytest.mark.parametrize("number", [0.2, -1.5, 0.0, 3e4])
def test_a_constant_of_one_number_is_held_exactly(number: float) -> None:
    body = """
        a = Conv(image, w, b) m = Mul(a, k) s = Add(m, k) c = Conv(s, w, b)
        g = GlobalAveragePool(c) f = Flatten(g) y = Gemm(f, v)
    """
    model = quantized(
        small_model(body, {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5), "k": np.array(number, np.float32)}), rewrites=()
    )
    constants = [n for n in model.graph if n.op_type == "DequantizeLinear" and str(n.outputs[0].name).startswith("k_")]
    assert len(constants) == 2
    for node in constants:
        code, scale, zero = (v.const_value.numpy().astype(np.float64) for v in node.inputs)  # type: ignore[union-attr]
        assert (code - zero) * scale == np.float32(number)


def test_two_layers_may_share_a_weight_and_a_value_may_have_a_taken_name() -> None:
    body = """
        a = Conv(image, w, b)
        image_dequantized = Relu(a)
        c = Conv(image_dequantized, w, b)
        g = GlobalAveragePool(c) f = Flatten(g) y = Gemm(f, v)
    """
    float_model = small_model(body, {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5)})
    assert sqnr_db(run(float_model, TEST), run(quantized(float_model), TEST)) > 20
