"""Push, run, fetch, clean up; on this machine, where nothing lies between."""

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.config.device import ConnectionConfig, DeviceProfile, load_device
from edgecv.devices import agent
from edgecv.devices.connection import Connection
from edgecv.devices.open import open_device
from edgecv.errors import DeviceUnreachableError, UsageError


@pytest.fixture
def profile(tmp_path: Path) -> DeviceProfile:
    return replace(load_device("rpi5"), connection=ConnectionConfig("local", folder=str(tmp_path / "device")))


def _lacking(connection: Connection, free_bytes: int) -> None:
    connection.facts = replace(connection.facts, free_bytes=free_bytes)


def test_a_file_goes_there_once_and_results_come_back(profile: DeviceProfile, tmp_path: Path) -> None:
    model = tmp_path / "a model.onnx"
    model.write_bytes(b"\x00\xffpayload")
    with open_device(profile) as connection:
        there = connection.push(model)
        assert Path(there).read_bytes() == model.read_bytes()
        assert connection.sent_bytes == model.stat().st_size
        script = "import sys, shutil, os; shutil.copyfile(sys.argv[1], 'out'); print(os.environ['WORD'])"
        ran = connection.run(["python", "-c", script, there], env={"WORD": "hello"})
        assert (ran.code, ran.printed.strip()) == (0, "hello")
        assert connection.fetch("out") == model.read_bytes()
    with open_device(profile) as connection:
        assert connection.push(model) == there
        assert connection.sent_bytes == 0
    assert not list((tmp_path / "device" / "jobs").iterdir())


def test_a_folder_arrives_whole_and_the_same_content_is_sent_once(profile: DeviceProfile, tmp_path: Path) -> None:
    for name in ("one", "two"):
        inner = tmp_path / name / "sub"
        inner.mkdir(parents=True)
        (inner / "a.py").write_text("A = 1\n")
        (inner / "__pycache__").mkdir()
        (inner / "__pycache__" / name).write_text(name)
    with open_device(profile) as connection:
        there = Path(connection.push(tmp_path / "one"))
        assert [p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()] == ["sub/a.py"]
        sent = connection.sent_bytes
        assert connection.push(tmp_path / "two") == str(there)
        assert connection.sent_bytes == sent


def test_a_command_that_fails_tells_its_code_and_last_words(profile: DeviceProfile) -> None:
    with open_device(profile) as connection:
        ran = connection.run(["python", "-c", "import sys; print('why'); sys.exit(7)"])
    assert (ran.code, ran.printed.strip()) == (7, "why")


def test_a_command_that_never_ends_is_ended(profile: DeviceProfile, tmp_path: Path) -> None:
    script = "import os, time, pathlib; pathlib.Path('../../pid').write_text(str(os.getpid())); time.sleep(600)"
    with open_device(profile) as connection, pytest.raises(DeviceUnreachableError, match="within 5 s"):
        connection.run(["python", "-c", script], timeout_s=5)
    pid = int((tmp_path / "device" / "pid").read_text())
    _wait_until_gone(pid)
    assert not list((tmp_path / "device" / "jobs").iterdir())


def _wait_until_gone(pid: int) -> None:
    import time

    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} still runs")


def test_a_disk_with_too_little_room_is_told_before_anything_is_sent(profile: DeviceProfile, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    big.write_bytes(bytes(1000))
    with open_device(profile) as connection:
        _lacking(connection, 999)
        with pytest.raises(DeviceUnreachableError, match=r"its disk is full: 'big\.onnx'") as caught:
            connection.push(big)
    assert caught.value.exit_code == 5
    assert not list((tmp_path / "device" / "store").iterdir())


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = str(tmp_path / "device")
    assert agent.main(["hello", folder]) == 0
    monkeypatch.setattr(os, "fsync", full)
    with (tmp_path / "nothing").open("wb+") as empty:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": empty}))
        assert agent.main(["store", folder, "0" * 64, "m.onnx", "0", "file"]) == agent.FAILED
    assert b"edgecv-agent: its disk is full" in capsysbinary.readouterr().err
    assert not list((tmp_path / "device" / "store").iterdir())


@pytest.mark.parametrize(("told", "reason"), [("5", "the connection ended"), ("4", "arrived damaged")])
def test_what_arrives_short_or_damaged_is_not_kept(
    told: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    folder = str(tmp_path / "device")
    assert agent.main(["hello", folder]) == 0
    data = tmp_path / "data"
    data.write_bytes(b"1234")
    with data.open("rb") as f:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": f}))
        assert agent.main(["store", folder, "0" * 64, "m.onnx", told, "file"]) == agent.FAILED
    assert reason.encode() in capsysbinary.readouterr().err
    assert not list((tmp_path / "device" / "store").iterdir())


def test_a_missing_interpreter_is_one_sentence(profile: DeviceProfile) -> None:
    without = replace(profile, connection=replace(profile.connection, python="python9"))
    with pytest.raises(DeviceUnreachableError, match="has no 'python9'; install Python there") as caught:
        open_device(without)
    assert caught.value.exit_code == 5


def test_greetings_of_a_shell_do_not_mix_with_answers(profile: DeviceProfile, tmp_path: Path) -> None:
    shell = tmp_path / "noisy"
    shell.write_text(f'#!/bin/sh\necho "Welcome to {{}} [1]"\nexec {sys.executable} "$@"\n')
    shell.chmod(0o755)
    noisy = replace(profile, connection=replace(profile.connection, python=str(shell)))
    with open_device(noisy) as connection:
        assert json.loads(json.dumps(connection.facts.python))
        assert connection.run(["python", "-c", "pass"]).code == 0


def test_a_profile_without_connection_says_what_to_add() -> None:
    with pytest.raises(DeviceUnreachableError, match="says no way to reach the device"):
        open_device(load_device("x86-vnni"))


def test_a_missing_file_is_the_users(profile: DeviceProfile, tmp_path: Path) -> None:
    with open_device(profile) as connection, pytest.raises(UsageError, match="does not exist"):
        connection.push(tmp_path / "none.onnx")
