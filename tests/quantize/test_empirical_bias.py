import numpy as np
import onnx_ir as ir
from small_graphs import MANIFEST, images, residual_model, run, small_model, sqnr_db

from edgecv.graph.values import constant_array
from edgecv.quantize.affine import Range
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.draft import Draft, run_outputs, write_quantizers
from edgecv.quantize.empirical_bias import correct_biases_on_codes

DATA, TEST = images(48), images(64, seed=9)

LINEAR = {"w": (8, 3, 1, 1), "b": (8,)}


def drafted(model: ir.Model, **narrowed: Range) -> tuple[ir.Model, Draft]:
    """Return the prepared float network and its draft; ``narrowed`` sets ranges of tensors by name."""
    batches = lambda: iter([DATA])  # noqa: E731
    basis = prepare_basis(model, MANIFEST, batches)
    seen = observe_network(basis.model, basis.placement, batches)
    ranges = {n: Range(h.minimum, h.maximum) for n, h in seen.histograms.items()}
    draft = draft_network(basis.model, basis.placement, {**basis.pixels, **ranges, **narrowed}, seen)
    return basis.model, draft


def clipped_network() -> ir.Model:
    body = "a = Conv(image, w, b) r = Relu(a) d = Conv(r, v, c) e = Relu(d) g = GlobalAveragePool(e) y = Flatten(g)"
    positive = np.abs(np.random.default_rng(0).standard_normal((8, 8, 1, 1))).astype(np.float32)
    return small_model(body, {"w": (8, 3, 1, 1), "b": (8,), "v": positive, "c": np.full(8, 0.1, np.float32)})


def test_what_clipping_takes_from_a_mean_is_given_back() -> None:
    own, draft = drafted(clipped_network(), r=Range(0.0, 0.25))
    mended = correct_biases_on_codes(draft, own, DATA)
    before, after = (sqnr_db(run(own, TEST), run(write_quantizers(d)[0], TEST)) for d in (draft, mended))
    assert after > before + 3


def test_the_mean_of_every_output_comes_nearer_to_that_of_the_float_network() -> None:
    own, draft = drafted(clipped_network(), r=Range(0.0, 0.25))
    mended = correct_biases_on_codes(draft, own, DATA)
    expected, before, after = (
        run_outputs(m, DATA)[0].mean(0) for m in (own, write_quantizers(draft)[0], write_quantizers(mended)[0])
    )
    assert np.abs(after - expected).max() < 0.6 * np.abs(before - expected).max()


def test_large_errors_in_few_places_move_no_bias() -> None:
    """A range that clips what one corner of a picture holds must not shift the whole picture."""
    own, draft = drafted(small_model("a = Conv(image, w, b) g = GlobalAveragePool(a) y = Flatten(g)", LINEAR))
    bright = DATA.copy()
    bright[:, :, 0, 0] *= 50
    plain, outlying = (_largest_shift(draft, correct_biases_on_codes(draft, own, x)) for x in (DATA, bright))
    assert outlying < plain + 0.02


def test_the_draft_is_not_changed() -> None:
    own, draft = drafted(residual_model())
    before = ir.to_proto(draft.model).SerializeToString()
    correct_biases_on_codes(draft, own, DATA)
    assert ir.to_proto(draft.model).SerializeToString() == before


def _largest_shift(before: Draft, after: Draft) -> float:
    pairs = zip(before.model.graph, after.model.graph, strict=True)
    held = [(constant_array(a.inputs[2]), constant_array(b.inputs[2])) for a, b in pairs if a.op_type == "Conv"]
    return max(float(np.abs(x - y).max()) for x, y in held if x is not None and y is not None)
