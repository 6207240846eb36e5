import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import residual_model, small_model

from edgecv.quantize.placement import Placement, place_quantizers

SCALARS: dict[str, object] = {
    "zero": np.array(0, np.float32),
    "one": np.array(1, np.float32),
    "six": np.array(6, np.float32),
}


def place(body: str, shapes: dict[str, object], *exclude: str) -> Placement:
    return place_quantizers(small_model(body, shapes | SCALARS), exclude)


def test_a_mobile_network_is_quantized_whole_with_one_quantizer_for_conv_and_activation() -> None:
    placement = place_quantizers(residual_model())
    assert placement.layers == ("Conv_0", "Conv_2", "Conv_4", "Gemm_9")
    assert placement.others == ("Add_5", "MaxPool_6", "GlobalAveragePool_7", "Flatten_8")
    assert placement.tensors == ("image", "low", "r", "e", "s", "p", "g", "f")  # neither a, d nor the logits y
    assert placement.shared == {"p": "s", "f": "g"}
    assert placement.from_input == ("image",)
    assert placement.observed == ("low", "r", "e", "s", "g")
    assert placement.kept_float == {}


def test_an_excluded_layer_is_kept_and_named() -> None:
    placement = place_quantizers(residual_model(), ["Conv_2"])
    assert "Conv_2" not in placement.layers
    assert placement.kept_float == {"Conv_2": "excluded by the user"}
    assert "r" in placement.tensors  # the next convolution reads it in int8
    assert "r" not in placement.written


def test_a_clip_that_does_not_start_at_zero_is_not_fused() -> None:
    body = "a = Conv(image, w, b) c = Clip(a, low, one) d = Conv(c, v, b) g = GlobalAveragePool(d) y = Flatten(g)"
    shapes = {"w": (3, 3, 1, 1), "v": (3, 3, 1, 1), "b": (3,), "low": np.array(-1, np.float32)}
    assert {"a", "c"} <= set(place(body, shapes).tensors)


def test_logits_stay_float_and_so_does_what_writes_them() -> None:
    placement = place(
        "a = Conv(image, w, b) d = Conv(a, v, b) y = Flatten(d)", {"w": (3, 3, 1, 1), "v": (3, 3, 1, 1), "b": (3,)}
    )
    assert placement.layers == ("Conv_0",)
    assert placement.kept_float == {"Conv_1": "it writes the network's output"}


def test_a_transformer_block_gets_its_weight_products_in_int8_and_nothing_else() -> None:
    body = """
        t = Reshape(image, tokens)
        n = LayerNormalization<axis=-1>(t, gamma, beta)
        q = MatMul(n, wq)  qb = Add(q, bq)
        k = MatMul(n, wk)
        kt = Transpose<perm=[0,2,1]>(k)
        s = MatMul(qb, kt)
        p = Softmax(s)
        o = MatMul(p, k)
        r = Add(o, t)
        h = MatMul(r, wh)
        y = ReduceMean<keepdims=0>(h, axes)
    """
    shapes: dict[str, object] = {
        "tokens": np.array([0, 9, 48]), "gamma": (48,), "beta": (48,), "wq": (48, 48), "bq": (48,), "wk": (48, 48),
        "wh": (48, 5), "axes": np.array([1]),
    }  # fmt: skip
    placement = place(body, shapes)
    assert placement.layers == ("MatMul_2", "MatMul_4", "MatMul_10")
    assert placement.others == ()
    assert placement.tensors == ("n", "r")


def test_a_gate_is_quantized_but_hard_swish_is_multiplied_in_float() -> None:
    body = """
        a = Conv(image, w, b)
        hs = HardSigmoid(a)  act = Mul(a, hs)
        x = Conv(act, w, b)
        g = GlobalAveragePool(x)  c = Conv(g, w, b)  gate = HardSigmoid(c)
        m = Mul(x, gate)
        z = Conv(m, w, b)
        pool = GlobalAveragePool(z)  f = Flatten(pool)  y = Gemm(f, v)
    """
    placement = place(body, {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5)})
    assert "Mul_2" not in placement.others
    assert "Mul_7" in placement.others


def test_swish_is_int8() -> None:
    body = (
        "a = Conv(image, w, b) s = Sigmoid(a) m = Mul(a, s) c = Conv(m, w, b) g = GlobalAveragePool(c) y = Flatten(g)"
    )
    assert {"Sigmoid_1", "Mul_2"} <= set(place(body, {"w": (3, 3, 1, 1), "b": (3,)}).others)


def test_an_add_whose_sum_only_float_nodes_read_stays_float() -> None:
    body = (
        "a = Conv(image, w, b) c = Conv(image, v, b) s = Add(a, c) e = Exp(s) g = GlobalAveragePool(e) y = Flatten(g)"
    )
    assert place(body, {"w": (3, 3, 1, 1), "v": (3, 3, 1, 1), "b": (3,)}).others == ()


@pytest.mark.parametrize(
    ("constant", "int8"), [(np.array(0.2, np.float32), True), (np.ones((1, 3, 1, 1), np.float32), False)]
)
def test_only_a_constant_of_one_number_is_multiplied_in_int8(constant: np.ndarray, int8: bool) -> None:
    body = "a = Conv(image, w, b) m = Mul(a, k) c = Conv(m, w, b) g = GlobalAveragePool(c) y = Flatten(g)"
    assert ("Mul_1" in place(body, {"w": (3, 3, 1, 1), "b": (3,), "k": constant}).others) is int8


@pytest.mark.parametrize(
    ("body", "shapes", "reason"),
    [
        ("f = Flatten(image) y = Gemm<alpha=2.0>(f, w)", {"w": (432, 5)}, "alpha"),
        ("a = ConvTranspose(image, w) g = GlobalAveragePool(a) y = Flatten(g)", {"w": (3, 3, 1, 1)}, "no int8 kernel"),
        ("y = MatMul(image, w)", {"w": (2, 3, 12, 5)}, "4 dimensions"),
    ],
)
def test_a_layer_without_an_int8_kernel_is_kept_with_the_reason(
    body: str, shapes: dict[str, object], reason: str
) -> None:
    placement = place(body, shapes)
    assert placement.layers == ()
    (why,) = placement.kept_float.values()
    assert reason in why


def test_the_normalised_image_is_recognised_behind_its_preprocessing() -> None:
    body = (
        "i = Mul(image, one) n = Sub(i, six) a = Conv(n, w, b) g = GlobalAveragePool(a) f = Flatten(g) y = Gemm(f, v)"
    )
    placement = place(body, {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5)})
    assert placement.from_input == ("n",)


def test_a_branch_squared_is_not_taken_for_the_image() -> None:
    body = "n = Mul(image, image) a = Conv(n, w, b) g = GlobalAveragePool(a) f = Flatten(g) y = Gemm(f, v)"
    assert place(body, {"w": (3, 3, 1, 1), "b": (3,), "v": (3, 5)}).from_input == ()


def test_the_model_is_not_changed() -> None:
    model = residual_model()
    before = ir.to_proto(model).SerializeToString()
    place_quantizers(model)
    assert ir.to_proto(model).SerializeToString() == before
