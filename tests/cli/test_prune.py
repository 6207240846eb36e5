import json
from pathlib import Path
from typing import Any

import pytest
from conftest import write_color_folder

from edgecv.cli.main import main

SMALL = "residual20:width=0.5"


def prune(*arguments: object) -> int:
    return main(["prune", *(str(a) for a in arguments)])


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what is to remain"),
        (["--to", "mac=0.5"], "Did you mean 'macs'"),
        (["--to", "macs=0.5", "--nm", "2:4"], "give one"),
        (["--to", "macs=0.5", "--criterion", "taylor"], "needs labelled images"),
        (["--to", "macs=0.5", "--criterion", "l9"], "criterion 'l9'"),
        (["--to", "macs=0.5", "--for-device", "rpi6"], "Did you mean 'rpi5'"),
        (["--to", "macs=0.5", "--eval-data", "."], "add --data"),
        (["--nm", "4:2"], "is not N:M"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_before_any_work(
    arguments: list[str], message: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(SMALL, "--random-init", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not runs.exists()


def test_without_data_it_says_that_nothing_was_healed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(SMALL, "--random-init", "--to", "macs=0.7", "--no-bench") == 0
    out = capsys.readouterr().out
    artifact = runs / "residual20-width-0.5-pruned" / "model.safetensors"
    assert "not healed" in out
    assert f"next:     edgecv export {artifact.relative_to(runs.parent)}" in out
    assert artifact.is_file()
    report = json.loads((artifact.parent / "prune.json").read_text())
    assert report["after"]["macs"] <= 0.7 * report["before"]["macs"]
    assert report["after"]["file_bytes"] < report["before"]["file_bytes"]
    assert report["host"]["seed"] == 0
    assert prune(artifact, "--to", "macs=0.9", "--no-bench", "-o", runs / "again") == 0, "a pruned network is a network"
    assert prune(SMALL, "--random-init", "--to", "macs=0.7", "--no-bench") == 2, "the folder holds one already"


def test_out_of_reach_is_one_sentence_and_no_artifact(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(SMALL, "--random-init", "--to", "macs=0.01", "--no-bench", "-o", runs / "x", "--quiet") == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert not list((runs / "x").glob("*.safetensors"))


def healed(runs: Path, *arguments: object) -> dict[str, Any]:
    data = runs.parent / "colors"
    if not data.exists():
        write_color_folder(data, per_class=12, size=16)
        assert main(
            ["train", "residual20:width=0.5", "--data", str(data), "--epochs", "1", "--batch", "8", "--input-size", "8",
             "--workers", "0", "-o", str(runs / "t")]
        ) == 0  # fmt: skip
    model = runs / "t" / "model.safetensors"
    fixed = ("--data", data, "--batch", 8, "--workers", 0, "--no-bench", "--precision", "float32")
    assert prune(model, *fixed, *arguments) == 0
    output = arguments[arguments.index("-o") + 1]
    report: dict[str, Any] = json.loads((Path(str(output)) / "prune.json").read_text())
    return report


@pytest.mark.slow
def test_it_heals_between_steps_and_goes_on_after_a_kill(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ("--to", "macs=0.6", "--steps", 2, "--epochs", 2, "--criterion", "taylor")
    report = healed(runs, *how, "-o", runs / "a")
    assert [s["step"] for s in report["steps"]] == [1, 2]
    assert report["steps"][0]["macs"] > report["steps"][1]["macs"]
    assert 0 <= report["after"]["top1"] <= 1
    healed(runs, *how, "-o", runs / "b")
    whole = (runs / "b" / "model.safetensors").read_bytes()
    assert whole == (runs / "a" / "model.safetensors").read_bytes(), "same seed, same bits"
    for name in ("model.safetensors", "pruned.safetensors", "prune.json"):  # as if killed while the second step was cut
        (runs / "b" / name).unlink()
    for file in (runs / "b" / "checkpoints").iterdir():
        file.unlink()
    healed(runs, *how, "-o", runs / "b", "--resume")
    assert (runs / "b" / "model.safetensors").read_bytes() == whole
    capsys.readouterr()
    model = runs / "t" / "model.safetensors"
    data = runs.parent / "colors"
    assert prune(model, "--data", data, "--to", "macs=0.7", "--resume", "--no-bench", "-o", runs / "b") == 2
    assert "was pruned with" in capsys.readouterr().err


@pytest.mark.slow
def test_zero_weights_survive_healing_and_are_said_to_be_no_faster(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = healed(runs, "--unstructured", 0.8, "--epochs", 2, "-o", runs / "u")
    assert report["sparsity"]["share"] == pytest.approx(0.8, abs=1e-3)
    assert [round(s["zeros"], 2) for s in report["steps"]] == [0.7, 0.8], "cubic"
    assert report["sparsity"]["compressed_after"]["zip"] < 0.5 * report["sparsity"]["compressed_before"]["zip"]
    assert "no faster" in capsys.readouterr().out
