import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.errors import UsageError
from edgecv.graph.opset import default_opset
from edgecv.quantize import weight_only
from edgecv.quantize.static import quantize_static
from edgecv.quantize.weight_only import store_weights

DATA = images(8)
TEST = images(32, seed=3)
WEIGHTS: dict[str, object] = {"w": (64, 3, 3, 3), "b": (64,), "w2": (64, 64, 1, 1), "b2": (64,), "v": (64, 32)}
BODY = """
    a = Conv(image, w, b) r = Relu(a) c = Conv(r, w2, b2) d = Relu(c)
    g = GlobalAveragePool(d) f = Flatten(g) y = Gemm(f, v)
"""


def network() -> ir.Model:
    return small_model(BODY, WEIGHTS)


def size(model: ir.Model) -> int:
    return len(ir.to_proto(model).SerializeToString())


@pytest.mark.parametrize(("bits", "smaller", "sqnr"), [(16, 1.9, 55), (8, 3.0, 38), (4, 4.0, 14)])
def test_fewer_bits_make_a_smaller_file_with_near_answers(bits: int, smaller: float, sqnr: float) -> None:
    model = network()
    found = store_weights(model, MANIFEST, lambda: iter([DATA]), bits=bits)
    assert size(model) / size(found.model) > smaller
    assert sqnr_db(run(model, TEST), run(found.model, TEST)) > sqnr
    assert found.summary["compared"]["n"] == len(DATA)
    assert found.summary["coverage"]["dequantize"] == 0
    assert found.summary["layers"] == 3


def test_the_report_says_that_nothing_gets_faster() -> None:
    assert (
        "takes the time and memory of the float32 one" in store_weights(network(), MANIFEST, bits=8).summary["notes"][0]
    )


def test_a_layer_that_four_bits_would_ruin_keeps_eight() -> None:
    weight = np.float32(np.random.default_rng(0).standard_normal((64, 64, 1, 1)) * 0.01)
    weight[:, 0] = 30.0  # the block of this weight has room for nothing else
    weight[:, 1:32] = 2.0
    model = small_model(BODY, WEIGHTS | {"w2": weight})
    found = store_weights(model, MANIFEST, lambda: iter([DATA]), bits=4)
    assert "four bits alone would leave" in found.summary["kept_int8"].get("Conv_2", "")
    assert {v.dtype for v in found.model.graph.initializers.values()} >= {ir.DataType.INT8, ir.DataType.INT4}


def test_no_room_for_error_leaves_every_layer_in_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_only, "INT4_ERROR", 0.0)
    found = store_weights(network(), MANIFEST, lambda: iter([DATA]), bits=4)
    assert ir.DataType.INT4 not in {v.dtype for v in found.model.graph.initializers.values()}
    assert len(found.summary["kept_int8"]) == 3


def test_four_bits_without_images_and_other_bits_are_refused() -> None:
    with pytest.raises(UsageError, match="four-bit weights need images"):
        store_weights(network(), MANIFEST, bits=4)
    with pytest.raises(UsageError, match="16, 8 or 4 bits, not 2"):
        store_weights(network(), MANIFEST, bits=2)


def test_only_four_bits_ask_for_a_new_opset() -> None:
    assert default_opset(store_weights(network(), MANIFEST, bits=8).model) == 18
    assert default_opset(store_weights(network(), MANIFEST, lambda: iter([DATA]), bits=4).model) == 21


def test_small_weights_and_excluded_layers_stay_as_they_are() -> None:
    found = store_weights(network(), MANIFEST, bits=8, exclude=("Conv_2",))
    assert found.summary["kept_float"] == {"Conv_2": "excluded by the user"}
    assert found.summary["layers"] == 2
    with pytest.raises(UsageError, match="no weights to store"):
        store_weights(residual_model(w1=np.zeros((8, 3, 1, 1), np.float32)), MANIFEST, bits=8)


def test_a_weight_beyond_float16_stays_float32() -> None:
    found = store_weights(small_model(BODY, WEIGHTS | {"v": np.full((64, 32), 1e6, np.float32)}), MANIFEST, bits=16)
    assert found.summary["kept_float"] == {"Gemm_6": "weight of 1e+06"}


def test_stored_weights_are_not_quantized_again() -> None:
    stored = store_weights(network(), MANIFEST, bits=8).model
    with pytest.raises(UsageError, match=r"its weights are stored as int8.*quantize the float model it was made from"):
        quantize_static(stored, MANIFEST, lambda: iter([DATA]))


def test_same_input_same_bytes_and_the_input_is_not_changed() -> None:
    model = network()
    before = ir.to_proto(model).SerializeToString()
    first, second = (ir.to_proto(store_weights(model, MANIFEST, lambda: iter([DATA]), bits=4).model) for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()
    assert ir.to_proto(model).SerializeToString() == before
