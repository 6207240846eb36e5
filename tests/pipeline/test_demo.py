import json
from pathlib import Path

import pytest

from edgecv.cli.main import main


@pytest.mark.slow
def test_the_demo_runs_the_whole_chain_and_decides_nothing_on_a_handful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
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
    report = json.loads(capsys.readouterr().out)
    assert report["quantize"]["host"]["n"] + report["quantize"]["parity"]["n"] == 40
    assert report["quantize"]["parity"]["verdict"] in ("pass", "undecided")
