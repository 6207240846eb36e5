import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgecv.nn.fake_quant import (
    activation_codes,
    fake_quantize,
    fake_quantize_bias,
    fake_quantize_weight,
    weight_codes,
)
from edgecv.quantize.affine import Range, affine_of
from edgecv.quantize.weights import bias_scale, decode_weight, encode_weight, quantize_bias

QDQ = onnx.parser.parse_model(
    '<ir_version: 9, opset_import: ["" : 19]> g (float[n] x, float s, uint8 z) => (uint8[n] q, float[n] y) '
    "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
)
RANGES = [
    Range(0.0, 6.0),
    Range(-1.0, 1.0),
    Range(-34.7, 29.1),
    Range(0.0, 0.0313),
    Range(-3.0, 0.0),
    Range(-1e-3, 90.0),
]


def numbers_at_ties(span: Range) -> np.ndarray:
    """Random numbers in and beyond the range, the middles between codes, and their float32 neighbours."""
    middles = (np.arange(-300, 300) + 0.5).astype(np.float32) * affine_of(span).scale
    around = [middles, np.nextafter(middles, np.float32(1e9)), np.nextafter(middles, np.float32(-1e9))]
    spread = np.random.default_rng(0).standard_normal(4000) * (span.high - span.low)
    return np.concatenate([*around, spread]).astype(np.float32)


def ends(span: Range) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (span.low, span.high))
    return low, high


@pytest.mark.parametrize("span", RANGES)
def test_rounding_gives_the_bits_of_onnx_runtime_and_of_the_reference(span: Range) -> None:
    affine = affine_of(span)
    x = numbers_at_ties(span)
    feeds = {"x": x, "s": np.array(affine.scale, np.float32), "z": np.array(affine.zero_point, np.uint8)}
    codes, values = ort.InferenceSession(QDQ.SerializeToString()).run(None, feeds)
    found = fake_quantize(torch.from_numpy(x), *ends(span)).detach().numpy()
    np.testing.assert_array_equal(activation_codes(torch.from_numpy(x), affine).numpy(), codes)
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(found, ReferenceEvaluator(QDQ).run(None, feeds)[1])


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_and_biases_are_rounded_as_they_are_stored(axis: int) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((6, 6, 3, 3)).astype(np.float32)
    scale = rng.uniform(0.003, 0.02, 6).astype(np.float32)
    weight[:, :, 0, 0] = (np.arange(36).reshape(6, 6) - 17.5).astype(np.float32) * scale.reshape(-1, 1)  # ties
    stored = encode_weight(weight, scale, axis)
    tensor, scales = torch.from_numpy(weight), torch.from_numpy(scale)
    np.testing.assert_array_equal(weight_codes(tensor, scales, axis).numpy(), stored.codes)
    np.testing.assert_array_equal(fake_quantize_weight(tensor, scales, axis).numpy(), decode_weight(stored))
    bias = rng.standard_normal(6).astype(np.float32)
    unit = bias_scale(scale, np.float32(0.0235))
    expected = quantize_bias(bias, unit).astype(np.float32) * unit
    np.testing.assert_array_equal(fake_quantize_bias(torch.from_numpy(bias), torch.from_numpy(unit)).numpy(), expected)


@pytest.mark.parametrize("span", [Range(0.0, 2.0), Range(-1.0, 2.0)])
def test_gradients_are_those_of_learned_step_size_quantization(span: Range) -> None:
    torch.manual_seed(0)
    x, slope = (torch.randn(4, 1000) * 1.2).requires_grad_(), torch.randn(4, 1000)
    low, high = ends(span)
    (fake_quantize(x, low, high) * slope).sum().backward()
    same = x.detach().double().requires_grad_()
    low_, high_ = ends(span)
    step = (high_ - low_) / 255
    steps, zero = same / step, -low_ / step
    rounded = steps + (steps.round() - steps).detach()
    clipped = torch.where(steps < -zero, -zero, torch.where(steps > 255 - zero, 255 - zero, rounded))
    (clipped * step * slope).sum().backward()
    torch.testing.assert_close(x.grad.double(), same.grad)
    torch.testing.assert_close((low.grad, high.grad), (low_.grad, high_.grad), rtol=1e-4, atol=1e-4)


def test_a_weight_beyond_the_last_code_moves_its_scale_and_gets_no_gradient_itself() -> None:
    weight = torch.tensor([[0.5, 200.0], [-0.6, -300.0]], requires_grad=True)
    scale = torch.ones(2, requires_grad=True)
    fake_quantize_weight(weight, scale, 0).sum().backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(scale.grad, torch.tensor([127 - 0.5, -127 - 0.4]))


def test_zero_is_always_zero() -> None:
    for span in RANGES:
        assert fake_quantize(torch.zeros(3), *ends(span)).abs().max() == 0
