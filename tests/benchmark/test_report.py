import json
from pathlib import Path
from typing import Any

import pytest

from edgecv.benchmark.report import SMALLEST_DIFFERENCE, load_results, ratio_verdict
from edgecv.benchmark.statistics import Interval
from edgecv.errors import UsageError

RESULT: dict[str, Any] = {"model": "m.onnx", "provider": "cpu", "batch": 1, "threads": 1, "turn_medians_ms": [1.0] * 20}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({"schema": 1, "kind": "bench", "host": {}, "results": [RESULT], **changes}))
    return path


def test_faster_candidate_is_called_so_with_its_interval() -> None:
    text = ratio_verdict("model.onnx", "model.int8.onnx", Interval(1.9, 1.85, 1.95))
    assert text == "model.int8.onnx is 1.90x faster than model.onnx here (95 % interval 1.85–1.95)"


def test_slower_candidate_is_turned_around_and_the_reference_kept() -> None:
    text = ratio_verdict("model.onnx", "model.int8.onnx", Interval(0.8, 0.75, 0.85))
    assert text.startswith("model.int8.onnx is 1.25x slower than model.onnx here (95 % interval 1.18–1.33)")
    assert text.endswith("keep model.onnx")


@pytest.mark.parametrize("interval", [Interval(1.1, 0.99, 1.2), Interval(1.01, 1.005, 1 + SMALLEST_DIFFERENCE / 2)])
def test_interval_that_touches_one_or_lies_within_the_margin_shows_no_difference(interval: Interval) -> None:
    assert ratio_verdict("a", "b", interval).startswith("no difference can be shown between b and a here")


def test_too_few_rounds_are_said() -> None:
    assert "too few rounds" in ratio_verdict("a", "b", None)


def test_report_is_read_back(tmp_path: Path) -> None:
    host, results = load_results(write(tmp_path / "r.json", host={"cpu": "x"}))
    assert host == {"cpu": "x"}
    assert results == [RESULT]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "parity"}, "not a report of edgecv bench"),
        ({"schema": 99}, "schema 99"),
        ({"schema": "1"}, "schema '1'"),
        ({"results": []}, "damaged"),
        ({"results": [{**RESULT, "turn_medians_ms": [1.0, -1.0]}]}, "damaged"),
        ({"results": [{**RESULT, "turn_medians_ms": None}]}, "damaged"),
        ({"results": [{**RESULT, "batch": 0}]}, "damaged"),
        ({"results": [{k: v for k, v in RESULT.items() if k != "model"}]}, "damaged"),
    ],
)
def test_damaged_report_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_results(write(tmp_path / "r.json", **changes))


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b"[]", b"[" * 100_000, b'{"kind": "bench", "schema": 1, "results": [NaN]}']
)
def test_file_that_is_no_report_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"r\.json"):
        load_results(path)


def test_doubt_about_either_of_two_models_is_in_the_ratios_verdict_and_names_it() -> None:
    from types import SimpleNamespace

    from edgecv.benchmark.report import _doubt

    steady = SimpleNamespace(model="x/float.onnx", unstable_reasons=())
    shaken = SimpleNamespace(model="x/int8.onnx", unstable_reasons=("other processes kept 1.0 cores busy",))
    assert _doubt(steady, steady) == ""  # type: ignore[arg-type]
    for pair in ((steady, shaken), (shaken, steady)):
        assert _doubt(*pair) == "; unstable (int8.onnx: other processes kept 1.0 cores busy)"  # type: ignore[arg-type]
