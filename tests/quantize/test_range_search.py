import numpy as np
import onnx_ir as ir
from small_graphs import MANIFEST, images, run, small_model, sqnr_db

from edgecv.quantize.affine import Range
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import write_quantizers
from edgecv.quantize.range_search import search_ranges

DATA, TEST = images(24), images(64, seed=9)


def unread_outliers() -> ir.Model:
    """A network whose widest channel is hardly read: MSE gives it the range, the outputs do not need it."""
    wide, read = np.full((8, 3, 1, 1), 0.3, np.float32), np.full((8, 8, 1, 1), 0.3, np.float32)
    rng = np.random.default_rng(3)
    wide *= rng.standard_normal(wide.shape).astype(np.float32)
    read *= rng.standard_normal(read.shape).astype(np.float32)
    wide[0] *= 200
    read[:, 0] *= 1e-6
    body = "a = Conv(image, w, b) d = Conv(a, v, b) r = Relu(d) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, u)"
    return small_model(body, {"w": wide, "b": (8,), "v": read, "u": (8, 5)})


def drafted(model: ir.Model, *, search: bool) -> tuple[dict[str, Range], float]:
    batches = lambda: iter([DATA])  # noqa: E731
    basis = prepare_basis(model, MANIFEST, batches)
    seen = observe_network(basis.model, basis.placement, batches)
    found = ranges_of(seen, "mse")
    if search:
        found = search_ranges(basis.model, basis.placement.observed, seen, DATA[:16])
    draft = draft_network(basis.model, basis.placement, {**basis.pixels, **found}, seen)
    return found, sqnr_db(run(model, TEST), run(write_quantizers(draft)[0], TEST))


def test_a_range_is_cut_to_what_the_outputs_need() -> None:
    plain, plain_db = drafted(unread_outliers(), search=False)
    searched, searched_db = drafted(unread_outliers(), search=True)
    assert searched["a"].high < plain["a"].high / 3
    assert searched_db > plain_db + 10


def test_no_range_reaches_beyond_what_was_seen() -> None:
    found, _ = drafted(unread_outliers(), search=True)
    batches = lambda: iter([DATA])  # noqa: E731
    basis = prepare_basis(unread_outliers(), MANIFEST, batches)
    seen = observe_network(basis.model, basis.placement, batches)
    for name, span in found.items():
        assert span.low >= min(seen.histograms[name].minimum, 0)
        assert span.high <= max(seen.histograms[name].maximum, 0)


def test_the_same_images_give_the_same_ranges() -> None:
    assert drafted(unread_outliers(), search=True) == drafted(unread_outliers(), search=True)
