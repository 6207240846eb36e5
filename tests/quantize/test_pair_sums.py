"""Weights whose products cannot saturate: limits, order, and what a limited channel loses."""

import numpy as np
import pytest

from edgecv.quantize.pair_sums import (
    adds_in_pairs,
    from_kernel_rows,
    kernel_rows,
    limit_channels,
    limit_pairs,
    pair_limit,
    pair_sums,
)
from edgecv.quantize.weights import QuantizedWeight, decode_weight, quantize_weight


def squared_error(weight: np.ndarray, quantized: QuantizedWeight) -> float:
    return float(np.square(decode_weight(quantized) - weight).sum())


def seven_bits(weight: np.ndarray) -> QuantizedWeight:
    scale = np.abs(weight).max(axis=(1, 2, 3)) / np.float32(63)
    codes = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
    return QuantizedWeight(codes, scale, 0)


@pytest.mark.parametrize("highest", [255, 200, 128, 1])
def test_two_codes_at_the_limit_fit_in_16_bits_and_one_step_more_does_not(highest):
    assert pair_limit(highest) * highest <= 32767 < (pair_limit(highest) + 1) * highest


@pytest.mark.parametrize(
    ("shape", "groups", "pairs"),
    [((8, 1, 3, 3), 8, False), ((1, 1, 3, 3), 1, False), ((8, 1, 3, 3), 4, True), ((8, 4, 1, 1), 2, True),
     ((8, 8), 1, True)],
)  # fmt: skip
def test_only_depthwise_convolutions_are_exact(shape, groups, pairs):
    assert adds_in_pairs(shape, groups) is pairs


@pytest.mark.parametrize(("shape", "axis"), [((4, 3, 5, 2), 0), ((4, 6), 0), ((6, 4), 1), ((4, 3, 5), 0)])
def test_kernel_order_puts_input_channels_innermost_and_is_undone(shape, axis):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    rows = kernel_rows(weight, axis)
    assert rows.shape == (shape[axis], weight.size // shape[axis])
    assert np.array_equal(from_kernel_rows(rows, shape, axis), weight)
    second = weight[0, 1].reshape(-1)[0] if len(shape) > 2 else np.take(weight, 0, axis)[1]
    assert rows[0, 1] == second


def test_an_odd_last_weight_makes_a_pair_of_its_own():
    assert pair_sums(np.array([[100, 27, -90]], np.int8)).tolist() == [[127, -90]]


def test_a_pair_beyond_the_limit_goes_to_the_nearest_whole_point_on_it():
    values = np.array([[100.0, 60.4], [-127.0, -3.0], [90.0, -90.0], [300.0, 1.0]])
    limited = limit_pairs(values, 128)
    for (a, b), (x, y) in zip(limited, values, strict=True):
        assert abs(a + b) <= 128
        tried = [(i, j) for i in range(-127, 128) for j in range(-127, 128) if not i * j > 0 or abs(i + j) <= 128]
        best = min((i - x) ** 2 + (j - y) ** 2 for i, j in tried)
        assert (a - x) ** 2 + (b - y) ** 2 == pytest.approx(best)


def test_a_limited_channel_loses_less_than_7_bits_and_no_other_channel_changes():
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((64, 32, 1, 1)).astype(np.float32)
    plain = quantize_weight(weight, 0)
    at_risk = (np.abs(pair_sums(kernel_rows(plain.codes, 0))) > 128).any(axis=1)
    assert at_risk.any()
    assert not at_risk.all()
    limited = limit_channels(weight, plain)
    assert np.abs(pair_sums(kernel_rows(limited.codes, 0))).max() <= 128
    assert limited.limited_channels == at_risk.sum()
    assert np.array_equal(limited.codes[~at_risk], plain.codes[~at_risk])
    assert np.array_equal(limited.scale[~at_risk], plain.scale[~at_risk])
    clipped = limit_channels(weight, plain, rescale=False)
    errors = [squared_error(weight, q) for q in (limited, clipped, seven_bits(weight))]
    assert errors[0] < errors[1]
    assert errors[0] < 0.5 * errors[2]


def test_chosen_codes_stay_but_for_the_pairs_that_are_a_step_too_far():
    weight = np.array([[100.4, 28.4, 5.4, 6.4]], np.float32).reshape(1, 4, 1, 1)
    chosen = QuantizedWeight(np.array([101, 28, 6, 6], np.int8).reshape(1, 4, 1, 1), np.ones(1, np.float32), 0)
    limited = limit_channels(weight, chosen, rescale=False)
    assert limited.codes.reshape(-1).tolist() == [100, 28, 6, 6]
    assert limited.scale.tolist() == [1.0]


def test_a_weight_without_such_a_pair_is_returned_as_it_is():
    weight = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)
    quantized = QuantizedWeight(np.full((4, 8), 64, np.int8), np.ones(4, np.float32), 0)
    assert limit_channels(weight, quantized) is quantized


def test_inputs_that_never_reach_255_allow_larger_pairs():
    weight = np.full((1, 2), 127, np.float32)
    quantized = QuantizedWeight(np.full((1, 2), 127, np.int8), np.ones(1, np.float32), 0)
    assert limit_channels(weight, quantized, limit=pair_limit(128)) is quantized
    assert np.abs(pair_sums(limit_channels(weight, quantized, limit=pair_limit(200)).codes)).max() <= 163
