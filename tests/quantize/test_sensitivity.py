from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, small_model

from edgecv.quantize.affine import Range, affine_of
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import Draft, output_error, run_outputs, write_quantizers
from edgecv.quantize.placement import place_quantizers
from edgecv.quantize.restrict import keep_float
from edgecv.quantize.sensitivity import measure_sensitivity

DATA = images(32)

PRODUCTS = """
    n = Flatten(image)
    h = MatMul(n, v) i = Add(h, b) r = Relu(i)
    y = Gemm(r, w, c)
"""
PRODUCT_SHAPES: dict[str, object] = {"v": (432, 16), "b": (16,), "w": (16, 5), "c": (5,)}


def drafted(model: ir.Model, changed: Mapping[str, Range] | None = None) -> tuple[Draft, ir.Model]:
    basis = prepare_basis(model, MANIFEST, lambda: iter([DATA]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([DATA]))
    spans = {**basis.pixels, **ranges_of(seen, "mse"), **(changed or {})}
    return draft_network(basis.model, basis.placement, spans, seen), basis.model


@pytest.mark.parametrize("model", [residual_model(), small_model(PRODUCTS, PRODUCT_SHAPES)], ids=["conv", "product"])
def test_a_layer_alone_errs_as_the_file_with_only_that_layer_quantized_does(model: ir.Model) -> None:
    draft, own = drafted(model)
    reference = run_outputs(own, DATA)
    found = measure_sensitivity(draft, own, DATA)
    assert list(found.alone) == list(draft.placement.layers)
    for layer in draft.placement.layers:
        others = {*draft.placement.layers, *draft.placement.others} - {layer}
        file = write_quantizers(keep_float(draft, own, others, ""))[0]
        assert found.alone[layer] == pytest.approx(output_error(reference, run_outputs(file, DATA)), rel=0.05)


def test_errors_of_the_parts_add_up_to_about_the_whole() -> None:
    draft, own = drafted(residual_model())
    whole = output_error(run_outputs(own, DATA), run_outputs(write_quantizers(draft)[0], DATA))
    assert 0.4 * whole < measure_sensitivity(draft, own, DATA).predict(draft.placement) < 2.5 * whole


def test_weights_are_judged_with_the_bias_that_was_corrected_for_them() -> None:
    rng = np.random.default_rng(0)
    coarse = np.float32(rng.standard_normal((8, 8, 1, 1)) * 0.1)
    coarse[:, 0] = 2.0
    draft, own = drafted(residual_model(w3=coarse, b2=np.full(8, 1.5, np.float32)))
    uncorrected = Draft(own, draft.placement, draft.ranges, draft.weights)
    errors = [measure_sensitivity(d, own, DATA).weights["Conv_4"] for d in (draft, uncorrected)]
    assert errors[0] < errors[1] / 2


def test_a_bad_range_shows_at_its_tensor_and_is_counted_as_clipping() -> None:
    draft, own = drafted(residual_model(), {"r": Range(0.0, 0.05)})
    found = measure_sensitivity(draft, own, DATA)
    assert max(found.tensors, key=lambda t: found.tensors[t]) == "r"
    values = _tensor(own, "r")
    affine = affine_of(Range(0.0, 0.05))
    assert found.clipped["r"] == pytest.approx((values > 255.5 * affine.scale).mean())
    assert found.clipped["r"] > 0.1 > found.clipped["s"]


def test_only_what_is_placed_counts_in_a_prediction() -> None:
    draft, own = drafted(residual_model())
    found = measure_sensitivity(draft, own, DATA)
    less = place_quantizers(own, ["Conv_4"])
    freed = set(draft.placement.tensors) - set(less.tensors)
    expected = found.weights["Conv_4"] + sum(found.tensors.get(t, 0.0) for t in freed)
    assert found.predict(draft.placement) - found.predict(less) == pytest.approx(expected)


def _tensor(model: ir.Model, name: str) -> np.ndarray:
    copy = model.clone()
    copy.graph.outputs[:] = [o for n in copy.graph for o in n.outputs if o.name == name]
    return run_outputs(copy, DATA)[0]
