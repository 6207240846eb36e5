import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import build_tiny_model, write_color_folder

from edgecv.cli.main import main
from edgecv.config.recipe import Recipe, load_recipe
from edgecv.errors import EdgecvError, GateFailedError, UsageError
from edgecv.pipeline.recipe import run_recipe
from edgecv.pipeline.recipe_plan import plan_recipe
from edgecv.pipeline.stage_records import RECORD_FILE, only_run

CHAIN = """schema = 1
name = "tiny"
model = "tiny.onnx"
calib = "calib"
eval_data = "eval"
[quantize]
method = "per-channel"
[verify]
max_drop = 20.0
[gates]
top1 = 0.5
size_mb = 1.0
"""


TRAINED = """schema = 1
name = "trained"
model = "lenet5"
data = "eval"
hold_out = 0.2
[train]
epochs = 3
batch = 8
workers = 0
threads = 1
precision = "float32"
checkpoint_minutes = 0.0
augment = ["flip"]
[export]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model, images and a recipe that quantizes and verifies; torch is not needed."""
    build_tiny_model(tmp_path / "tiny.onnx")
    write_color_folder(tmp_path / "calib", seed=1)
    write_color_folder(tmp_path / "eval", per_class=12)
    (tmp_path / "tiny.toml").write_text(CHAIN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _recipe(*changes: str) -> Recipe:
    return load_recipe("tiny.toml", changes)


def _run(*changes: str, folder: str = "out", **options: Any) -> dict[str, Any]:
    return run_recipe(_recipe(*changes), Path(folder), **options)


def _states(report: dict[str, Any]) -> dict[str, str]:
    return {row["stage"]: row["state"] for row in report["stages"]}


def test_the_chain_runs_and_what_is_finished_is_not_run_again(place: Path) -> None:
    first = _run()
    assert _states(first) == {"quantize": "run", "verify": "run"}
    assert first["verdict"] == "pass"
    assert {g["gate"] for g in first["gates"]} == {"top1", "max_drop", "size_mb"}
    assert Path(first["artifact"]) == Path("out/tiny.int8.onnx")
    assert Path("out/tiny.int8.onnx").stat().st_size > 0
    assert json.loads(Path("out/report.json").read_text())["verdict"] == "pass"
    assert "| quantize |" in Path("out/report.md").read_text()
    again = _run()
    assert _states(again) == {"quantize": "cached", "verify": "cached"}
    assert [row["report"] for row in again["stages"]] == json.loads(
        json.dumps([row["report"] for row in first["stages"]])
    )


@pytest.mark.parametrize(
    ("change", "states"),
    [
        ("verify.limit=30", {"quantize": "cached", "verify": "run"}),
        ("quantize.ranges=minmax", {"quantize": "run", "verify": "run"}),
        ("seed=1", {"quantize": "run", "verify": "run"}),
        ("gates.size_mb=2.0", {"quantize": "cached", "verify": "cached"}),
        ("title=other", {"quantize": "cached", "verify": "cached"}),
    ],
)
def test_a_changed_key_runs_only_what_depends_on_it(place: Path, change: str, states: dict[str, str]) -> None:
    _run()
    plan = plan_recipe(_recipe(change), Path("out"))
    assert {row["stage"]: "cached" if row["state"] == "finished" else "run" for row in plan} == states
    assert _states(_run(change)) == states
    assert _states(_run()) == {"quantize": "cached", "verify": "cached"}  # the first run's results are still there


def test_a_changed_image_counts_and_a_touched_one_does_not(place: Path) -> None:
    _run()
    image = next((place / "calib" / "red").iterdir())
    os.utime(image, (1, 1))
    assert _states(_run()) == {"quantize": "cached", "verify": "cached"}
    shutil.copy(next((place / "eval" / "red").iterdir()), image)
    plan = plan_recipe(_recipe(), Path("out"))
    assert [row["state"] for row in plan] == ["runs", "runs"]
    with pytest.raises(UsageError, match="calibrate"):  # it is a judging image now
        _run()


def test_a_damaged_result_is_made_again(place: Path) -> None:
    _run()
    (stage,) = Path("out/stages").glob("quantize-*")
    artifact = next(stage.glob("*.onnx"))
    good = artifact.read_bytes()
    artifact.unlink()
    artifact.write_bytes(good[:-1])
    assert _states(_run())["quantize"] == "run"
    assert Path("out/tiny.int8.onnx").read_bytes() == next(stage.glob("*.onnx")).read_bytes() == good


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": 3}', "null"])
def test_a_damaged_record_is_no_record(place: Path, text: str) -> None:
    _run()
    (record,) = Path("out/stages").glob(f"verify-*/{RECORD_FILE}")
    record.write_text(text)
    Path("out/stages/contents.json").write_text(text)
    assert _states(_run()) == {"quantize": "cached", "verify": "run"}


def test_force_runs_everything_again(place: Path) -> None:
    _run()
    assert _states(_run(force=True)) == {"quantize": "run", "verify": "run"}


def test_a_plan_writes_nothing_and_names_what_goes_in(place: Path) -> None:
    plan = plan_recipe(_recipe(), Path("out"))
    assert not Path("out").exists()
    assert [row["state"] for row in plan] == ["runs", "runs"]
    assert len(plan[0]["inputs"]["model"]) == 64
    assert plan[1]["inputs"]["candidate"] == "pending"
    assert plan[1]["key"] is None


def test_a_missed_gate_is_exit_1_with_the_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GateFailedError, match="size_mb") as caught:
        _run("gates.size_mb=0.001")
    assert caught.value.report is not None
    assert caught.value.report["verdict"] == "fail"
    assert main(["run", "tiny.toml", "-o", "out", "-s", "gates.size_mb=0.001"]) == 1
    captured = capsys.readouterr()
    assert "cached" in captured.out
    assert "FAIL: size_mb" in captured.out
    assert captured.err.strip().splitlines()[-1].startswith("error: gate size_mb 0.001")


def test_a_gate_the_images_cannot_decide_is_exit_4(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "tiny.toml", "-o", "out", "-s", "verify.max_drop=0.5"]) == 4
    assert "UNDECIDED: max_drop" in capsys.readouterr().out


def test_accuracy_is_measured_for_a_gate_alone(place: Path) -> None:
    (place / "tiny.toml").write_text(CHAIN.replace("[verify]\nmax_drop = 20.0\n", ""))
    report = _run()
    assert _states(report) == {"quantize": "run", "eval": "run"}
    assert report["gates"][0]["measured"] == 1.0


def test_a_file_that_no_run_has_put_there_is_not_replaced(place: Path) -> None:
    Path("out").mkdir()
    Path("out/tiny.int8.onnx").write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        _run()
    assert Path("out/tiny.int8.onnx").read_text() == "precious"
    _run(force=True)
    assert Path("out/tiny.int8.onnx").read_text(errors="replace") != "precious"


def test_two_runs_do_not_work_in_one_folder(place: Path) -> None:
    with only_run(Path("out")), pytest.raises(EdgecvError, match="another edgecv run works in 'out'"):
        _run()
    _run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("calib=nowhere", "nowhere"),
        ("model=gone.onnx", "gone.onnx"),
        ("eval_data=package:digit", "package:digits/test"),
        ("calib=", "--calib"),
        ("eval_data=", "--eval"),
        ("verify.provider=cdua", "Did you mean 'cuda'"),
    ],
)
def test_what_is_missing_is_told_before_anything_runs(place: Path, change: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_recipe(_recipe(change), Path("out"))


def test_a_mistyped_network_is_told_before_hours_of_training(place: Path) -> None:
    (place / "trained.toml").write_text(TRAINED + '[distill]\nstudent = "dsnett"\n')
    with pytest.raises(UsageError, match="Did you mean 'dsnet'"):
        run_recipe(load_recipe("trained.toml"), Path("out"))
    assert not Path("out/stages").exists()


def test_what_is_finished_stays_when_a_later_stage_cannot_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "tiny.toml", "-o", "out", "-s", "verify.provider=cuda"]) == 3
    assert "quantize: finished and kept" in capsys.readouterr().err
    assert main(["run", "tiny.toml", "-o", "out", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("verdict:  PASS")
    assert not captured.err


def test_the_images_of_the_command_line_come_before_those_of_the_file(place: Path) -> None:
    shutil.copytree("eval", "other")
    Path("tiny.toml").write_text(CHAIN.replace('"eval"', '"nowhere"').replace('"calib"', '"nowhere"'))
    images = ["--calib", "calib", "--eval", "other"]
    assert main(["run", "tiny.toml", *images, "--dry-run"]) == 0
    assert main(["run", "tiny.toml", "--dry-run"]) == 2


def _start(place: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "edgecv", "run", *arguments]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _kill_when(process: "subprocess.Popen[str]", seen: Callable[[], bool]) -> None:
    """SIGKILL a run as soon as ``seen`` says so; it must not have ended before."""
    end = time.monotonic() + 240
    while not seen():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def _finish(place: Path, *arguments: str) -> dict[str, Any]:
    out, err = (process := _start(place, *arguments, "--json")).communicate()
    assert process.returncode == 0, err
    report: dict[str, Any] = json.loads(out)
    return report


@pytest.mark.slow
def test_a_run_killed_between_stages_goes_on_behind_the_finished_one(place: Path) -> None:
    _kill_when(_start(place, "tiny.toml", "-o", "out"), lambda: any(place.glob(f"out/stages/quantize-*/{RECORD_FILE}")))
    (record,) = place.glob(f"out/stages/quantize-*/{RECORD_FILE}")
    before = record.stat().st_mtime_ns
    assert _states(_finish(place, "tiny.toml", "-o", "out"))["quantize"] == "cached"
    assert record.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_run_killed_inside_a_stage_leaves_none_of_it(place: Path) -> None:
    _kill_when(_start(place, "tiny.toml", "-o", "out"), lambda: any(place.glob("out/stages/quantize-*")))
    assert not any(place.glob(f"out/stages/*/{RECORD_FILE}"))
    assert not (place / "out/tiny.int8.onnx").exists()
    assert _states(_finish(place, "tiny.toml", "-o", "out")) == {"quantize": "run", "verify": "run"}


@pytest.mark.slow
def test_a_training_killed_in_its_midst_goes_on_to_the_same_weights(place: Path) -> None:
    (place / "trained.toml").write_text(TRAINED)
    whole = _finish(place, "trained.toml", "-o", "whole")
    begun = _start(place, "trained.toml", "-o", "out")
    _kill_when(begun, lambda: len(list(place.glob("out/stages/train-*/checkpoints/*.pt"))) > 1)
    assert not any(place.glob(f"out/stages/*/{RECORD_FILE}"))
    process = _start(place, "trained.toml", "-o", "out")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on from epoch" in err
    assert "train" in out
    assert (place / "out/train.safetensors").read_bytes() == (place / "whole/train.safetensors").read_bytes()
    assert whole["artifact"] == "whole/trained.onnx"
    assert (place / "out/trained.onnx").is_file()
    assert set(_states(_finish(place, "trained.toml", "-o", "out")).values()) == {"cached"}
