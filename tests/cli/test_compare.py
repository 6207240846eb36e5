import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.cli.main import main


def write(path: Path, ms: float, **host: Any) -> str:
    medians = ms * np.random.default_rng(0).normal(1, 0.003, 60)
    result = {"model": "m.onnx", "provider": "cpu", "batch": 1, "threads": 1, "turn_medians_ms": medians.tolist()}
    path.write_text(json.dumps({"schema": 1, "kind": "bench", "host": host, "results": [result]}))
    return str(path)


@pytest.fixture
def before(tmp_path: Path) -> str:
    return write(tmp_path / "before.json", 10.0)


@pytest.mark.parametrize(
    ("after_ms", "code", "verdict"), [(10.1, 0, "pass"), (11.0, 1, "fail"), (10.3, 4, "undecided")]
)
def test_exit_code_follows_the_interval(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], after_ms: float, code: int, verdict: str
) -> None:
    after = write(tmp_path / "after.json", after_ms)
    assert main(["compare", before, after, "--max-regress", "3%"]) == code
    assert f"verdict:  {verdict}: m.onnx" in capsys.readouterr().out


def test_without_a_limit_the_ratio_is_told_and_nothing_fails(
    before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", before, write(tmp_path / "after.json", 20.0), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == ""
    (change,) = result["changes"]
    assert change["slowdown"]["estimate"] == pytest.approx(2.0, rel=0.01)
    assert change["slowdown"]["low"] < 2.0 < change["slowdown"]["high"]


def test_percent_sign_may_be_left_out(before: str, tmp_path: Path) -> None:
    assert main(["compare", before, write(tmp_path / "after.json", 11.0), "--max-regress", "30"]) == 0


def test_other_machine_is_pointed_out(before: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", before, write(tmp_path / "after.json", 10.0, cpu="another")])
    assert "cpu: None → another" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["x", "-1%", "nan", "inf", "%"])
def test_limit_that_is_no_percentage_is_refused(before: str, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    assert main(["compare", before, before, "--max-regress", limit]) == 2
    assert "is not a percentage" in capsys.readouterr().err


def test_missing_report_is_refused(before: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", before, "nope.json"]) == 2
    assert capsys.readouterr().err == "error: report 'nope.json' does not exist; check the path.\n"
