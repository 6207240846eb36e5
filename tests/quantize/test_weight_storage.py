import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import images, residual_model, run, small_model

from edgecv.graph.opset import set_lowest_ir_version
from edgecv.graph.values import constant_array
from edgecv.quantize.coverage import optimized_operators
from edgecv.quantize.weight_storage import decode_int4, int4_block, store_float16, store_int4, store_int8
from edgecv.quantize.weights import decode_weight, quantize_weight

TEST = images(8, seed=3)
PRODUCT = "f = Flatten(image) y = Gemm(f, v, b)"
TRANSPOSED = "f = Flatten(image) y = Gemm<transB=1>(f, v, b)"


def replaced(model: ir.Model, node: str, weight: np.ndarray) -> ir.Model:
    """Return the model with the weight of ``node`` replaced by float32 numbers."""
    copy = model.clone()
    value = next(n for n in copy.graph if n.name == node).inputs[1]
    assert value is not None
    value.const_value = ir.tensor(weight, name=value.name)
    return copy


def layer(model: ir.Model, name: str) -> tuple[ir.Node, np.ndarray]:
    node = next(n for n in model.graph if n.name == name)
    weight = constant_array(node.inputs[1])
    assert weight is not None
    return node, weight


def test_int8_weights_are_unpacked_to_what_their_codes_stand_for() -> None:
    model = residual_model()
    node, weight = layer(model, "Conv_4")
    quantized = quantize_weight(weight, 0)
    expected = run(replaced(model, "Conv_4", decode_weight(quantized)), TEST)
    store_int8(model.graph, node, quantized)
    np.testing.assert_array_equal(run(model, TEST), expected)


@pytest.mark.parametrize(("body", "shape", "axis"), [(PRODUCT, (432, 5), 1), (TRANSPOSED, (5, 432), 0)])
def test_int4_weights_are_unpacked_to_what_their_codes_stand_for(body: str, shape: tuple[int, int], axis: int) -> None:
    model = small_model(body, {"v": shape, "b": (5,)}, opset=21)
    set_lowest_ir_version(model)
    node, weight = layer(model, "Gemm_1")
    decoded = decode_int4(weight, axis)
    assert np.abs(decoded - weight).max() < np.abs(weight).max() / 10
    expected = run(replaced(model, "Gemm_1", decoded), TEST)
    store_int4(model.graph, node, axis)
    np.testing.assert_allclose(run(model, TEST), expected, rtol=1e-6)
    assert {v.dtype for v in model.graph.initializers.values()} >= {ir.DataType.INT4, ir.DataType.FLOAT16}


def test_every_block_of_32_weights_has_its_own_four_bit_scale() -> None:
    weight = np.ones((4, 64, 1, 1), np.float32)
    weight[:, 32:] = 1e-3
    np.testing.assert_allclose(decode_int4(weight, 0), weight, rtol=1e-2)


def test_float16_weights_are_unpacked() -> None:
    model = residual_model()
    node, weight = layer(model, "Conv_4")
    expected = run(replaced(model, "Conv_4", weight.astype(np.float16).astype(np.float32)), TEST)
    store_float16(model.graph, node)
    np.testing.assert_array_equal(run(model, TEST), expected)


@pytest.mark.parametrize(
    ("shape", "axis", "block"),
    [
        ((8, 64, 1, 1), 0, 32),
        ((8, 3, 3, 3), 0, 27),
        ((8, 1, 3, 3), 0, 0),
        ((8, 37), 0, 0),
        ((192, 10), 1, 32),
        ((8, 8, 2, 2), 1, 0),
    ],
)
def test_blocks_divide_a_channel_evenly_or_are_refused(shape: tuple[int, ...], axis: int, block: int) -> None:
    assert int4_block(np.ones(shape, np.float32), axis) == block


def test_weights_whose_scale_leaves_float16_are_no_use_in_four_bits() -> None:
    assert int4_block(np.full((8, 64), 1e6, np.float32), 0) == 0


def test_onnx_runtime_unpacks_once_and_runs_the_float_graph() -> None:
    model = small_model("a = Conv(image, w, b) r = Relu(a) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, v)",
                        {"w": (16, 3, 3, 3), "b": (16,), "v": (16, 32)}, opset=21)  # fmt: skip
    set_lowest_ir_version(model)
    float_operators = optimized_operators(model)
    store_int8(model.graph, layer(model, "Conv_0")[0], quantize_weight(layer(model, "Conv_0")[1], 0))
    store_int4(model.graph, layer(model, "Gemm_4")[0], 1)
    assert optimized_operators(model) == float_operators
