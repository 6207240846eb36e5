import json
from pathlib import Path

import pytest
from conftest import build_tiny_model

from edgecv.cli.main import main
from edgecv.workspace import set_current_model


def test_the_current_model_is_taken_and_named(
    tiny_model: Path, color_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    set_current_model(tiny_model)
    assert main(["eval", "--data", str(color_folder), "--per-class"]) == 0
    out = capsys.readouterr().out
    assert "tiny.onnx: top-1 100.00% (82.41% to 100.00%) on 18 images" in out
    assert "green" in out


def test_json_reports_every_model(
    tiny_model: Path, color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = build_tiny_model(tmp_path / "other.onnx", noise=0.4)
    assert main(["eval", str(tiny_model), str(other), "--data", str(color_folder), "--tta", "flip", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [Path(m["file"]).name for m in result["models"]] == ["tiny.onnx", "other.onnx"]
    assert result["models"][0]["top"]["1"]["accuracy"] == 1.0
    assert result["host"]["n"] == 18


@pytest.mark.parametrize("option", [["--tta", "sixcrop"], ["--threads", "none"], ["--provider", "gpu"]])
def test_bad_options_are_exit_2(
    option: list[str], tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(tiny_model), "--data", str(color_folder), *option]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unknown_class_folder_shows_the_nearest_label(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (color_folder / "green").rename(color_folder / "grene")
    assert main(["eval", str(tiny_model), "--data", str(color_folder)]) == 2
    assert "'grene' matches none of the model's 3 labels. Did you mean 'green'" in capsys.readouterr().err
