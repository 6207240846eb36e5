"""Each rung against a network made for it: switched off, the error stays."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, run, small_model, sqnr_db

from edgecv.progress import no_progress
from edgecv.quantize.affine import Range
from edgecv.quantize.basis import prepare_basis
from edgecv.quantize.draft import write_quantizers
from edgecv.quantize.ladder import Ground, Position, divide
from edgecv.quantize.rungs import RUNGS

DATA, TEST = images(40), images(64, seed=9)
HEAD = "g = GlobalAveragePool(e) f = Flatten(g) y = Gemm(f, u)"


def batches() -> Iterator[np.ndarray]:
    return iter(np.array_split(DATA, 5))


def walked(model: ir.Model, names: Sequence[str]) -> tuple[Position, float]:
    """Return where the rungs of ``names`` lead, and the signal to noise there on other images."""
    fit, held, count = divide(batches, len(DATA))
    ground = Ground(prepare_basis(model, MANIFEST, fit), fit, held, count)
    position: Position | None = None
    for name in names:
        position = RUNGS[name](ground, position, no_progress) or position
    assert position is not None
    return position, sqnr_db(run(model, TEST), run(write_quantizers(position.draft)[0], TEST))


def uneven_depthwise() -> ir.Model:
    """One channel sixty times as wide as the others: one uint8 scale cannot hold them all."""
    rng = np.random.default_rng(4)
    spread = np.array([1, 1, 1, 1, 1, 1, 1, 60], np.float32)
    wide = (rng.standard_normal((8, 3, 1, 1)) * 0.3).astype(np.float32) * spread.reshape(8, 1, 1, 1)
    reader = (rng.standard_normal((8, 1, 3, 3)) * 0.3).astype(np.float32) / spread.reshape(8, 1, 1, 1)
    body = f"a = Conv(image, w) r = Relu(a) d = Conv<group=8>(r, v, b) e = Relu(d) {HEAD}"
    return small_model(body, {"w": wide, "v": reader, "b": (8,), "u": (8, 5)})


def correlated_inputs() -> ir.Model:
    """Many inputs that rise and fall together: errors of neighbouring weights can cancel, if they are chosen to."""
    shapes = {"w": (48, 3, 1, 1), "v": (8, 48, 3, 3), "b": (8,), "u": (8, 5)}
    body = f"a = Conv(image, w) d = Conv<pads=[1,1,1,1]>(a, v, b) e = Relu(d) {HEAD}"
    return small_model(body, shapes)


def test_searched_ranges_gain_where_outliers_are_not_read() -> None:
    model = uneven_depthwise()
    reader = np.array(model.graph.initializers["v"].const_value.numpy())  # type: ignore[union-attr]
    reader[-1] *= 1e-4
    model.graph.initializers["v"].const_value = ir.tensor(reader, name="v")
    plain, better = (walked(model, names)[1] for names in (["per-channel"], ["per-channel", "ranges"]))
    assert better > plain + 6


def test_equalization_gains_where_channels_differ() -> None:
    model = uneven_depthwise()
    plain, better = (walked(model, names)[1] for names in (["per-channel"], ["per-channel", "equalize"]))
    assert better > plain + 3


def test_correction_on_codes_gains_where_ranges_clip() -> None:
    model = uneven_depthwise()
    position, _ = walked(model, ["per-channel"])
    clipping = {n: Range(r.low, r.high * (0.3 if n == "r" else 1)) for n, r in position.draft.ranges.items()}
    fit, held, count = divide(batches, len(DATA))
    ground = Ground(prepare_basis(model, MANIFEST, fit), fit, held, count)
    clipped = replace(position, draft=replace(position.draft, ranges=clipping))
    mended = RUNGS["bias"](ground, clipped, no_progress)
    assert mended is not None
    before, after = (sqnr_db(run(model, TEST), run(write_quantizers(p.draft)[0], TEST)) for p in (clipped, mended))
    assert after > before + 0.5


def test_learned_rounding_gains_where_inputs_go_together() -> None:
    model = correlated_inputs()
    position, plain = walked(model, ["per-channel"])
    learned, better = walked(model, ["per-channel", "round"])
    assert better > plain
    layer = position.draft.placement.layers[1]
    assert (learned.draft.weights[layer].codes != position.draft.weights[layer].codes).any()


@pytest.mark.parametrize("last", range(1, len(RUNGS) + 1))
def test_every_stretch_of_the_ladder_gives_the_same_bytes_twice(last: int) -> None:
    names = list(RUNGS)[:last]
    first, second = (walked(uneven_depthwise(), names)[0].draft for _ in range(2))
    assert ir.to_proto(write_quantizers(first)[0]).SerializeToString(deterministic=True) == ir.to_proto(
        write_quantizers(second)[0]
    ).SerializeToString(deterministic=True)
