import json

import pytest
from conftest import build_tiny_model, write_color_folder

from edgecv.cli.main import main
from edgecv.config.distillation import DistillSettings
from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.nn.checkpoint import load_network
from edgecv.pipeline.distill import DistillRequest, distill_model
from edgecv.pipeline.train import TrainRequest

SETTINGS = TrainSettings(
    epochs=2, batch=6, learning_rate=0.05, augment=("flip",), workers=0, threads=1, precision="float32", input_size=16
)


@pytest.fixture
def colors(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_color_folder(tmp_path / "colors", per_class=8, size=16)


def request(colors, tmp_path, teacher, *, student="lenet5", distillation=None, **changes):
    train = TrainRequest(student, colors, SETTINGS, hold_out=0.25, output=tmp_path / "run", force=True)
    return DistillRequest(train, str(teacher), distillation=distillation or DistillSettings(), **changes)


def test_a_student_learns_from_an_onnx_teacher_of_another_size(colors, tmp_path):
    teacher = build_tiny_model(tmp_path / "tiny.onnx", size=32)
    report = distill_model(request(colors, tmp_path, teacher, student="mlp"))
    assert report["teacher"]["top1"] == 1.0  # it was made for these colours
    network = load_network(tmp_path / "run" / "model.safetensors")
    assert network.labels == ("blue", "green", "red")
    assert network.stages[-1]["name"] == "distill"
    assert network.stages[-1]["settings"]["teacher"] == str(teacher)


def test_kept_logits_serve_the_next_run_with_the_seed(colors, tmp_path):
    teacher = build_tiny_model(tmp_path / "tiny.onnx")
    reports = [
        distill_model(request(colors, tmp_path, teacher, student="mlp", distillation=DistillSettings(keep_logits="on")))
        for _ in range(2)
    ]
    assert reports[1]["history"][-1]["loss"] == reports[0]["history"][-1]["loss"]
    assert any("came from an earlier run" in note for note in reports[1]["notes"])


def test_an_automatic_student_is_like_the_network_named(colors, tmp_path):
    teacher = build_tiny_model(tmp_path / "tiny.onnx")
    report = distill_model(request(colors, tmp_path, teacher, student="auto", like="speednet:width=0.2", macs=0.5))
    network = load_network(tmp_path / "run" / "model.safetensors")
    assert [step["step"] for step in network.structure] == ["depthwise"]
    assert report["macs"] <= 0.5 * 8e6


def test_options_that_contradict_each_other_are_refused(colors, tmp_path):
    with pytest.raises(UsageError, match="--like resnet50"):
        distill_model(request(colors, tmp_path, "t.onnx", student="auto"))
    with pytest.raises(UsageError, match="--like goes with"):
        distill_model(request(colors, tmp_path, "t.onnx", like="resnet18"))


def test_the_command_reports_the_distance_to_the_teacher(colors, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_tiny_model(tmp_path / "tiny.onnx")
    options = ["--epochs", "1", "--batch", "6", "--workers", "0", "--threads", "1", "--input-size", "16", "-o", "run"]
    common = ["--teacher", "tiny.onnx", "--data", str(colors), "--hints", "", *options]
    assert main(["distill", "mlp", *common]) == 0
    out = capsys.readouterr().out
    assert "points to the teacher" in out
    assert "next:     edgecv export run/model.safetensors" in out
    report = json.loads((tmp_path / "run" / "train.json").read_text())
    assert report["teacher"]["name"] == "tiny.onnx"
    assert main(["distill", *common]) == 2
    assert "name one student" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "lenet6"], ["distill", "mlp", "--teacher", "nix.onnx"], ["train", "mlp"]])
def test_a_refusal_leaves_no_run_folder_behind(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--data", "nowhere"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_the_teacher_was_judged_by_judges_the_student_too(colors, tmp_path):
    from dataclasses import replace

    from edgecv.pipeline.train import train_model

    trained = train_model(TrainRequest("mlp", colors, SETTINGS, hold_out=0.25, output=tmp_path / "teacher", seed=3))
    asked = request(colors, tmp_path, trained["artifact"])
    distill_model(replace(asked, train=replace(asked.train, hold_out=0.5, seed=4)))
    assert (tmp_path / "run/split.csv").read_bytes() == (tmp_path / "teacher/split.csv").read_bytes()
