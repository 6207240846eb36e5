"""The audit of sums of neighbouring products."""

import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, small_model

from edgecv.config.device import FULL_RANGE, PORTABLE
from edgecv.progress import no_progress
from edgecv.quantize import rungs
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.dynamic import quantize_dynamic
from edgecv.quantize.ladder import Ground
from edgecv.quantize.saturation import audit_saturation, describe_audit
from edgecv.quantize.static import finish, quantize_static

DATA = images(8)


def coded_model(
    weight: np.ndarray,
    *,
    groups: int = 1,
    before: str = "n = Identity(image)",
    scale: float = 1 / 255,
    zero: object = 0,
    dtype: type = np.uint8,
) -> ir.Model:
    """A QDQ convolution with the given codes; ``n`` is what its input quantizer reads."""
    body = f"""
        {before}
        q = QuantizeLinear(n, s, z)
        x = DequantizeLinear(q, s, z)
        w = DequantizeLinear(codes, sw)
        c = Conv<group={groups}>(x, w)
        g = GlobalAveragePool(c)
        y = Flatten(g)
    """  # fmt: skip
    values = {"s": np.array(scale, np.float32), "z": np.array(zero, dtype), "codes": weight,
              "sw": np.array(0.01, np.float32), "zero": np.array(0, np.float32),
              "six": np.array(6, np.float32)}  # fmt: skip
    used = {k: v for k, v in values.items() if k not in ("zero", "six") or k in before}
    return small_model(body, used)


def codes(*numbers: int) -> np.ndarray:
    weight = np.zeros((2, 3, 1, 1), np.int8)
    weight[0, : len(numbers), 0, 0] = numbers
    return weight


@pytest.mark.parametrize(
    ("numbers", "worst", "at_risk"),
    [((127, 127), 64770, 1), ((-127, -127), 64770, 1), ((64, 64), 32640, 0), ((65, 64), 32895, 1),
     ((127, -127), 0, 0), ((100, 0, 100), 25500, 0)],
)  # fmt: skip
def test_only_neighbours_of_one_sign_beyond_16_bits_are_at_risk(numbers, worst, at_risk):
    (row,) = audit_saturation(coded_model(codes(*numbers))).layers
    assert (row.worst_sum, row.pairs_at_risk, row.channels_at_risk) == (worst, at_risk, at_risk)
    assert (row.highest_code, row.channels, row.pairs, row.op_type) == (255, 2, 4, "Conv")


def test_an_input_that_cannot_reach_255_lowers_the_sums():
    power_of_two = coded_model(codes(80, 80), before="n = Clip(image, zero, six)", scale=1 / 32)
    (row,) = audit_saturation(power_of_two).layers
    assert row.highest_code == 192
    assert row.worst_sum == 160 * 192 < 32767
    assert not row.pairs_at_risk
    (row,) = audit_saturation(coded_model(codes(80, 80), before="n = Sigmoid(image)", scale=1 / 128)).layers
    assert row.highest_code == 128


def test_signed_activations_count_as_they_are_converted_on_x86():
    (row,) = audit_saturation(coded_model(codes(80, 80), dtype=np.int8)).layers
    assert row.highest_code == 255


def test_activations_of_16_bits_run_in_float_and_do_not_count():
    model = coded_model(codes(127, 127), dtype=np.uint16)
    assert audit_saturation(model).as_dict()["layers"] == 0


def test_depthwise_and_uint8_weights_are_exact():
    audit = audit_saturation(coded_model(np.full((3, 1, 2, 2), 127, np.int8), groups=3))
    assert (audit.layers, audit.exact) == ((), 1)
    assert audit_saturation(coded_model(np.full((2, 3, 1, 1), 255, np.uint8))).exact == 1


def test_a_float_model_has_nothing_to_saturate():
    audit = audit_saturation(residual_model())
    assert audit.as_dict()["layers"] == 0
    assert "no int8 layer" in describe_audit(audit)


def test_a_quantized_model_is_at_risk_unless_it_is_portable():
    rng = np.random.default_rng(0)
    model = residual_model(w3=rng.uniform(0.8, 1, (8, 8, 1, 1)).astype(np.float32))
    at_risk = quantize_static(model, MANIFEST, lambda: iter([DATA]), scheme=FULL_RANGE).summary
    assert at_risk["saturation"]["layers_at_risk"] >= 1
    assert at_risk["saturation"]["worst_sum"] > 32767
    assert "layers can clip" in at_risk["notes"][0]
    assert at_risk["settings"]["portable"] is False
    portable = quantize_static(model, MANIFEST, lambda: iter([DATA])).summary
    assert portable["saturation"]["layers_at_risk"] == 0
    assert portable["saturation"]["worst_sum"] <= 32767
    assert "none" in portable["notes"][0]
    assert portable["limited_channels"] >= 8
    assert portable["settings"]["portable"] is True


def test_products_with_activations_quantized_at_run_time_are_audited_and_limited():
    model = residual_model(w4=np.full((5, 8), 0.5, np.float32) + np.eye(5, 8, dtype=np.float32) / 10)
    audit = audit_saturation(quantize_dynamic(model).model)
    assert [row.op_type for row in audit.layers] == ["MatMulInteger"]
    assert not audit.at_risk
    assert audit.layers[0].worst_sum > 20_000


@pytest.mark.parametrize("scheme", [PORTABLE, FULL_RANGE])
def test_codes_chosen_elsewhere_are_limited_before_they_are_written(scheme):
    rng = np.random.default_rng(0)
    model = residual_model(w3=rng.uniform(0.8, 1, (8, 8, 1, 1)).astype(np.float32))
    basis = prepare_basis(model, MANIFEST, lambda: iter([DATA]), scheme=scheme)
    seen = observe_network(basis.model, basis.placement, lambda: iter([DATA]))
    spans = {**basis.pixels, **ranges_of(seen, "mse")}
    draft = draft_network(basis.model, basis.placement, spans, seen, scheme=FULL_RANGE)
    found = finish(draft, basis, {}).summary
    assert (found["saturation"]["layers_at_risk"] == 0) is scheme.portable
    assert (found["limited_channels"] > 0) is scheme.portable


@pytest.mark.parametrize("scheme", [PORTABLE, FULL_RANGE])
def test_channels_are_ordered_again_after_equalization_changed_their_sizes(scheme, monkeypatch: pytest.MonkeyPatch):
    shapes = {"w": np.ones((8, 3, 1, 1), np.float32) * np.array([1, 30] * 4, np.float32).reshape(8, 1, 1, 1),
              "v": (8, 1, 3, 3), "b": (8,), "u": (8, 5)}  # fmt: skip
    body = """a = Conv(image, w) r = Relu(a) d = Conv<group=8>(r, v, b) e = Relu(d)
              g = GlobalAveragePool(e) f = Flatten(g) y = Gemm(f, u)"""
    ordered: list[ir.Model] = []
    monkeypatch.setattr(rungs, "order_channels", ordered.append)
    basis = prepare_basis(small_model(body, shapes), MANIFEST, lambda: iter([DATA]), scheme=scheme)
    ground = Ground(basis, lambda: iter([DATA]), DATA, len(DATA))
    first = rungs.per_channel(ground, None, no_progress)
    assert not ordered
    assert rungs.equalized(ground, first, no_progress) is not None
    assert len(ordered) == int(scheme.portable)
