import json
from pathlib import Path

import pytest

from edgecv.cli.main import main


@pytest.mark.slow
def test_the_demo_on_photographs_decides_nothing_on_a_handful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "photographs"]) == 0
    text = capsys.readouterr().out
    assert "undecided" in text
    assert "espresso" in text
    assert "smaller" in text


@pytest.mark.slow
def test_the_demo_on_the_users_images_judges_those_it_did_not_calibrate_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], imagenet_eval: Path
) -> None:
    import shutil

    monkeypatch.chdir(tmp_path)
    for folder in sorted(imagenet_eval.iterdir())[:40]:
        shutil.copytree(folder, tmp_path / "mine" / folder.name)
    assert main(["demo", "--data", "mine", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["photographs"]
    assert report["quantize"]["host"]["n"] + report["quantize"]["parity"]["n"] == 40
    assert report["quantize"]["parity"]["verdict"] in ("pass", "undecided")


@pytest.mark.slow
def test_the_demo_takes_digits_from_training_to_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["demo", "digits", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["digits"]
    stages = {row["stage"]: row for row in report["stages"]}
    assert list(stages) == ["train", "distill", "prune", "export", "quantize", "verify", "bench"]
    assert stages["verify"]["report"]["verdict"] == "pass"
    assert stages["verify"]["report"]["n"] == 599
    assert stages["distill"]["report"]["teacher"]["top1"] > 0.9
    assert stages["prune"]["report"]["after"]["macs"] <= 0.6 * stages["prune"]["report"]["before"]["macs"]
    assert Path(report["artifact"]).is_file()
    assert "PASS" in (Path(report["folder"]) / "report.md").read_text()
    assert main(["demo", "digits"]) == 0
    assert capsys.readouterr().out.count("cached") == 7


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["digit"], "digits"), (["digits", "--data", "."], "scikit-learn"), (["--data", ""], "empty")],
)
def test_a_wrong_part_is_told(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *arguments]) == 2
    assert hint in capsys.readouterr().err
