import numpy as np
import onnx
import pytest
from small_graphs import images, run, small_model

from edgecv.graph.pad_depthwise import pad_depthwise_channels
from edgecv.graph.values import constant_array

BLOCK = """
    e = Conv(image, we, be)
    r = HardSwish(e)
    d = Conv<pads=[1,1,1,1], group=12>(r, wd, bd)
    q = Relu(d)
    g = GlobalAveragePool(q)
    s1 = Conv(g, ws1, bs1)
    s2 = Relu(s1)
    s3 = Conv(s2, ws2, bs2)
    s4 = HardSigmoid(s3)
    m = Mul(q, s4)
    p = Conv(m, wp)
    o = GlobalAveragePool(p)
    y = Flatten(o)
"""
WEIGHTS: dict[str, object] = {
    "we": (12, 3, 1, 1), "be": (12,), "wd": (12, 1, 3, 3), "bd": (12,), "ws1": (4, 12, 1, 1), "bs1": (4,),
    "ws2": (12, 4, 1, 1), "bs2": (12,), "wp": (5, 12, 1, 1),
}  # fmt: skip


def widths(model: object) -> dict[str, tuple[int, ...]]:
    return {str(n.outputs[0].name): constant_array(n.inputs[1]).shape for n in model.graph if n.op_type == "Conv"}  # type: ignore[attr-defined,union-attr]


def test_a_whole_block_is_padded_and_answers_as_before() -> None:
    model = small_model(BLOCK, WEIGHTS)
    before = run(model, images())
    assert pad_depthwise_channels(model) == 1
    shapes = widths(model)
    assert (shapes["e"][0], shapes["d"][0], shapes["s3"][0]) == (16, 16, 16)
    assert (shapes["s1"][:2], shapes["p"][:2]) == ((4, 16), (5, 16))
    onnx.checker.check_model(onnx.ModelProto.FromString(_bytes(model)), full_check=True)
    np.testing.assert_allclose(run(model, images()), before, atol=1e-6)


def test_padding_twice_changes_nothing_more() -> None:
    model = small_model(BLOCK, WEIGHTS)
    pad_depthwise_channels(model)
    assert pad_depthwise_channels(model) == 0


@pytest.mark.parametrize(
    "tail",
    [
        "c = Concat<axis=1>(d, d) o = GlobalAveragePool(c) y = Flatten(o)",
        "o = GlobalAveragePool(d) y = Flatten(o)",
        "v = Mul(d, perchannel) o = Conv(v, wo) y = Flatten(o)",
    ],
    ids=["concat", "output", "constant per channel"],
)
def test_channels_that_others_count_on_stay(tail: str) -> None:
    body = f"e = Conv(image, we, be) d = Conv<pads=[1,1,1,1], group=12>(e, wd, bd) {tail}"
    shapes = {k: WEIGHTS[k] for k in ("we", "be", "wd", "bd")}
    if "perchannel" in tail:
        shapes |= {"perchannel": (1, 12, 1, 1), "wo": (5, 12, 1, 1)}
    assert pad_depthwise_channels(small_model(body, shapes)) == 0


@pytest.mark.parametrize(("channels", "padded"), [(16, 0), (8, 0), (12, 1), (11, 0), (40, 1)])
def test_only_widths_that_gain_are_padded(channels: int, padded: int) -> None:
    body = f"e = Conv(image, we) d = Conv<pads=[1,1,1,1], group={channels}>(e, wd) p = Conv(d, wp) y = Flatten(p)"
    shapes: dict[str, object] = {"we": (channels, 3, 1, 1), "wd": (channels, 1, 3, 3), "wp": (5, channels, 1, 1)}
    assert pad_depthwise_channels(small_model(body, shapes)) == padded


def test_a_residual_joins_two_blocks_into_one_group() -> None:
    body = """
        e = Conv(image, we) d = Conv<pads=[1,1,1,1], group=12>(e, wd) f = Conv<pads=[1,1,1,1], group=12>(d, wd)
        a = Add(d, f) p = Conv(a, wp) o = GlobalAveragePool(p) y = Flatten(o)
    """
    model = small_model(body, {"we": (12, 3, 1, 1), "wd": (12, 1, 3, 3), "wp": (5, 12, 1, 1)})
    before = run(model, images())
    assert pad_depthwise_channels(model) == 1
    np.testing.assert_allclose(run(model, images()), before, atol=1e-6)


def _bytes(model: object) -> bytes:
    import onnx_ir as ir

    return ir.to_proto(model).SerializeToString()  # type: ignore[arg-type]
