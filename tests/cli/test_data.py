import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import build_tiny_model

from edgecv.cli.main import main
from edgecv.data.folder import open_dataset
from edgecv.files import sha256_file


def run(*arguments: object) -> int:
    return main(["data", *(str(a) for a in arguments)])


def test_check_of_a_clean_folder_is_exit_0(color_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", color_folder) == 0
    assert "verdict:  ok" in capsys.readouterr().out


def test_check_lists_what_must_be_mended_and_is_exit_1(color_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (color_folder / "red" / "0.png").write_bytes(b"broken")
    shutil.copy(color_folder / "red" / "1.png", color_folder / "blue" / "same.png")
    assert run("check", color_folder) == 1
    out = capsys.readouterr().out
    assert "broken: red/0.png" in out
    assert "verdict:  to mend: 1 broken, 1 groups in conflicting classes" in out
    assert "other class: blue/same.png = red/1.png" in out


def test_pipes_and_broken_links_are_listed_and_noted(color_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (color_folder / "red" / "gone.png").symlink_to("nothing.png")
    os.mkfifo(color_folder / "red" / "pipe.png")
    assert run("check", color_folder) == 1
    out = capsys.readouterr().out
    assert "broken: red/gone.png: is a link that leads nowhere" in out
    assert "broken: red/pipe.png: is not a regular file" in out
    for command in ("split", "calib"):
        assert (
            run(
                command,
                color_folder,
                "-o",
                color_folder.parent / f"{command}.csv",
                *(["-n", 3][: 2 * (command == "calib")]),
            )
            == 0
        )
        assert "left out: 2 broken links or pipes" in capsys.readouterr().out


def test_check_against_another_set_finds_shared_images(
    color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "red"
    other.mkdir(parents=True)
    shutil.copy(color_folder / "red" / "1.png", other / "again.png")
    assert run("check", color_folder, "--against", other.parent, "--json") == 1
    assert json.loads(capsys.readouterr().out)["shared"] == [["red/1.png", "red/again.png"]]


def test_check_with_a_model_checks_names_and_calibration(
    color_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_tiny_model(tmp_path / "m.onnx", calibration=(sha256_file(color_folder / "red" / "0.png"),))
    assert run("check", color_folder, "--model", model) == 1
    assert "calibration: red/0.png" in capsys.readouterr().out
    (color_folder / "red").rename(color_folder / "rot")
    assert run("check", color_folder, "--model", model) == 2


def test_split_writes_one_list_a_side(color_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("split", color_folder, "-o", color_folder.parent / "s.csv", "--val", 0.2, "--test", 0) == 0
    assert sorted(p.name for p in color_folder.parent.glob("*.csv")) == ["s.train.csv", "s.val.csv"]
    assert "no picture is on two sides" in capsys.readouterr().out
    assert run("split", color_folder, "-o", color_folder.parent / "s.csv") == 2
    assert "--force" in capsys.readouterr().err


def test_calib_writes_a_list_that_quantize_can_read(color_folder: Path) -> None:
    out = color_folder.parent / "calib.csv"
    assert run("calib", color_folder, "-n", 6, "-o", out) == 0
    assert len(open_dataset(out)) == 6
    first = out.read_bytes()
    assert run("calib", color_folder, "-n", 6, "-o", out, "--force") == 0
    assert out.read_bytes() == first


def test_calib_copies_into_a_folder(color_folder: Path, tmp_path: Path) -> None:
    assert run("calib", color_folder, "-n", 6, "-o", tmp_path / "small") == 0
    assert len(open_dataset(tmp_path / "small")) == 6
    assert not list(tmp_path.glob(".small*"))


@pytest.mark.parametrize("command", ["check", "split", "calib"])
def test_an_empty_path_is_not_this_folder(
    command: str, color_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(color_folder)
    output = [] if command == "check" else ["-o", color_folder.parent / "x.csv"]
    assert run(command, "", *output) == 2
    assert "path is empty" in capsys.readouterr().err
    assert run(command, ".", *output, *(["-n", 3] if command == "calib" else [])) == 0


@pytest.mark.parametrize("command", ["check", "split", "calib"])
def test_missing_folder_is_exit_2_and_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = [] if command == "check" else ["-o", tmp_path / "x.csv"]
    assert run(command, tmp_path / "nowhere", *output) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_unwritable_output_is_told_before_any_work(color_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("calib", color_folder, "-n", 2, "-o", color_folder / "nowhere" / "x.csv") == 2
    assert "does not exist; make it first" in capsys.readouterr().err
