import json
from pathlib import Path

import pytest
from conftest import write_color_folder

from edgecv.cli.main import main
from edgecv.nn.checkpoint import load_network

OPTIONS = ["--epochs", "1", "--batch", "8", "--workers", "0", "--threads", "1", "--input-size", "16"]


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_folder(tmp_path_factory.mktemp("data") / "colors", per_class=10, size=20)


@pytest.fixture(scope="module")
def run(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "speednet:width=0.1", "--data", str(colors), "-o", str(folder), *OPTIONS]) == 0
    return folder


def test_the_run_folder_has_artifact_report_log_and_picture(run: Path) -> None:
    assert {"model.safetensors", "train.json", "log.csv", "curves.png", "checkpoints"} <= {
        p.name for p in run.iterdir()
    }
    report = json.loads((run / "train.json").read_text())
    assert report["settings"]["epochs"] == 1
    assert report["data"]["digest"]
    assert report["host"]["seed"] == 0
    low, high = report["top1_interval"]
    assert low <= report["top1"] <= high


def test_the_artifact_knows_classes_and_history(run: Path) -> None:
    network = load_network(run / "model.safetensors")
    assert network.labels == ("blue", "green", "red")
    assert network.stages[-1]["name"] == "train"


def test_text_ends_with_verdict_artifact_and_export(
    colors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "speednet:width=0.1", "--data", str(colors), "-o", str(tmp_path / "run"), *OPTIONS]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    last = out.splitlines()[-3:]
    assert "held-out top-1" in last[0]
    assert "interval" in last[0]
    assert last[2].endswith(f"edgecv export {tmp_path / 'run' / 'model.safetensors'}")
    assert "epoch 1/1: loss" in err


def test_a_folder_with_a_training_is_refused_unless_forced_or_resumed(
    colors: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "speednet:width=0.1", "--data", str(colors), "-o", str(run), *OPTIONS]
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    before = (run / "model.safetensors").read_bytes()
    assert main([*arguments, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best_epoch"] == 1
    assert main([*arguments, "--force", "-q"]) == 0
    assert (run / "model.safetensors").read_bytes() == before


def test_another_learning_rate_on_resuming_is_refused_by_name(
    colors: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "speednet:width=0.1", "--data", str(colors), "-o", str(run), *OPTIONS]
    assert main([*arguments, "--resume", "--learning-rate", "0.5"]) == 2
    assert "learning_rate was" in capsys.readouterr().err


def test_a_checkpoint_with_other_classes_gets_a_new_head(run: Path, tmp_path: Path) -> None:
    data = write_color_folder(tmp_path / "colors", per_class=10, size=20)
    (data / "blue").rename(tmp_path / "blue")
    folder = tmp_path / "tuned"
    arguments = ["train", str(run / "model.safetensors"), "--data", str(data), "-o", str(folder), *OPTIONS]
    assert main([*arguments, "--freeze", "all-but-head", "-q"]) == 0
    assert load_network(folder / "model.safetensors").labels == ("green", "red")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "epochs 0"),
        (["--schedule", "cosin"], "cosine"),
        (["--pretrained", "--weights", "x.pth"], "contradict"),
        (["--freeze-to", "stagez.0"], "stages.0"),
        (["--resume", "--force"], "give one"),
        (["--device", "cuda"], "CUDA"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], words: str, colors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", "speednet", "--data", str(colors), "-o", str(tmp_path / "run"), *OPTIONS, *arguments])
    assert code in (2, 3)
    assert words in capsys.readouterr().err
