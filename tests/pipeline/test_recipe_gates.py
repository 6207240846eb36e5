from typing import Any

import pytest

from edgecv.config.recipe import Recipe, build_recipe
from edgecv.pipeline.recipe_gates import judge_gates, worst_of


def _recipe(gates: dict[str, float], **stages: Any) -> Recipe:
    table = {"name": "x", "model": "m", "export": {}, "quantize": {}, "verify": {}, "bench": {}, "gates": gates}
    return build_recipe(table | stages, "here")


def _verify(right: int, n: int, verdict: str = "pass") -> dict[str, Any]:
    top1 = {"reference": 1.0, "candidate": right / n}
    drop = {"drop_points": 0.1, "drop_interval": (-0.1, 0.3), "max_drop_points": 0.5, "reason": "so it is"}
    return {"verify": {"top1": top1, "n": n, "verdict": verdict, **drop}}


def _bench(low: float, high: float) -> dict[str, Any]:
    speedup = {"estimate": (low + high) / 2, "low": low, "high": high}
    times = {"latency_p50_ms": 3.0, "latency_p50_interval_ms": (low, high)}
    return {"bench": {"results": [{**times, "speedup": None}, {**times, "speedup": speedup}]}}


@pytest.mark.parametrize(("right", "verdict"), [(950, "pass"), (850, "fail"), (905, "undecided")])
def test_accuracy_passes_with_its_whole_interval_and_fails_with_all_of_it(right: int, verdict: str) -> None:
    (top1, drop) = judge_gates(_recipe({"top1": 0.9}), _verify(right, 1000), 0)
    assert (top1.gate, top1.verdict, drop.gate) == ("top1", verdict, "max_drop")
    if verdict == "undecided":
        assert "would decide" in top1.reason
        wanted = round(1.01 * int(top1.reason.split("about ")[1].split()[0]))
        assert judge_gates(_recipe({"top1": 0.9}), _verify(round(0.905 * wanted), wanted), 0)[0].verdict == "pass"


def test_images_without_labels_decide_no_accuracy() -> None:
    reports = _verify(1, 1)
    reports["verify"]["top1"] = None
    assert judge_gates(_recipe({"top1": 0.1}), reports, 0)[0].verdict == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(1.6, 1.8, "pass"), (1.2, 1.4, "fail"), (1.4, 1.6, "undecided"), (1.5, 1.6, "pass")]
)
def test_speed_is_a_ratio_with_an_interval(low: float, high: float, verdict: str) -> None:
    recipe = _recipe({"latency_ratio": 1.5}, verify={})
    assert judge_gates(recipe, _bench(low, high), 0)[0].verdict == verdict


@pytest.mark.parametrize(("limit", "verdict"), [(2.5, "pass"), (1.5, "fail"), (2.0, "undecided")])
def test_latency_is_a_limit_from_above(limit: float, verdict: str) -> None:
    (gate,) = judge_gates(_recipe({"latency_ms": limit}), _bench(1.8, 2.2), 0)
    assert gate.verdict == verdict
    assert gate.interval == (1.8, 2.2)


def test_size_is_exact() -> None:
    assert judge_gates(_recipe({"size_mb": 3.0}), {}, 3_000_000)[0].verdict == "pass"
    assert judge_gates(_recipe({"size_mb": 3.0}), {}, 3_000_001)[0].verdict == "fail"


def test_accuracy_of_a_chain_without_an_export_is_that_of_its_last_training() -> None:
    table = {"name": "x", "model": "m", "train": {}, "prune": {"to": "macs=0.5"}, "gates": {"top1": 0.9}}
    host = {"host": {"n": 1000}}
    reports = {"train": {"top1": 0.99, **host}, "prune": {"before": {"top1": 0.99}, "after": {"top1": 0.5}, **host}}
    assert judge_gates(build_recipe(table, "here"), reports, 0)[0].verdict == "fail"


def test_the_worst_verdict_is_the_runs() -> None:
    gates = judge_gates(_recipe({"top1": 0.9, "size_mb": 1.0}), _verify(905, 1000), 5)
    assert worst_of(gates) == "undecided"
    assert worst_of(judge_gates(_recipe({"top1": 0.9, "size_mb": 1.0}), _verify(905, 1000), 5_000_000)) == "fail"
    assert worst_of([]) == "pass"


def test_a_quantization_that_looked_often_is_judged_as_strictly_as_it_judged_itself() -> None:
    quantized = {"quantize": {"verdict": "undecided", "parity": {"reason": "looked 5 times"}}}
    (gate,) = judge_gates(_recipe({}), _verify(95, 100) | quantized, 0)
    assert (gate.verdict, gate.reason) == ("undecided", "looked 5 times")


@pytest.mark.parametrize(("target", "verdict"), [("met", "pass"), ("undecided", "undecided")])
def test_the_time_a_pruning_was_to_reach_is_a_gate(target: str, verdict: str) -> None:
    ratio = {"estimate": 0.55, "low": 0.5, "high": 0.6}
    report = {"target": target, "latency": {"ratio": ratio}, "settings": {"to": "latency=0.6@cpu"}}
    table = {"name": "x", "model": "m", "prune": {"to": "latency=0.6@cpu"}}
    (gate,) = judge_gates(build_recipe(table, "here"), {"prune": report}, 0)
    assert (gate.gate, gate.limit, gate.verdict) == ("prune.to", 0.6, verdict)
