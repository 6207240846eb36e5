"""edgecv doctor as a user runs it."""

import json

import pytest

from edgecv.cli.main import main
from edgecv.runtime import diagnosis
from edgecv.runtime.owners import Owner


def test_healthy_machine_exits_0_with_tables_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for text in (
        "onnxruntime",
        "cores usable",
        "int8 dot product",
        "cpu",
        "starts",
        "verdict:",
        "ready to run models on: ",
    ):
        assert text in out


def test_json_is_one_object_with_host_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert {"owners", "providers", "problems", "cores", "packages", "edgecv", "cpu_flags", "seed", "n"} <= set(result)
    assert {p["name"]: p["status"] for p in result["providers"]}["cpu"] == "starts"


def test_clash_exits_3_and_prints_both_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [Owner("onnxruntime", "1.31.1"), Owner("onnxruntime-gpu", "1.31.1")]
    monkeypatch.setattr(diagnosis, "onnxruntime_owners", lambda path: both)
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "    fix: pip uninstall -y onnxruntime onnxruntime-gpu\n" in out
    assert "    fix: pip install 'edgecv[" in out
    assert "1 thing to mend before models run" in out


def test_no_onnxruntime_exits_3_with_the_install_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "onnxruntime_owners", lambda path: [])
    assert main(["doctor", "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    assert result["broken"] == 1
    assert "pip install 'edgecv[cpu]'" in result["problems"][0]["fix"][0]


def test_quiet_is_the_verdict_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("verdict:")
    assert captured.out.count("\n") == 1
    assert captured.err == ""
