from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import images, run, small_model

from edgecv.graph.gelu import order_gelu
from edgecv.quantize.coverage import optimized_operators

HALF, ONE = np.array(0.5, np.float32), np.array(1, np.float32)
ROOT, INVERSE = np.array(2**0.5, np.float32), np.array(0.5**0.5, np.float32)


def gelu_model(scale: str = "d = Div(c, root)", half: np.ndarray = HALF) -> ir.Model:
    body = f"""
        c = Conv(image, w, b) {scale} e = Erf(d) s = Add(e, one) t = Mul(half, s) u = Mul(c, t)
        g = GlobalAveragePool(u) y = Flatten(g)
    """
    held: dict[str, object] = {"one": ONE, "half": half, "root": ROOT, "inverse": INVERSE}
    used = {k: v for k, v in held.items() if k != ("root" if "inverse" in scale else "inverse")}
    return small_model(body, {"w": (8, 3, 3, 3), "b": (8,), **used})


def count(model: ir.Model) -> Counter[str]:
    return optimized_operators(model)


def test_the_exporters_gelu_becomes_one_operator_with_the_same_answer() -> None:
    model = gelu_model()
    before = run(model, images())
    assert count(model)["Gelu"] == 0
    assert order_gelu(model) == 1
    assert (count(model)["Gelu"], count(model)["Erf"]) == (1, 0)
    np.testing.assert_allclose(run(model, images()), before, atol=1e-6)
    assert order_gelu(model) == 0


def test_a_product_with_the_inverse_root_is_recognised() -> None:
    model = gelu_model("d = Mul(c, inverse)")
    before = run(model, images())
    assert order_gelu(model) == 1
    np.testing.assert_allclose(run(model, images()), before, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [gelu_model(half=np.array(0.25, np.float32)), gelu_model("d = Div(image, root)")],
    ids=["another factor", "another argument"],
)
def test_what_only_looks_like_a_gelu_stays(model: ir.Model) -> None:
    assert order_gelu(model) == 0
