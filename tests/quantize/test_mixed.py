from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
from small_graphs import MANIFEST, images, residual_model, run, sqnr_db

from edgecv.errors import UsageError
from edgecv.quantize import mixed
from edgecv.quantize.affine import Range
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import Draft, write_quantizers
from edgecv.quantize.mixed import KeepFloat, mix, parse_keep_float

DATA = images(32)
OTHERS = images(32, seed=7)


def one_bad_layer() -> ir.Model:
    """Conv_4 reads a channel that is always zero with weights of 50, whose scale leaves no codes for the others."""
    rng = np.random.default_rng(0)
    weight = np.float32(rng.standard_normal((8, 8, 1, 1)) * 0.1)
    weight[:, 0] = 50
    bias = np.zeros(8, np.float32)
    bias[0] = -100
    return residual_model(w3=weight, b2=bias)


def drafted(model: ir.Model, changed: Mapping[str, Range] | None = None) -> tuple[Draft, ir.Model]:
    basis = prepare_basis(model, MANIFEST, lambda: iter([DATA]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([DATA]))
    spans = {**basis.pixels, **ranges_of(seen, "mse"), **(changed or {})}
    return draft_network(basis.model, basis.placement, spans, seen), basis.model


def a_millisecond_each(draft: Draft) -> float:
    return float(len(draft.placement.kept_float))


def test_just_the_bad_layer_is_kept_float_and_the_error_falls() -> None:
    draft, own = drafted(one_bad_layer())
    found = mix(draft, own, DATA, cost_of=a_millisecond_each, budget_ms=1.0)
    assert found.layers == ("Conv_4",)
    assert found.moves[0].gain > 0.9
    assert (found.moves[0].cost_ms, found.cost_ms) == (1.0, 1.0)
    reference = run(own, OTHERS)
    before, after = (sqnr_db(reference, run(write_quantizers(d)[0], OTHERS)) for d in (draft, found.draft))
    assert after > before + 10


def test_a_tensor_is_freed_by_keeping_who_writes_and_who_reads_it() -> None:
    draft, own = drafted(residual_model(), {"r": Range(0.0, 60.0)})
    found = mix(draft, own, DATA, cost_of=a_millisecond_each, budget_ms=2.0)
    assert found.layers == ("Conv_2", "Conv_4")
    assert found.moves[0].gain > 0.8
    assert "r" not in found.draft.placement.tensors


def test_the_budget_is_kept() -> None:
    draft, own = drafted(one_bad_layer())
    found = mix(draft, own, DATA, cost_of=a_millisecond_each, budget_ms=0.5)
    assert found.layers == ()
    assert found.draft is draft
    assert found.error == found.error_before


def test_the_cheaper_of_two_equal_gains_is_taken_first() -> None:
    draft, own = drafted(one_bad_layer(), {"low": Range(0.0, 30.0)})

    def dear(candidate: Draft) -> float:
        return 0.1 * len(candidate.placement.kept_float) + (
            100.0 if "Conv_4" in candidate.placement.kept_float else 0.0
        )

    found = mix(draft, own, DATA, cost_of=dear, budget_ms=50.0)
    assert "Conv_4" not in found.layers


def test_it_stops_at_the_target() -> None:
    draft, own = drafted(one_bad_layer(), {"image": Range(-30.0, 30.0)})
    free = mix(draft, own, DATA, cost_of=a_millisecond_each, budget_ms=100.0)
    assert len(free.moves) > 1
    target = 1.01 * free.error_before * (1 - free.moves[0].gain)
    stopped = mix(draft, own, DATA, cost_of=a_millisecond_each, budget_ms=100.0, target_error=target)
    assert stopped.moves == free.moves[:1]
    resumed = mix(draft, own, DATA, cost_of=a_millisecond_each, budget_ms=100.0, start=stopped)
    assert resumed.moves == free.moves
    assert resumed.cost_ms == free.cost_ms


@pytest.mark.parametrize("count", [1, 2])
def test_a_count_is_kept_whatever_it_gains(count: int) -> None:
    draft, own = drafted(one_bad_layer())
    found = mix(draft, own, DATA, count=count)
    assert len(found.layers) == count
    assert found.layers[0] == "Conv_4"
    assert found.cost_ms is None


def test_a_count_that_leaves_nothing_in_int8_is_refused() -> None:
    draft, own = drafted(one_bad_layer())
    with pytest.raises(UsageError, match="4 layers cannot stay float: int8 runs 4"):
        mix(draft, own, DATA, count=4)


def test_nothing_is_kept_where_nothing_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "SMALLEST_GAIN", 1.1)
    draft, own = drafted(residual_model())
    assert mix(draft, own, DATA, cost_of=a_millisecond_each, budget_ms=9.0).layers == ()


def test_what_keep_float_takes() -> None:
    assert parse_keep_float([]) == KeepFloat()
    assert parse_keep_float(["auto", "conv_stem", "auto"]) == KeepFloat(("conv_stem",), auto=True)
    assert parse_keep_float(["3"]).count == 3
    for values in (["auto", "3"], ["3", "4"]):
        with pytest.raises(UsageError, match="contradict each other"):
            parse_keep_float(values)
