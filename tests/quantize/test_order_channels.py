"""Channels reordered so that few neighbouring weights are large together."""

import numpy as np
import pytest
from onnx_ir.passes import common
from small_graphs import RESIDUAL, RESIDUAL_WEIGHTS, images, run, small_model

from edgecv.graph.values import constant_array
from edgecv.quantize.order_channels import order_channels
from edgecv.quantize.pair_sums import kernel_rows, pair_sums
from edgecv.quantize.weights import quantize_weight

EXPAND = """
    a = Conv(image, w1, b1)
    s = HardSwish(a)
    d = Conv<pads=[1,1,1,1], group=16>(s, w2, b2)
    r = Clip(d, zero, six)
    p = GlobalAveragePool(r)
    q = Conv(p, w3)
    t = Sigmoid(q)
    m = Mul(r, t)
    e = Conv(m, w4, b4)
    g = GlobalAveragePool(e)
    f = Flatten(g)
    y = Gemm<transB=1>(f, w5, b5)
"""


def large_neighbours(rows: int, channels: int) -> np.ndarray:
    """Return a 1x1 weight with two neighbours large together in every row."""
    weight = np.zeros((rows, channels, 1, 1), np.float32)
    for row in range(rows):
        left = 2 * row % channels
        weight[row, left : left + 2] = 1
    return weight


def weights() -> dict[str, object]:
    """Weights of EXPAND: only the narrow layer has pairs at risk."""
    one_each = np.eye(16, dtype=np.float32)[:, :, None, None]
    return {
        "w1": (16, 3, 1, 1), "b1": (16,), "w2": (16, 1, 3, 3), "b2": (16,), "w3": one_each,
        "w4": large_neighbours(6, 16),
        "b4": (6,), "w5": (5, 6), "b5": (5,), "zero": np.array(0, np.float32), "six": np.array(6, np.float32),
    }  # fmt: skip


def pairs_at_risk(model, name: str) -> int:
    node = next(n for n in model.graph if n.name == name)
    quantized = quantize_weight(constant_array(node.inputs[1]), 0)
    return int((np.abs(pair_sums(kernel_rows(quantized.codes, 0))) > 128).sum())


def test_large_neighbours_are_parted_and_the_network_answers_as_before():
    model = small_model(EXPAND, weights())
    ordered = model.clone()
    assert pairs_at_risk(model, "Conv_8") == 6
    assert order_channels(ordered) >= 1
    assert pairs_at_risk(ordered, "Conv_8") == 0
    expected = run(model, images())
    assert np.abs(run(ordered, images()) - expected).max() < 1e-5 * expected.std()
    assert list(ordered.graph.initializers) == list(model.graph.initializers)


def test_nothing_is_reordered_twice_or_for_nothing():
    ordered = small_model(EXPAND, weights())
    order_channels(ordered)
    assert order_channels(ordered) == 0
    one_each = {"w4": np.eye(6, 16, dtype=np.float32)[:, :, None, None], "w5": np.eye(5, 6, dtype=np.float32)}
    assert order_channels(small_model(EXPAND, weights() | one_each)) == 0


def test_a_residual_stream_is_ordered_as_one():
    values = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "b2": (16,), "b3": (16,)}
    values["w4"] = np.eye(5, 16, dtype=np.float32)
    model = small_model(
        RESIDUAL.replace("group=8", "group=16"), RESIDUAL_WEIGHTS | values | {"w3": large_neighbours(16, 16)}
    )
    common.ShapeInferencePass()(model)  # what is flattened has one value per channel
    ordered = model.clone()
    assert pairs_at_risk(model, "Conv_4") >= 8
    assert order_channels(ordered) == 1
    assert pairs_at_risk(ordered, "Conv_4") == 0
    expected = run(model, images())
    assert np.abs(run(ordered, images()) - expected).max() < 1e-5 * expected.std()


@pytest.mark.parametrize(
    "between",
    ["x = Concat<axis=1>(low, low)", "x = LRN<size=3>(low)", "x = Add(low, vector)",
     "x = Transpose<perm=[0,1,3,2]>(low)", "x = Softmax<axis=1>(low)"],
)  # fmt: skip
def test_channels_that_meet_another_operator_stay_in_their_order(between):
    body = f"""
        a = Conv(image, w1)
        low = Relu(a)
        {between}
        e = Conv(x, w2)
        g = GlobalAveragePool(e)
        y = Flatten(g)
    """
    wide = 16 if "Concat" in between else 8
    large = np.ones((4, wide, 1, 1), np.float32) * np.linspace(0.1, 1, wide, dtype=np.float32).reshape(1, -1, 1, 1)
    values = {"w1": (8, 3, 1, 1), "w2": large, "vector": (8, 1, 1)}
    assert order_channels(small_model(body, values)) == 0


def test_an_odd_number_of_channels_is_left_alone():
    body = "a = Conv(image, w1)\n r = Relu(a)\n e = Conv(r, w2)\n g = GlobalAveragePool(e)\n y = Flatten(g)"
    assert order_channels(small_model(body, {"w1": (9, 3, 1, 1), "w2": (4, 9, 1, 1)})) == 0


def test_weights_that_two_layers_share_are_copied():
    body = """
        a = Conv(image, w1)
        r = Relu(a)
        e = Conv(r, w2)
        s = Relu(e)
        t = Conv(s, w2)
        u = Conv(t, w3)
        g = GlobalAveragePool(u)
        y = Flatten(g)
    """
    model = small_model(body, {"w1": (16, 3, 1, 1), "w2": (16, 16, 1, 1), "w3": (4, 16, 1, 1)})
    ordered = model.clone()
    assert order_channels(ordered) > 0
    expected = run(model, images())
    assert np.abs(run(ordered, images()) - expected).max() < 1e-5 * expected.std()
