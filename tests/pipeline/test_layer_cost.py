from small_graphs import MANIFEST, images, residual_model

from edgecv.benchmark.profile import Profile, Slice
from edgecv.pipeline.layer_cost import extra_ms, layer_costs, open_cost_meter, times_of
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.restrict import keep_float

BEFORE = {("stem", "QLinearConv"): 2.0, ("dw", "QLinearConv"): 1.0, ("Transpose", "Transpose"): 0.2}
AFTER = {
    ("stem", "QLinearConv"): 2.0,
    ("dw", "Conv"): 1.5,
    ("t_dequantized", "DequantizeLinear"): 0.3,
    ("u_quantized", "QuantizeLinear"): 0.4,
    ("Transpose", "Transpose"): 0.4,
}


def test_what_appears_is_paid_and_what_goes_is_saved() -> None:
    assert abs(extra_ms(BEFORE, AFTER) - (1.5 + 0.3 + 0.4 + 0.4 - 1.0 - 0.2)) < 1e-12


def test_a_machine_that_was_slower_the_second_time_does_not_make_a_layer_dear() -> None:
    slower = {key: 3 * ms for key, ms in AFTER.items()}
    assert abs(extra_ms(BEFORE, slower) - extra_ms(BEFORE, AFTER)) < 1e-12
    assert abs(extra_ms(BEFORE, {key: 3 * ms for key, ms in BEFORE.items()})) < 1e-12


def test_the_runtimes_own_counters_are_no_part_of_a_name() -> None:
    layers = tuple(
        Slice(name, 1, 9.0, 0.1, op, "cpu", ms)
        for name, op, ms in [
            ("conv_7_token_12", "QLinearConv", 1.0),
            ("Transpose", "Transpose", 0.1),
            ("Transpose_token_4", "Transpose", 0.2),
        ]
    )
    times = times_of(Profile(2, 1.0, 1.0, (), layers, (), 0, 0.0))
    assert times[("conv_7", "QLinearConv")] == 1.0
    assert abs(times[("Transpose", "Transpose")] - 0.3) < 1e-12


def test_a_layer_in_float_brings_its_conversions_with_it() -> None:
    data = images()
    basis = prepare_basis(residual_model(), MANIFEST, lambda: iter([data]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([data]))
    draft = draft_network(basis.model, basis.placement, {**basis.pixels, **ranges_of(seen, "mse")}, seen)
    meter = open_cost_meter(draft, basis.rewrites, threads="1")
    assert meter.int8_ms > 0
    assert ("Conv_4", "QLinearConv") in meter.int8
    kept = keep_float(draft, basis.model, ["Conv_4"], "")
    assert abs(meter.cost_ms(kept)) < 100 * meter.int8_ms
    costs = layer_costs(meter, draft, basis.model, ["Conv_2", "Conv_4"])
    assert list(costs) == ["Conv_2", "Conv_4"]
