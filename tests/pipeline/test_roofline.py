"""Roofline: rows from a profile given here, and one real run."""

from pathlib import Path

import pytest
from small_graphs import residual_model

from edgecv.benchmark.profile import Profile, Slice
from edgecv.errors import UsageError
from edgecv.graph.shapes import fixed_shapes
from edgecv.pipeline.machine_peak import MachinePeak
from edgecv.pipeline.roofline import gain_by_operator, measure_roofline, place_under_roof

PEAK = MachinePeak(float32_gmacs=1.0, int8_gmacs=4.0, memory_gb_s=1.0, threads=1)


def _slice(name: str, operator: str, median_ms: float, moved: int) -> Slice:
    return Slice(name, 1, median_ms, 0.0, operator, "CPUExecutionProvider", median_ms, moved)


def _profile(*layers: Slice) -> Profile:
    return Profile(4, sum(s.median_ms for s in layers), 1.0, (), layers, (), 0, 0.0)


def test_a_node_is_held_against_the_slower_of_arithmetic_and_memory() -> None:
    rows = _profile(
        _slice("Conv_0", "Conv", 0.1, 1000),
        _slice("Conv_2", "QLinearConv", 0.1, 50_000),
        _slice("MaxPool_7", "MaxPool", 0.02, 10_000),
    )
    found = {r.name: r for r in place_under_roof(fixed_shapes(residual_model()), rows, PEAK).rows}
    conv = found["Conv_0"]
    assert (conv.macs, conv.arithmetic, conv.bound_by) == (8 * 144 * 27, "float32", "arithmetic")
    assert conv.bound_ms == pytest.approx(8 * 144 * 27 / 1e6)
    assert conv.reached == pytest.approx(conv.bound_ms / 0.1)
    assert conv.moved_bytes == 1000 + 4 * 224
    int8 = found["Conv_2"]
    assert (int8.arithmetic, int8.bound_by) == ("int8", "memory")
    assert int8.bound_ms == pytest.approx((50_000 + 4 * 80) / 1e6)
    assert found["MaxPool_7"].macs == 0


def test_most_to_win_comes_first_and_totals_agree() -> None:
    rows = _profile(_slice("Conv_0", "Conv", 0.05, 0), _slice("Conv_2", "Conv", 0.5, 0), _slice("x", "Relu", 0.2, 0))
    found = place_under_roof(fixed_shapes(residual_model()), rows, PEAK)
    assert [r.name for r in found.rows] == ["Conv_2", "x", "Conv_0"]
    assert found.kernel_ms == pytest.approx(0.75)
    assert found.matched == pytest.approx((27 + 9) * 1152 / (1152 * 44 + 40))
    assert [name for name, _, _ in gain_by_operator(found.rows)] == ["Conv", "Relu"]


def test_a_real_run_finds_every_layer(tiny_model: Path) -> None:
    found = measure_roofline(tiny_model, threads="1")
    assert found.matched == 1.0
    assert found.peak.float32_gmacs > 0
    assert found.peak.int8_gmacs > 0
    assert found.peak.memory_gb_s > 0
    assert {r.layer for r in found.rows} >= {"conv1", "conv2", "head"}
    assert all(r.latency_ms > 0 and r.bound_ms > 0 for r in found.rows if r.macs)


def test_only_the_cpu_has_a_measured_peak(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="cannot judge 'cuda'"):
        measure_roofline(tiny_model, provider="cuda")
