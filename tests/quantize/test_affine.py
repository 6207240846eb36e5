import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecv.quantize.affine import LEVELS, Range, affine_of, round_through

ends = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(ends, ends)
def test_zero_has_a_code_and_the_range_is_covered_to_half_a_step(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    affine = affine_of(Range(low, high))
    assert 0 <= affine.zero_point <= LEVELS
    assert round_through(np.zeros(1), affine)[0] == 0.0
    if max(high, 0) - min(low, 0) > 1e-30:
        reached = round_through(np.array([low, high]), affine)
        assert np.abs(reached - [low, high]).max() <= 0.5001 * affine.scale


@example(63.908805847167969)  # one of about 1,250 numbers whose 255th part, rounded to nearest, is too much 255 times
@given(st.floats(2.0**-60, 2.0**60, width=32))
def test_a_range_from_zero_is_never_exceeded(high: float) -> None:
    affine = affine_of(Range(0.0, high))
    assert affine.zero_point == 0
    assert affine.scale * np.float32(LEVELS) <= np.float32(high)


def test_rounding_equals_onnx_runtimes() -> None:
    import onnx
    import onnxruntime as ort

    affine = affine_of(Range(-1.3, 2.9))
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[n] x, float s, uint8 z) => (float[n] y)
        { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    session = ort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    values = np.linspace(-2, 4, 4001, dtype=np.float32)
    feeds = {"x": values, "s": affine.scale, "z": np.uint8(affine.zero_point)}
    expected = session.run(None, {k: np.asarray(v) for k, v in feeds.items()})[0]
    assert np.abs(round_through(values / np.float32(1), affine) - expected).max() < 1e-6


@pytest.mark.parametrize("span", [Range(0.0, 0.0), Range(0.0, 1e-45)])
def test_a_tensor_that_is_always_zero_gets_a_usable_scale(span: Range) -> None:
    assert affine_of(span).scale > 1e-6
