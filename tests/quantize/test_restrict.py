import numpy as np
from small_graphs import MANIFEST, images, residual_model, run, small_model

from edgecv.quantize.basis import Basis, draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import Draft, output_error, run_outputs, write_quantizers
from edgecv.quantize.restrict import keep_float, without

DATA = images(32)


def drafted(**weights: object) -> tuple[Draft, Basis]:
    basis = prepare_basis(residual_model(**weights), MANIFEST, lambda: iter([DATA]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([DATA]))
    spans = {**basis.pixels, **ranges_of(seen, "mse")}
    return draft_network(basis.model, basis.placement, spans, seen), basis


def test_all_layers_in_float_are_the_float_network_again() -> None:
    draft, basis = drafted()
    everything = {*draft.placement.layers, *draft.placement.others}
    model = write_quantizers(keep_float(draft, basis.model, everything, "why not"))[0]
    assert "QuantizeLinear" not in {n.op_type for n in model.graph}
    np.testing.assert_allclose(run(model, DATA), run(basis.model, DATA), atol=1e-5)


def test_a_layer_kept_float_has_its_own_weights_and_bias_and_says_why() -> None:
    draft, basis = drafted()
    kept = keep_float(draft, basis.model, ["Conv_4"], "it is the worst")
    assert kept.placement.kept_float == {"Conv_4": "it is the worst"}
    assert "Conv_4" not in kept.weights
    layer = next(n for n in write_quantizers(kept)[0].graph if n.name == "Conv_4")
    own = next(n for n in basis.model.graph if n.name == "Conv_4")
    for index in (1, 2):
        np.testing.assert_array_equal(
            layer.inputs[index].const_value.numpy(),  # type: ignore[union-attr]
            own.inputs[index].const_value.numpy(),  # type: ignore[union-attr]
        )
    assert "Conv_4" in draft.weights, "the draft it was made from is not changed"


def test_a_bias_that_was_only_made_by_the_correction_goes() -> None:
    body = "a = Conv(image, w) r = Relu(a) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, v)"
    basis = prepare_basis(small_model(body, {"w": (4, 3, 3, 3), "v": (4, 5)}), MANIFEST, lambda: iter([DATA]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([DATA]))
    draft = draft_network(basis.model, basis.placement, {**basis.pixels, **ranges_of(seen, "mse")}, seen)
    first = basis.placement.layers[0]
    layers = [
        next(n for n in m.graph if n.name == first)
        for m in (draft.model, keep_float(draft, basis.model, [first], "").model)
    ]
    assert [len(n.inputs) for n in layers] == [3, 2]


def test_keeping_the_correction_of_a_float_layer_would_cost_accuracy() -> None:
    draft, basis = drafted(b1=np.full(8, 1.5, np.float32))
    reference = run_outputs(basis.model, DATA)
    errors = [
        output_error(
            reference, run_outputs(write_quantizers(keep_float(draft, own, draft.placement.layers, ""))[0], DATA)
        )
        for own in (basis.model, draft.model)
    ]
    assert errors[0] < errors[1] / 10


def test_a_pooling_that_nobody_needs_in_int8_any_more_stays_float_too() -> None:
    draft, _ = drafted()
    assert "MaxPool_6" in draft.placement.others
    placed = without(draft, ["Add_5", "Gemm_9"])
    assert not {"MaxPool_6", "GlobalAveragePool_7"} & {*placed.others}
