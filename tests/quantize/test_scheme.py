"""How a device wants its int8: the same arithmetic in other types, and operators left in float."""

import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, run, sqnr_db

from edgecv.config.device import FULL_RANGE, PORTABLE, Int8Scheme, load_device
from edgecv.errors import UsageError
from edgecv.graph.values import constant_array
from edgecv.quantize.affine import Range, affine_of
from edgecv.quantize.scheme import symmetric_ranges, write_scheme
from edgecv.quantize.static import quantize_static

DATA = images(8)
SIGNED = load_device("cuda-generic").int8


def quantized(scheme: Int8Scheme) -> ir.Model:
    return quantize_static(residual_model(), MANIFEST, lambda: iter([DATA]), scheme=scheme, rewrites=()).model


def test_symmetric_ranges_hold_the_range_and_have_zero_in_the_middle():
    ranges = {"a": Range(-1.0, 3.0), "b": Range(-3.0, 1.0), "c": Range(0.0, 6.0), "d": Range(0.0, 0.0)}
    for name, span in symmetric_ranges(ranges).items():
        affine = affine_of(span)
        assert affine.zero_point == 128 or name == "d"
        assert span.low <= ranges[name].low + 1e-9
        assert span.high >= ranges[name].high - 1e-9
    again = symmetric_ranges(symmetric_ranges(ranges))
    assert again["a"].high == pytest.approx(symmetric_ranges(ranges)["a"].high)


def test_signed_activations_and_float_biases_are_all_there_is(monkeypatch: pytest.MonkeyPatch):
    model = quantized(SIGNED)
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) > 2:
            zero = constant_array(node.inputs[2])
            assert zero is not None
            assert zero.dtype == np.int8
            assert not zero.any()
    stored = [constant_array(v) for v in model.graph.initializers.values()]
    assert all(a is None or a.dtype not in (np.uint8, np.int32) for a in stored)
    assert any(n.op_type == "MaxPool" for n in model.graph)


def test_signed_codes_compute_what_unsigned_codes_about_128_do(monkeypatch: pytest.MonkeyPatch):
    signed = quantized(SIGNED)
    monkeypatch.setattr("edgecv.quantize.static.write_scheme", lambda model, scheme: None)
    unsigned = quantized(SIGNED)
    assert not np.array_equal(run(signed, DATA), run(quantized(FULL_RANGE), DATA))
    # float arithmetic between the quantizers: ONNX Runtime's own int8 kernels round once less
    off = ("QDQSelectorActionTransformer", "QDQS8ToU8Transformer")
    difference = np.abs(run(signed, DATA, without=off) - run(unsigned, DATA, without=off)).max()
    assert difference <= 1e-6


def test_a_signed_model_stays_near_the_float_one():
    assert sqnr_db(run(residual_model(), DATA), run(quantized(SIGNED), DATA)) > 25


def test_an_activation_with_another_zero_point_is_refused():
    with pytest.raises(UsageError, match="zero point"):
        write_scheme(quantized(FULL_RANGE), Int8Scheme(activations="int8"))


def test_the_default_scheme_changes_nothing():
    model = quantized(PORTABLE)
    before = ir.to_proto(model).SerializeToString()
    write_scheme(model, PORTABLE)
    assert ir.to_proto(model).SerializeToString() == before


def test_operators_a_device_wants_in_float_get_no_quantizer():
    plain = quantize_static(residual_model(), MANIFEST, lambda: iter([DATA])).summary["coverage"]
    scheme = Int8Scheme(float_operators=("Add", "GlobalAveragePool"))
    found = quantize_static(residual_model(), MANIFEST, lambda: iter([DATA]), scheme=scheme)
    assert plain["other_int8"] > found.summary["coverage"]["other_int8"]
    written = {n.inputs[0].producer().op_type for n in found.model.graph if n.op_type == "QuantizeLinear"
               and n.inputs[0].producer() is not None}  # fmt: skip
    assert not written & {"Add", "GlobalAveragePool", "MaxPool"}


def test_the_summary_says_how_it_is_written():
    found = quantize_static(residual_model(), MANIFEST, lambda: iter([DATA]), scheme=SIGNED)
    settings = found.summary["settings"]
    assert (settings["activations"], settings["bias"], settings["portable"]) == ("int8", "float32", False)
