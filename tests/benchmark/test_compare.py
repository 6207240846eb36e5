from typing import Any

import numpy as np
import pytest

from edgecv.benchmark.compare import compare_results, host_differences, overall_verdict
from edgecv.errors import UsageError


def result(
    model: str = "m.onnx", ms: float = 10.0, noise: float = 0.005, batch: int = 1, rounds: int = 60
) -> dict[str, Any]:
    medians = ms * np.random.default_rng(int(ms * 100)).normal(1, noise, rounds)
    return {
        "model": f"folder/{model}",
        "provider": "cpu",
        "batch": batch,
        "threads": 1,
        "turn_medians_ms": list(medians),
    }


@pytest.mark.parametrize(
    ("after_ms", "noise", "verdict"),
    [
        (10.0, 0.005, "pass"),
        (9.0, 0.005, "pass"),
        (11.0, 0.005, "fail"),
        (10.3, 0.01, "undecided"),
        (10.0, 0.3, "undecided"),
    ],
)
def test_slowdown_is_judged_by_its_interval(after_ms: float, noise: float, verdict: str) -> None:
    (change,) = compare_results([result()], [result(ms=after_ms, noise=noise)], max_regress=0.03)
    assert change.verdict == verdict
    assert change.slowdown is not None
    assert change.slowdown.low <= after_ms / 10 * 1.05
    assert change.slowdown.high >= after_ms / 10 * 0.95


def test_no_limit_gives_no_verdict() -> None:
    (change,) = compare_results([result()], [result(ms=20.0)])
    assert change.verdict == ""
    assert overall_verdict([change]) == ""


def test_results_are_matched_by_file_name_provider_batch_and_threads() -> None:
    before = [result("a.onnx", 10.0), result("b.onnx", 20.0), result("b.onnx", 80.0, batch=8)]
    after = [result("b.onnx", 80.0, batch=8), result("c.onnx", 1.0), result("a.onnx", 11.0)]
    changes = compare_results(before, after)
    assert [(c.before, c.before == c.after) for c in changes] == [
        ("b.onnx on cpu (batch 8, threads 1)", True),
        ("a.onnx on cpu (batch 1, threads 1)", True),
    ]
    assert changes[0].slowdown is not None
    assert changes[0].slowdown.estimate == pytest.approx(1.0, rel=0.01)


def test_two_single_results_are_compared_whatever_they_are_per_image() -> None:
    (change,) = compare_results([result("a.onnx", 10.0)], [result("a.int8.onnx", 40.0, batch=8)])
    assert change.slowdown is not None
    assert change.slowdown.estimate == pytest.approx(0.5, rel=0.01)


def test_nothing_in_common_is_an_error_that_shows_both() -> None:
    with pytest.raises(UsageError, match=r"a\.onnx .* against c\.onnx"):
        compare_results([result("a.onnx"), result("b.onnx")], [result("c.onnx"), result("d.onnx")])


def test_too_few_rounds_are_undecided() -> None:
    (change,) = compare_results([result(rounds=3)], [result(rounds=3)], max_regress=0.03)
    assert change.slowdown is None
    assert change.verdict == "undecided"


def test_worst_verdict_wins() -> None:
    changes = compare_results(
        [result("a.onnx"), result("b.onnx")], [result("a.onnx"), result("b.onnx", 12.0)], max_regress=0.03
    )
    assert [c.verdict for c in changes] == ["pass", "fail"]
    assert overall_verdict(changes) == "fail"


def test_changed_ground_is_named() -> None:
    assert host_differences({"cpu": "a", "os": "x"}, {"cpu": "b", "os": "x"}) == ["cpu: a → b"]
