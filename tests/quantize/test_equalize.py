import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, RESIDUAL, RESIDUAL_WEIGHTS, images, residual_model, run, small_model, sqnr_db

from edgecv.graph.pad_depthwise import pad_depthwise_channels
from edgecv.quantize import equalize as module
from edgecv.quantize.activations import Batches
from edgecv.quantize.channel_peaks import Peaks, channel_peaks
from edgecv.quantize.equalize import LIMIT, MARGIN, choose_factors, equalize
from edgecv.quantize.equalize_groups import ChannelGroup, find_groups
from edgecv.quantize.static import quantize_static

DATA = images(48)
TEST = images(64, seed=9)

CHAIN = """
    a = Conv<pads=[1,1,1,1]>(image, w1, b1)
    r = {activation}
    d = Conv<pads=[1,1,1,1], group=8>(r, w2, b2)
    e = Relu(d)
    h = Conv(e, w3, b3)
    g = GlobalAveragePool(h)
    f = Flatten(g)
    y = Gemm<transB=1>(f, w4, b4)
"""


def data(batch: np.ndarray = DATA) -> Batches:
    return lambda: iter(np.array_split(batch, 5))


def chain(activation: str, spread: np.ndarray, **changes: object) -> ir.Model:
    """Stem, activation, depthwise: ``spread`` (8,) multiplies the stem's channels and divides the depthwise weights."""
    rng = np.random.default_rng(0)
    first = (rng.standard_normal((8, 3, 3, 3)) * spread.reshape(-1, 1, 1, 1)).astype(np.float32)
    second = (rng.standard_normal((8, 1, 3, 3)) / spread.reshape(-1, 1, 1, 1)).astype(np.float32)
    arrays = {"w1": first, "b1": (0.1 * spread).astype(np.float32), "w2": second}
    return small_model(CHAIN.format(activation=activation), RESIDUAL_WEIGHTS | arrays | changes)


def int8_db(model: ir.Model, reference: np.ndarray) -> float:
    quantized = quantize_static(model, MANIFEST, data(), ranges="minmax").model
    return sqnr_db(reference, run(quantized, TEST))


def array_of(model: ir.Model, name: str) -> np.ndarray:
    return model.graph.initializers[name].const_value.numpy()  # type: ignore[union-attr]


def test_a_channel_of_a_hundred_times_the_range_no_longer_costs_the_others_their_bits() -> None:
    spread = np.array([100, 1, 1, 1, 1, 1, 1, 1.0])
    model = chain("Relu(a)", spread)
    found = equalize(model, data())
    reference = run(model, TEST)
    np.testing.assert_allclose(run(found.model, TEST), reference, rtol=1e-4, atol=1e-4)
    assert int8_db(found.model, reference) > int8_db(model, reference) + 10


def test_small_channels_under_a_clip_are_raised_and_the_clip_keeps_its_bound() -> None:
    spread = np.array([2, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02])
    model = chain("Clip(a, zero, six)", spread)
    found = equalize(model, data())
    reference = run(model, TEST)
    clip = next(n for n in found.model.graph if n.op_type == "Clip")
    assert array_of(found.model, str(clip.inputs[2].name)) == np.float32(6)  # type: ignore[union-attr]
    np.testing.assert_allclose(run(found.model, TEST), reference, rtol=1e-4, atol=1e-4)
    factors = array_of(found.model, "w1") / array_of(model, "w1")
    assert factors[0].max() < 2
    assert (factors[1:] > 4).all()
    assert int8_db(found.model, reference) > int8_db(model, reference) + 6


def test_the_network_is_equal_in_float_through_add_pooling_and_groups() -> None:
    body = RESIDUAL.replace("Clip(a, zero, six)", "Relu(a)").replace("e = Conv(r", "e = Conv<group=2>(r")
    rng = np.random.default_rng(1)
    uneven = (rng.standard_normal((8, 3, 3, 3)) * 10.0 ** rng.uniform(-1, 0, (8, 1, 1, 1))).astype(np.float32)
    for transposed, shape in ((1, (5, 8)), (0, (8, 5))):
        text = body.replace("transB=1", f"transB={transposed}")
        model = small_model(text, RESIDUAL_WEIGHTS | {"w1": uneven, "w3": (8, 4, 1, 1), "w4": shape})
        found = equalize(model, data())
        assert found.groups == 2
        assert found.relative_diff < 1e-4
        np.testing.assert_allclose(run(found.model, TEST), run(model, TEST), rtol=1e-4, atol=1e-4)
        assert not np.array_equal(array_of(found.model, "w4"), array_of(model, "w4"))


def test_the_input_model_is_not_changed() -> None:
    model = chain("Relu(a)", np.geomspace(1, 100, 8))
    before = ir.to_proto(model).SerializeToString()
    assert equalize(model, data()).groups > 0
    assert ir.to_proto(model).SerializeToString() == before


def test_tensors_between_two_layers_are_one_group() -> None:
    groups = {g.producers: g for g in find_groups(residual_model())}
    assert set(groups) == {("Conv_0", "Conv_4"), ("Conv_2",)}
    stream = groups["Conv_0", "Conv_4"]
    assert stream.consumers == ("Conv_2", "Gemm_9")
    assert set(stream.tensors) == {"low", "e", "s", "p", "g", "f"}  # not "a": the Clip is fused with its quantizer
    assert stream.bounds == {"low": 6.0}
    assert not stream.only_depthwise
    assert not groups["Conv_2",].only_depthwise


BLOCKED = {
    "unknown operator": "a = Conv(image, w) b = Sigmoid(a) c = Conv(b, v) y = Flatten(c)",
    "weight of two layers": "a = Conv(image, w) b = Conv(image, w) c = Conv(b, v) d = Add(c, a) y = Flatten(d)",
    "network's input": "a = Conv(image, q) b = Add(a, image) c = Conv(b, w) y = Flatten(c)",
    "constant": "a = Conv(image, w) b = Add(a, shift) c = Conv(b, v) y = Flatten(c)",
    "clip below zero": "a = Conv(image, w) b = Clip(a, minus, six) c = Conv(b, v) y = Flatten(c)",
    "computed clip": "a = Conv(image, w) t = ReduceMax<keepdims=0>(a) b = Clip(a, zero, t) y = Flatten(b)",
    "network's output": "a = Conv(image, w) y = Flatten(a) c = Conv(a, v)",
}


@pytest.mark.parametrize("reason", BLOCKED)
def test_a_group_that_cannot_be_scaled_is_left_out(reason: str) -> None:
    shapes: dict[str, object] = {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1), "q": (3, 3, 1, 1)}
    shapes |= {"shift": (4, 1, 1), "zero": np.array(0, np.float32), "minus": np.array(-1, np.float32)}
    shapes |= {"six": np.array(6, np.float32)}
    assert find_groups(small_model(BLOCKED[reason], shapes)) == []


def test_a_bias_that_two_layers_share_is_scaled_for_the_one_alone() -> None:
    body = CHAIN.format(activation="Relu(a)").replace("b3", "b1")
    model = small_model(body, {k: v for k, v in RESIDUAL_WEIGHTS.items() if k not in ("b3", "zero", "six")})
    found = equalize(model, data())
    assert found.groups > 0
    np.testing.assert_allclose(run(found.model, TEST), run(model, TEST), rtol=1e-4, atol=1e-4)


def group(**changes: object) -> ChannelGroup:
    fields = {"channels": 5, "tensors": ("t",), "producers": ("p",), "consumers": ("c",), "bounds": {"t": 6.0}}
    return ChannelGroup(**(fields | {"only_depthwise": True} | changes))  # type: ignore[arg-type]


def test_factors_stop_at_the_margin_the_limit_the_tail_and_the_bound() -> None:
    #           margin  limit   tail  at bound  empty
    largest = np.array([2.0, 0.001, 0.5, 6.0, 0.0])
    rare = np.array([2.5, 0.001, 4.0, 6.0, 0.0])
    factors = choose_factors(group(), {"t": Peaks(largest, rare)})
    np.testing.assert_allclose(factors, [6 / (MARGIN * 2), LIMIT, 6 / 4.0, 1, 1])


def test_behind_a_clip_a_dense_layer_takes_half_of_the_factor() -> None:
    peaks = {"t": Peaks(np.full(5, 2.0), np.full(5, 2.0))}
    np.testing.assert_allclose(choose_factors(group(), peaks), 6 / (MARGIN * 2))
    np.testing.assert_allclose(choose_factors(group(only_depthwise=False), peaks), np.sqrt(6 / (MARGIN * 2)))


def test_without_a_clip_only_the_limit_holds_and_empty_channels_stay() -> None:
    largest = np.array([8.0, 4.0, 1e-6, 0.0, 2.0])
    peaks = {"t": Peaks(largest, largest), "u": Peaks(largest[[0, 4, 2, 3, 1]], largest)}
    free = group(bounds={}, tensors=("t", "u"))
    np.testing.assert_allclose(choose_factors(free, peaks), [1, 2, LIMIT, 1, 2])
    dense = group(bounds={}, tensors=("t", "u"), only_depthwise=False)
    np.testing.assert_allclose(choose_factors(dense, peaks), [1, 2**0.75, LIMIT, 1, 2**0.75], rtol=1e-6)


def test_channels_added_by_padding_keep_factor_one() -> None:
    shapes = RESIDUAL_WEIGHTS | {
        "w1": (13, 3, 3, 3),
        "b1": (13,),
        "w2": (13, 1, 3, 3),
        "b2": (13,),
        "w3": (8, 13, 1, 1),
    }
    body = CHAIN.format(activation="Clip(a, zero, six)").replace("group=8", "group=13")
    model = small_model(body, shapes)
    assert pad_depthwise_channels(model) == 1
    found = equalize(model, data())
    assert found.groups > 0
    stem = [next(n for n in m.graph if n.op_type == "Conv").inputs[1] for m in (model, found.model)]
    before, after = (v.const_value.numpy() for v in stem)  # type: ignore[union-attr]
    assert before.shape[0] == 16
    assert np.array_equal(after[13:], before[13:])
    np.testing.assert_allclose(run(found.model, TEST), run(model, TEST), rtol=1e-4, atol=1e-4)


def test_a_channel_that_few_images_wake_is_not_raised() -> None:
    """Channel 0 is silent but for three images, which reach no further than the others do everywhere."""
    level = np.full((48, 3, 1, 1), 0.3) + np.random.default_rng(0).uniform(0, 0.05, (48, 3, 1, 1))
    level[:, 1] = -1
    level[:3, 1] = 0.3
    batch = (level * np.ones((48, 3, 12, 12))).astype(np.float32)
    stem = np.zeros((8, 3, 3, 3), np.float32)
    stem[0, 1, 1, 1] = 1
    stem[1:, 0, 1, 1] = 1
    model = small_model(
        CHAIN.format(activation="Clip(a, zero, six)"), RESIDUAL_WEIGHTS | {"w1": stem, "b1": np.zeros(8, np.float32)}
    )
    peaks = channel_peaks(model, ["r"], data(batch))["r"]
    assert 0.2 < peaks.largest[0] < 0.4
    assert np.isinf(peaks.rare[0])
    scaled = array_of(equalize(model, data(batch)).model, "w1")
    assert scaled[0].max() == 1
    assert (scaled[1:, 0, 1, 1] > 2).all()


def test_the_tail_is_extrapolated_by_its_own_law() -> None:
    """Per-image maxima of a Pareto law with index 0.25: one image in 10,000 exceeds 10,000^0.25 = 10."""
    rng = np.random.default_rng(0)
    reach = rng.uniform(size=(400, 3, 1, 1)) ** -0.25
    batch = (reach * np.ones((400, 3, 12, 12))).astype(np.float32)
    body = "r = Relu(image) a = Conv(r, w) y = Flatten(a)"
    model = small_model(body, {"w": (5, 3, 12, 12)})
    rare = channel_peaks(model, ["r"], lambda: iter(np.array_split(batch, 7)))["r"].rare
    assert np.exp(np.log(rare).mean()) == pytest.approx(10, rel=0.35)


def test_the_change_that_moves_the_answer_is_undone_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    body = CHAIN.format(activation="Clip(a, zero, six)")
    model = small_model(body, RESIDUAL_WEIGHTS)
    real = choose_factors
    monkeypatch.setattr(
        module, "choose_factors", lambda g, peaks: np.full(g.channels, 50.0) if g.bounds else real(g, peaks)
    )
    found = equalize(model, data())
    assert [line.startswith("Conv_0: left alone") for line in found.lines] == [True, False, False]
    assert found.groups == 2
    np.testing.assert_allclose(run(found.model, TEST), run(model, TEST), rtol=1e-4, atol=1e-4)
