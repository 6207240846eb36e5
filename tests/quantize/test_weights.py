import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecv.quantize.weights import WEIGHT_LIMIT, bias_scale, decode_weight, quantize_bias, quantize_weight


def test_each_channel_has_its_own_scale_and_the_error_is_below_that_of_clipping_nothing() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 200, 3, 3)).astype(np.float32)
    weight *= np.logspace(-4, 2, 6, dtype=np.float32).reshape(-1, 1, 1, 1)
    quantized = quantize_weight(weight, 0)
    assert quantized.codes.dtype == np.int8
    assert quantized.scale.shape == (6,)
    step = np.abs(weight).reshape(6, -1).max(axis=1) / WEIGHT_LIMIT
    plain = np.rint(weight / step.reshape(-1, 1, 1, 1)) * step.reshape(-1, 1, 1, 1)
    error = np.square(decode_weight(quantized) - weight).reshape(6, -1).sum(axis=1)
    ratio = error / np.square(plain - weight).reshape(6, -1).sum(axis=1)
    assert (ratio < 1.0001).all()
    assert ratio.min() < 0.99


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_of_output_channels_is_respected(axis: int) -> None:
    weight = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    quantized = quantize_weight(weight, axis)
    transposed = quantize_weight(weight.T, 1 - axis)
    assert quantized.scale.shape == (weight.shape[axis],)
    assert (quantized.codes == transposed.codes.T).all()


def test_blocks_of_a_large_weight_give_what_its_rows_give_alone() -> None:
    weight = np.random.default_rng(0).standard_normal((40, 9000)).astype(np.float32)
    whole = quantize_weight(weight, 0)
    alone = [quantize_weight(weight[i : i + 1], 0) for i in (0, 7, 39)]
    assert [whole.scale[i] for i in (0, 7, 39)] == [a.scale[0] for a in alone]


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-40, 1e3), st.floats(1e-6, 1e4), st.floats(1e-8, 10))
def test_the_bias_fits_int32_and_is_kept_to_a_millionth(size: float, bias: float, input_scale: float) -> None:
    weight = np.full((1, 4), size, np.float32)
    quantized = quantize_weight(weight, 0, bias=np.float32([bias]), input_scale=input_scale)
    scale = bias_scale(quantized.scale, np.float32(input_scale))
    code = quantize_bias(np.float32([bias]), scale)
    assert abs(int(code[0])) <= 2**30
    assert abs(code[0] * float(scale[0]) - bias) <= 0.5 * float(scale[0]) + 1e-6 * bias


def test_a_channel_emptied_by_a_folded_norm_has_its_scale_raised() -> None:
    weight = np.float32([[1e-9, -1e-9], [0.5, -0.5]])
    quantized = quantize_weight(weight, 0, bias=np.float32([7.0, 7.0]), input_scale=0.02)
    assert quantized.raised_channels == 1
    assert 7.0 / (0.02 * float(quantized.scale[0])) <= 2**29 * 1.001


def test_an_empty_channel_without_bias_stays_zero() -> None:
    quantized = quantize_weight(np.zeros((2, 3), np.float32), 0)
    assert (decode_weight(quantized) == 0).all()
    assert np.isfinite(quantized.scale).all()
