"""edgecv predict as a user, and as a hostile one, runs it."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from conftest import build_tiny_model

from edgecv.cli.main import main
from edgecv.manifest import OutputSpec
from edgecv.workspace import set_current_model


def test_image_is_classified_and_the_verdict_names_it(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(color_folder / "blue" / "0.png"), "--model", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    assert "probability" in out
    assert out.splitlines()[-2].startswith("verdict:  blue (")


def test_current_model_is_taken_and_named(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    set_current_model(tiny_model)
    assert main(["predict", str(color_folder / "red" / "0.png")]) == 0
    assert "model: tiny.onnx (the current one)" in capsys.readouterr().out


def test_no_model_and_no_current_one_says_what_to_do(
    tmp_path: Path, color_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(color_folder / "red" / "0.png")]) == 2
    assert "edgecv export MODEL" in capsys.readouterr().err


def test_json_holds_every_prediction_and_the_host(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(color_folder / c / "1.png") for c in ("red", "green", "blue")]
    assert main(["predict", *images, "--model", str(tiny_model), "--json", "--top", "2", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert [p["label"] for p in result["predictions"]] == ["red", "green", "blue"]
    assert [p["image"] for p in result["predictions"]] == images
    assert all(len(p["top"]) == 2 for p in result["predictions"])
    assert (result["n"], result["threads"], result["provider"], result["failed"]) == (3, 1, "cpu", [])
    assert result["versions"]["numpy"] == np.__version__


def test_one_bad_image_among_good_ones_is_told_and_the_others_go_on(
    tiny_model: Path, color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    os.mkfifo(tmp_path / "pipe.jpg")
    images = [
        str(color_folder / "red" / "0.png"),
        str(tmp_path / "text.jpg"),
        str(tmp_path / "pipe.jpg"),
        str(tmp_path),
        str(color_folder / "green" / "0.png"),
    ]
    assert main(["predict", *images, "--model", str(tiny_model), "--json"]) == 2
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert [p["label"] for p in result["predictions"]] == ["red", "green"]
    assert [f["image"] for f in result["failed"]] == images[1:4]
    lines = captured.err.splitlines()
    assert len(lines) == 4
    assert "text.jpg' is not an image" in lines[0]
    assert "pipe.jpg' is not a regular file" in lines[1]
    assert lines[3] == "error: 3 of 5 images could not be used; the other 2 were classified."


def test_one_image_that_is_bad_is_one_line(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "none.jpg", "--model", str(tiny_model)]) == 2
    assert capsys.readouterr() == ("", "error: image 'none.jpg' does not exist; check the path.\n")


def test_only_bad_images_are_a_line_each_and_a_true_one_at_the_end(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "none.jpg", "no\nne\x1b[31m.jpg", "--model", str(tiny_model)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: image 'none.jpg' does not exist; check the path.",
        "error: image 'no\\nne\\x1b[31m.jpg' does not exist; check the path.",
        "error: none of the 2 images could be used.",
    ]


def test_what_steers_a_terminal_is_shown_and_not_obeyed(
    tmp_path: Path, color_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = OutputSpec("logits", labels=("r\ned\x1b[31m", "green", "blue"))
    model = build_tiny_model(tmp_path / "m.onnx", output=labels)
    image = Path("a\x1b]0;b\x07.png")
    image.write_bytes((color_folder / "red" / "0.png").read_bytes())
    assert main(["predict", str(image), "--model", str(model)]) == 0
    out = capsys.readouterr().out
    assert "verdict:  r\\ned\\x1b[31m (" in out
    assert "a\\x1b]0;b\\x07.png" in out
    assert "\x1b" not in out
    assert "\x07" not in out


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="onnxruntime-gpu is installed")
def test_cuda_here_exits_3_and_names_what_is_missing(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(color_folder / "red" / "0.png")
    assert main(["predict", image, "--model", str(tiny_model), "--provider", "cuda"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: provider 'cuda' is not in the installed onnxruntime")
    assert "pip uninstall -y onnxruntime && pip install 'edgecv[gpu]'" in captured.err


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="onnxruntime-gpu is installed")
def test_ordered_fallback_says_what_was_obtained(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(color_folder / "red" / "0.png")
    assert main(["predict", image, "--model", str(tiny_model), "--provider", "cuda,cpu"]) == 0
    assert "cpu instead of cuda: " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--provider", "cudda"], "Did you mean 'cuda'?"),
        (["--threads", "none"], "threads must be 'auto' or a number"),
        (["--top", "0"], "--top"),
        (["--model", "missing.onnx"], "model 'missing.onnx' does not exist"),
        (["--model", "."], "is a folder"),
        (["--modell", "x"], "No such option"),
    ],
)
def test_wrong_options_exit_2_with_one_line(
    arguments: list[str], reason: str, tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if "--model" in arguments else ["--model", str(tiny_model)]
    assert main(["predict", str(color_folder / "red" / "0.png"), *given, *arguments]) == 2
    captured = capsys.readouterr()
    assert reason in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_foreign_model_exits_2_with_the_way_to_adopt_it(
    tmp_path: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build_tiny_model(tmp_path / "foreign.onnx", with_manifest=False)
    assert main(["predict", str(color_folder / "red" / "0.png"), "--model", str(path)]) == 2
    assert "edgecv export" in capsys.readouterr().err


def test_no_image_at_all_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict"]) == 2
    assert "images" in capsys.readouterr().err
