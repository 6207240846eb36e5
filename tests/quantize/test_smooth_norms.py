import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, run, small_model, sqnr_db

from edgecv.quantize.smooth_norms import LARGEST_FACTOR, smooth_norms
from edgecv.quantize.static import quantize_static

DATA = images(16)
TEST = images(16, seed=9)

OUTLYING = np.ones(48, np.float32)
OUTLYING[[3, 20]] = 40.0  # two channels forty times as large as the others, as trained transformers have them
SHAPES: dict[str, object] = {
    "tokens": np.array([0, 9, 48]), "gamma": OUTLYING, "beta": (48,), "axes": np.array([1]),
    "w1": np.float32(np.random.default_rng(1).standard_normal((48, 32)) / OUTLYING[:, None] * 0.3),
    "w2": np.float32(np.random.default_rng(2).standard_normal((48, 32)) / OUTLYING[:, None] * 0.3),
    "b": (32,), "w3": (32, 5),
}  # fmt: skip
TAIL = "h = Add(p, q) e = Erf(h) r = ReduceMean<keepdims=0>(e, axes) y = MatMul(r, w3)"
NORM = f"""
    t = Reshape(image, tokens) n = LayerNormalization<axis=-1>(t, gamma, beta)
    p0 = MatMul(n, w1) p = Add(p0, b) q = MatMul(n, w2) {TAIL}
"""
WRITTEN_OUT = f"""
    t = Reshape(image, tokens) m = Mul(t, gamma) n = Add(m, beta)
    p0 = MatMul(n, w1) p = Add(p0, b) q = MatMul(n, w2) {TAIL}
"""


@pytest.mark.parametrize("body", [NORM, WRITTEN_OUT])
def test_the_answers_stay_and_int8_comes_nearer_to_them(body: str) -> None:
    model = small_model(body, SHAPES)
    reference = run(model, TEST)
    smoothed = small_model(body, SHAPES)
    assert smooth_norms(smoothed, DATA) == 1
    assert sqnr_db(reference, run(smoothed, TEST)) > 100
    errors = {}
    for rewrites in ((), ("smooth_norms",)):
        found = quantize_static(model, MANIFEST, lambda: iter([DATA]), ranges="minmax", rewrites=rewrites)
        errors[rewrites] = sqnr_db(reference, run(found.model, TEST))
    assert errors["smooth_norms",] > errors[()] + 6


def test_it_is_applied_by_default_and_reported() -> None:
    found = quantize_static(small_model(NORM, SHAPES), MANIFEST, lambda: iter([DATA]))
    assert [r["kept"] for r in found.summary["rewrites"] if r["name"] == "smooth_norms"] == [True]


def test_every_reader_gets_the_factors_and_a_shared_weight_is_not_scaled_twice() -> None:
    body = NORM.replace("q = MatMul(n, w2)", "q0 = MatMul(n, w1) q = Add(q0, b)")
    model = small_model(body, SHAPES)
    reference = run(model, TEST)
    assert smooth_norms(model, DATA) == 1
    assert sqnr_db(reference, run(model, TEST)) > 100


def test_a_transposed_gemm_is_scaled_along_its_other_dimension() -> None:
    body = """
        f = Flatten(image) m = Mul(f, gamma) n = Add(m, beta) y = Gemm<transB=1>(n, w)
    """
    gamma = np.ones(432, np.float32)
    gamma[7] = 50.0
    model = small_model(body, {"gamma": gamma, "beta": (432,), "w": (5, 432)})
    reference = run(model, TEST)
    assert smooth_norms(model, DATA) == 1
    assert sqnr_db(reference, run(model, TEST)) > 100


@pytest.mark.parametrize(
    "read_too", ["x = Relu(n)", "x = MatMul(image, n)"], ids=["by an activation", "as the second factor"]
)
def test_a_norm_that_anything_else_reads_is_left_alone(read_too: str) -> None:
    body = f"""
        t = Reshape(image, tokens) n = LayerNormalization<axis=-1>(t, gamma, beta) {read_too}
        q = MatMul(n, w1) r = ReduceMean<keepdims=0>(q, axes) y = MatMul(r, w3)
    """
    assert smooth_norms(small_model(body, SHAPES), DATA) == 0


def test_no_channel_is_scaled_further_than_the_limit() -> None:
    weight = np.float32(np.random.default_rng(1).standard_normal((48, 32)))
    weight[5] *= 1e-6
    model = small_model(NORM, SHAPES | {"w1": weight, "w2": weight})
    before = model.graph.initializers["gamma"].const_value.numpy()  # type: ignore[union-attr]
    assert smooth_norms(model, DATA) == 1
    node = next(n for n in model.graph if n.op_type == "LayerNormalization")
    after = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    ratio = np.abs(after / before)
    assert ratio.max() <= LARGEST_FACTOR * 1.001
    assert ratio.min() >= 1 / LARGEST_FACTOR / 1.001


def test_same_input_same_bytes() -> None:
    def written() -> bytes:
        model = small_model(NORM, SHAPES)
        smooth_norms(model, DATA)
        return bytes(ir.to_proto(model).SerializeToString())

    assert written() == written()
