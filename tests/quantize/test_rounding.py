import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.graph.values import constant_array
from edgecv.quantize.activations import Batches
from edgecv.quantize.basis import draft_network, observe_network
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import write_quantizers
from edgecv.quantize.input_range import input_ranges
from edgecv.quantize.layer_weights import quantize_weights
from edgecv.quantize.pair_sums import kernel_rows, pair_limit, pair_sums
from edgecv.quantize.placement import place_quantizers
from edgecv.quantize.rounding import learn_rounding
from edgecv.quantize.rounding_solver import round_rows
from edgecv.quantize.weights import QuantizedWeight, decode_weight, smallest_scales

DATA = images(48)
TEST = images(64, seed=9)
NO_FLOOR = np.zeros((1, 16))


def batches() -> Batches:
    return lambda: iter(np.array_split(DATA, 5))


def covariance(fan_in: int, seed: int = 0) -> np.ndarray:
    mixing = np.random.default_rng(seed).standard_normal((fan_in, fan_in)) * np.geomspace(1, 0.05, fan_in)
    return np.asarray(mixing @ mixing.T)[None]


def nearest(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(target).max(axis=2) / 127
    return np.rint(target / scale[:, :, None]), scale


def cost(target: np.ndarray, codes: np.ndarray, scale: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    error = codes * scale[:, :, None] - target
    return np.asarray(np.einsum("gri,gij,grj->gr", error, covariance, error))


@pytest.mark.parametrize("fan_in", [1, 2, 9, 33, 300])
def test_errors_cancel_where_inputs_go_together(fan_in: int) -> None:
    target = np.random.default_rng(1).standard_normal((1, 16, fan_in))
    varying = covariance(fan_in)
    codes, scale = round_rows(target, varying, NO_FLOOR)
    assert np.array_equal(codes, np.rint(codes))
    assert np.abs(codes).max() <= 127
    assert np.array_equal(scale, scale.astype(np.float32))
    learned, plain = (cost(target, *found, varying).sum() for found in ((codes, scale), nearest(target)))
    assert learned < (1.0 if fan_in == 1 else 0.5) * plain + 1e-12


def test_no_single_code_can_be_moved_to_advantage() -> None:
    target, varying = np.random.default_rng(2).standard_normal((1, 16, 12)), covariance(12)
    codes, scale = round_rows(target, varying, NO_FLOOR)
    best = cost(target, codes, scale, varying)
    for place in range(12):
        for step in (-1, 1):
            moved = codes.copy()
            moved[:, :, place] += step
            better = cost(target, moved, scale, varying) < best * 0.97  # the ridge is not in this cost
            assert not (better & (np.abs(moved).max(axis=2) <= 127)).any()


def test_groups_are_rounded_each_for_its_own_inputs() -> None:
    target = np.random.default_rng(3).standard_normal((5, 2, 9))
    varying = np.concatenate([covariance(9, seed) for seed in range(5)])
    together = round_rows(target, varying, np.zeros((5, 2)))
    for group in range(5):
        part = slice(group, group + 1)
        alone = round_rows(target[part], varying[part], np.zeros((1, 2)))
        assert np.array_equal(together[0][part], alone[0])
        assert np.array_equal(together[1][part], alone[1])


@pytest.mark.parametrize("fan_in", [8, 33])
def test_pairs_stay_within_their_limit_and_share_the_loss(fan_in: int) -> None:
    rng = np.random.default_rng(4)
    target, varying = rng.uniform(0.8, 1, (1, 16, fan_in)), covariance(fan_in)
    codes, scale = round_rows(target, varying, NO_FLOOR, pair_limit=128)
    even = fan_in // 2 * 2
    assert np.abs(codes[:, :, :even:2] + codes[:, :, 1:even:2]).max() <= 128
    half = np.abs(target).max(axis=2) / 63  # 7-bit weights keep the limit too, and are the plain way to do so
    seven_bits = np.clip(np.rint(target / half[:, :, None]), -64, 64)
    assert cost(target, codes, scale, varying).sum() < 0.7 * cost(target, seven_bits, half, varying).sum()


def test_a_row_of_zeros_and_inputs_that_never_vary_are_stored_as_they_are() -> None:
    target = np.random.default_rng(5).standard_normal((1, 16, 6))
    target[0, 3] = 0
    codes, scale = round_rows(target, np.zeros((1, 6, 6)), NO_FLOOR)
    assert (codes[0, 3] == 0).all()
    assert scale[0, 3] == 1
    assert np.abs(codes * scale[:, :, None] - target).max() <= 0.51 * scale.max()


def test_a_scale_stays_above_its_floor() -> None:
    target, floor = np.random.default_rng(6).standard_normal((1, 16, 6)), np.zeros((1, 16))
    floor[0, 2] = 1.0
    _, scale = round_rows(target, covariance(6), floor)
    assert scale[0, 2] == 1.0
    assert scale[0, 3] < 0.1


def coarse(count: int, *shape: int) -> np.ndarray:
    """Weights of which one a row is large: the others get few codes, so that it matters how they are rounded."""
    weight = (np.random.default_rng(count).standard_normal((count, *shape)) * 0.03).astype(np.float32)
    weight.reshape(count, -1)[:, 0] = 1.0
    return weight


def networks() -> dict[str, ir.Model]:
    tokens = """
        p = Conv<strides=[3,3]>(image, w1) r = Reshape(p, shape) t = Transpose<perm=[0,2,1]>(r)
        a = MatMul(t, w2) b = Add(a, b2) c = Relu(b) d = MatMul(c, w3) m = ReduceMean<keepdims=0>(d, one)
        y = Gemm(m, w4, b4)
    """
    arrays: dict[str, object] = {"w1": (16, 3, 3, 3), "shape": np.array([0, 16, 16]), "one": np.array([1])}
    arrays |= {"w2": coarse(32, 16).T.copy(), "b2": (32,), "w3": coarse(16, 32).T.copy(), "w4": (16, 5), "b4": (5,)}
    strided = """
        a = Conv<pads=[1,1,1,1]>(image, w1) b = Relu(a)
        c = Conv<pads=[2,2,2,2], dilations=[2,2], group=4>(b, w2) d = Relu(c)
        e = Conv<strides=[2,2], pads=[1,1,0,0]>(d, w3, b3) g = GlobalAveragePool(e) f = Flatten(g) y = Gemm(f, w4)
    """
    others: dict[str, object] = {"w1": (8, 3, 3, 3), "w2": coarse(8, 2, 3, 3), "w3": coarse(8, 8, 3, 3)}
    return {
        "depthwise": residual_model(w2=coarse(8, 1, 3, 3), w3=coarse(8, 8, 1, 1)),
        "dilated, grouped, strided": small_model(strided, others | {"b3": (8,), "w4": (8, 5)}),
        "transformer": small_model(tokens, arrays),
    }


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("network", ["depthwise", "dilated, grouped, strided", "transformer"])
def test_the_answers_come_nearer_to_the_float_models(network: str, portable: bool) -> None:
    model = networks()[network]
    placement = place_quantizers(model)
    seen = observe_network(model, placement, batches())
    spans = input_ranges(model, placement.from_input, MANIFEST.input) | ranges_of(seen, "minmax")
    affines = draft_network(model, placement, spans, seen).affines
    learned = learn_rounding(model, placement, affines, batches(), n_images=48, portable=portable)
    assert set(learned) == set(placement.layers)
    reference, decibels = run(model, TEST), []
    for weights in (quantize_weights(model, placement, affines, portable=portable), learned):
        rounded = in_float(model, weights)
        correction = run(model, DATA).mean(axis=0) - run(rounded, DATA).mean(axis=0)
        decibels.append(sqnr_db(reference, run(rounded, TEST) + correction))
    assert decibels[1] > decibels[0] + 3
    written = write_quantizers(draft_network(model, placement, spans, seen, weights=learned))[0]
    assert sqnr_db(reference, run(written, TEST)) > 22


def in_float(model: ir.Model, weights: dict[str, QuantizedWeight]) -> ir.Model:
    """The float network with the weights that the codes stand for."""
    copy = model.clone()
    for node in copy.graph:
        if node.name in weights:
            value = node.inputs[1]
            value.const_value = ir.tensor(decode_weight(weights[str(node.name)]), name=value.name)  # type: ignore[union-attr]
    return copy


def learned_for(model: ir.Model, **options: object) -> dict[str, QuantizedWeight]:
    placement = place_quantizers(model)
    seen = observe_network(model, placement, batches())
    spans = input_ranges(model, placement.from_input, MANIFEST.input) | ranges_of(seen, "minmax")
    affines = draft_network(model, placement, spans, seen).affines
    return learn_rounding(model, placement, affines, batches(), n_images=48, **options)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_bytes() -> None:
    once, again = (learned_for(networks()["depthwise"]) for _ in range(2))
    for name in once:
        assert once[name].codes.tobytes() == again[name].codes.tobytes()
        assert once[name].scale.tobytes() == again[name].scale.tobytes()


def test_a_portable_layers_pairs_cannot_saturate_and_depthwise_layers_are_free() -> None:
    heavy = np.abs(coarse(8, 8, 1, 1)) + np.float32(0.9)
    model = residual_model(w2=np.full((8, 1, 3, 3), 0.5, np.float32), w3=heavy)
    free, portable = (learned_for(model, portable=on) for on in (False, True))
    assert np.abs(pair_sums(kernel_rows(free["Conv_4"].codes, 0))).max() > pair_limit()
    assert np.abs(pair_sums(kernel_rows(portable["Conv_4"].codes, 0))).max() <= pair_limit()
    assert portable["Conv_4"].limited_channels == 8
    assert np.array_equal(free["Conv_2"].codes, portable["Conv_2"].codes)
    assert free["Conv_4"].limited_channels == portable["Conv_2"].limited_channels == 0


def test_a_channel_with_tiny_weights_keeps_its_bias() -> None:
    weight = coarse(8, 1, 3, 3)
    weight[2:5] *= 1e-9
    model = residual_model(w2=weight, b2=np.full(8, 5.0, np.float32))
    placement = place_quantizers(model)
    seen = observe_network(model, placement, batches())
    spans = input_ranges(model, placement.from_input, MANIFEST.input) | ranges_of(seen, "minmax")
    draft = draft_network(model, placement, spans, seen)
    found = learn_rounding(model, placement, draft.affines, batches(), n_images=48)["Conv_2"]
    floor = smallest_scales(np.full(8, 5.0), float(draft.affines["low"].scale))
    assert (found.scale >= floor).all()
    assert found.raised_channels == 3


def test_a_layer_too_large_for_its_covariance_is_rounded_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecv.quantize import rounding

    monkeypatch.setattr(rounding, "BUDGET_BYTES", 2 * 8 * 9 * 9 * 4)  # what the depthwise layer needs
    model = networks()["depthwise"]
    found = learned_for(model)
    stem = constant_array(next(n for n in model.graph if n.name == "Conv_0").inputs[1])
    assert stem is not None
    nearest_codes = np.clip(np.rint(stem / found["Conv_0"].scale.reshape(-1, 1, 1, 1)), -127, 127)
    assert np.abs(found["Conv_0"].codes - nearest_codes).max() == 0
    depthwise = constant_array(next(n for n in model.graph if n.name == "Conv_2").inputs[1])
    assert depthwise is not None
    codes = np.rint(depthwise / found["Conv_2"].scale.reshape(-1, 1, 1, 1))
    assert not np.array_equal(found["Conv_2"].codes, codes)
