import numpy as np
import pytest
from small_graphs import MANIFEST, images, residual_model

from edgecv.benchmark.statistics import Interval
from edgecv.pipeline import mixed_precision
from edgecv.pipeline.layer_cost import CostMeter
from edgecv.pipeline.mixed_precision import Machine, mix_precision
from edgecv.quantize.basis import Basis, draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import Draft

DATA = images(32)


@pytest.fixture
def bad() -> tuple[Draft, Basis]:
    """Conv_4 reads a channel that is always zero with weights of 50, whose scale leaves no codes for the others."""
    weight = np.float32(np.random.default_rng(0).standard_normal((8, 8, 1, 1)) * 0.1)
    weight[:, 0] = 50
    bias = np.zeros(8, np.float32)
    bias[0] = -100
    basis = prepare_basis(residual_model(w3=weight, b2=bias), MANIFEST, lambda: iter([DATA]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([DATA]))
    return draft_network(basis.model, basis.placement, {**basis.pixels, **ranges_of(seen, "mse")}, seen), basis


def test_the_worst_layer_is_kept_and_timed_on_this_machine(bad: tuple[Draft, Basis]) -> None:
    draft, basis = bad
    found, report = mix_precision(draft, basis.model, DATA, basis.rewrites, count=1, machine=Machine(threads="1"))
    assert found.placement.kept_float == {"Conv_4": "kept in float for accuracy"}
    assert report["kept"][0]["layers"] == ["Conv_4"]
    assert report["sqnr_db"] > report["sqnr_db_before"] + 8
    estimate, low, high = report["slowdown"]
    assert 0 < low <= estimate <= high
    assert report["n"] == 32


def test_moves_the_whole_network_is_too_slow_with_are_taken_back(
    bad: tuple[Draft, Basis], monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, basis = bad
    timed = []

    def slow_with_any(*arguments: object) -> Interval:
        timed.append(arguments[1])
        return Interval(1.5, 1.4, 1.6, 0.95)

    monkeypatch.setattr(mixed_precision, "_slowdown", slow_with_any)
    monkeypatch.setattr("edgecv.pipeline.layer_cost.CostMeter.cost_ms", lambda *_: 0.0)
    found, report = mix_precision(draft, basis.model, DATA, basis.rewrites, machine=Machine(threads="1"))
    assert found is draft
    assert report["kept"] == []
    assert len(report["undone"]) == len(timed) > 0
    assert report["sqnr_db"] == report["sqnr_db_before"]


@pytest.mark.parametrize(("doubtful", "kept"), [(1.05, 2), (1.2, 1)])
def test_a_budget_that_is_hardly_used_is_used_further_where_the_time_is_shown(
    bad: tuple[Draft, Basis], monkeypatch: pytest.MonkeyPatch, doubtful: float, kept: int
) -> None:
    draft, basis = bad
    highs = iter([1.02, doubtful])
    monkeypatch.setattr(mixed_precision, "_slowdown", lambda *_: Interval(1.01, 1.0, next(highs), 0.95))

    def dear(meter: CostMeter, candidate: Draft) -> float:
        return 0.09 * meter.int8_ms * len(candidate.placement.kept_float)

    monkeypatch.setattr("edgecv.pipeline.layer_cost.CostMeter.cost_ms", dear)
    monkeypatch.setattr("edgecv.quantize.mixed.SMALLEST_GAIN", 0.0)
    _, report = mix_precision(draft, basis.model, DATA, basis.rewrites, machine=Machine(threads="1"))
    assert sum(len(move["layers"]) for move in report["kept"]) == kept
