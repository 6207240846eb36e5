import json
from pathlib import Path

import pytest
from conftest import build_tiny_model, write_color_folder

from edgecv.cli.main import main
from edgecv.files import sha256_file
from edgecv.workspace import set_current_model

KEYS = {"agreement", "drop_points", "drop_interval", "verdict", "n", "images_needed"}


def run(*arguments: object) -> int:
    return main(["verify", *(str(a) for a in arguments)])


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "worse.onnx", noise=2.0, seed=5)


def test_pass_is_exit_0_and_goes_on_to_bench(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_model, tiny_model, "--data", color_folder, "--max-drop", 30) == 0
    out = capsys.readouterr().out
    assert f"candidate {tiny_model}, reference {tiny_model}" in out
    assert "verdict:  PASS" in out
    assert "next:     edgecv bench" in out


def test_fail_is_exit_1_and_goes_on_to_layers(
    tiny_model: Path, worse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_color_folder(tmp_path / "many", per_class=12)
    assert run(tiny_model, worse, "--data", data, "--max-drop", 1) == 1
    out = capsys.readouterr().out
    assert "verdict:  FAIL" in out
    assert "--layers" in out
    assert "harmful: " in out


def test_undecided_is_exit_4_with_the_number_of_images(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_model, tiny_model, "--data", color_folder) == 4
    out = capsys.readouterr().out
    assert "about 765 images would decide" in out
    assert "default of 0.5 points" in out


def test_json_has_the_keys_others_rely_on(
    tiny_model: Path, worse: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_model, worse, "--data", color_folder, "--max-drop", 0.5, "--json", "--layers", "--seed", 7)
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= KEYS
    assert 0 <= result["agreement"] <= 1
    assert result["n"] == 18
    assert len(result["drop_interval"]) == 2
    assert result["verdict"] in ("pass", "fail", "undecided")
    assert result["host"]["seed"] == 7
    assert result["host"]["n"] == 18
    assert result["layers"]["first_below"]


def test_quiet_prints_the_verdict_alone(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_model, tiny_model, "--data", color_folder, "--quiet")
    captured = capsys.readouterr()
    assert captured.out.startswith("verdict:")
    assert len(captured.out.splitlines()) == 1
    assert captured.err == ""


def test_no_models_means_the_current_one_against_its_parent(
    tiny_model: Path, color_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_from = {"file": tiny_model.name, "sha256": sha256_file(tiny_model)}
    child = build_tiny_model(tiny_model.with_name("child.onnx"), made_from=made_from)
    monkeypatch.chdir(tiny_model.parent)
    set_current_model(child)
    assert run("--data", color_folder, "--max-drop", 30) == 0
    assert "candidate child.onnx, reference tiny.onnx" in capsys.readouterr().out


def test_a_leak_is_exit_2_and_printed_when_allowed(
    tiny_model: Path, color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = (sha256_file(color_folder / "red" / "0.png"),)
    calibrated = build_tiny_model(tmp_path / "calibrated.onnx", calibration=used)
    assert run(tiny_model, calibrated, "--data", color_folder) == 2
    assert "--allow-leak" in capsys.readouterr().err
    assert run(tiny_model, calibrated, "--data", color_folder, "--allow-leak") == 4
    assert "LEAK: 1 of 18" in capsys.readouterr().out


@pytest.mark.parametrize(
    "case",
    [
        "no data",
        "no model",
        "folder as model",
        "random bytes",
        "truncated",
        "three",
        "empty data",
        "negative",
        "endless",
        "no name",
    ],
)
def test_bad_input_is_exit_2_and_one_line(
    case: str, tiny_model: Path, color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "random.onnx").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "cut.onnx").write_bytes(tiny_model.read_bytes()[:300])
    (tmp_path / "empty").mkdir()
    arguments = {
        "no data": [tiny_model, tiny_model, "--data", tmp_path / "nowhere"],
        "no model": [tiny_model, tmp_path / "nowhere.onnx", "--data", color_folder],
        "folder as model": [tiny_model, tmp_path, "--data", color_folder],
        "random bytes": [tiny_model, tmp_path / "random.onnx", "--data", color_folder],
        "truncated": [tiny_model, tmp_path / "cut.onnx", "--data", color_folder],
        "three": [tiny_model, tiny_model, tiny_model, "--data", color_folder],
        "empty data": [tiny_model, tiny_model, "--data", tmp_path / "empty"],
        "endless": [tiny_model, tiny_model, "--data", color_folder, "--max-drop", "inf"],
        "no name": [tiny_model, tiny_model, "--data", ""],
        "negative": [tiny_model, tiny_model, "--data", color_folder, "--max-drop", -1],
    }[case]
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err
