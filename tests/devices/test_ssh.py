"""A real sshd on loopback: the way there, and each way it can fail."""

import threading
import time
from pathlib import Path

import pytest

from edgecv.devices.open import open_device
from edgecv.devices.ssh import explain
from edgecv.errors import DeviceUnreachableError, UsageError

from .conftest import Loopback, needs_sshd

pytestmark = needs_sshd


def test_files_commands_and_results_cross_one_connection(loopback: Loopback, tmp_path: Path) -> None:
    model = tmp_path / "it's a model.onnx"
    model.write_bytes(bytes(range(256)) * 1000)
    with open_device(loopback.profile()) as connection:
        there = connection.push(model)
        ran = connection.run(
            ["python", "-c", "import sys; open('out', 'wb').write(open(sys.argv[1], 'rb').read())", there]
        )
        assert ran.code == 0
        assert connection.fetch("out") == model.read_bytes()
    assert not loopback.left_behind()
    with open_device(loopback.profile()) as connection:
        connection.push(model)
        assert connection.sent_bytes == 0


def _refused(loopback: Loopback, **changes: str) -> str:
    with pytest.raises(DeviceUnreachableError) as caught:
        open_device(loopback.profile(**changes))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert not loopback.left_behind()
    return str(caught.value)


def test_a_host_that_is_off_cannot_be_reached(loopback: Loopback) -> None:
    loopback.process.terminate()
    loopback.process.wait()
    assert "cannot be reached; see whether it is on" in _refused(loopback)


def test_an_unknown_name_says_where_to_give_it(loopback: Loopback) -> None:
    assert "is not known by the name 'nowhere.invalid'" in _refused(loopback, host="nowhere.invalid")


def test_a_wrong_key_is_refused_without_asking(loopback: Loopback) -> None:
    keys = loopback.folder / "keys"
    (keys / "authorized").write_text((keys / "stranger.pub").read_text())
    assert "refuses the key; let it in with: ssh-copy-id board" in _refused(loopback)


def test_another_host_key_is_never_accepted(loopback: Loopback) -> None:
    keys = loopback.folder / "keys"
    kind, key = (keys / "stranger.pub").read_text().split()[:2]
    (keys / "known").write_text(f"[127.0.0.1]:{loopback.port} {kind} {key}\n")
    assert "host key that is not the known one" in _refused(loopback)
    (keys / "known").write_text("")
    assert "host key that is not the known one" in _refused(loopback)


def test_a_device_without_python_says_so(loopback: Loopback) -> None:
    assert "has no 'python9'; install Python there" in _refused(loopback, python="python9")


def test_a_dropped_connection_ends_what_ran_and_leaves_nothing(loopback: Loopback) -> None:
    pid_file = loopback.folder / "pid"
    script = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    def cut() -> None:
        while not pid_file.exists() or not pid_file.read_text():
            time.sleep(0.05)
        loopback.drop()

    cutter = threading.Thread(target=cut)
    cutter.start()
    with (
        open_device(loopback.profile()) as connection,
        pytest.raises(DeviceUnreachableError, match="dropped") as caught,
    ):
        connection.run(["python", "-c", script], timeout_s=60)
    cutter.join()
    assert caught.value.exit_code == 5
    for _ in range(100):
        if not loopback.left_behind() and not Path(f"/proc/{pid_file.read_text()}").exists():
            return
        time.sleep(0.1)
    pytest.fail(f"left behind: {loopback.left_behind()}, or process {pid_file.read_text()}")


def test_an_option_is_no_host(loopback: Loopback) -> None:
    with pytest.raises(UsageError, match="is not the name of a host"):
        open_device(loopback.profile(host="-oProxyCommand=touch x"))


def test_failures_of_the_command_are_not_those_of_ssh() -> None:
    assert explain("board", 3, "Permission denied") == ""
    assert "cannot be used over ssh: kex_exchange: strange" in explain("board", 255, "kex_exchange: strange")


@pytest.mark.slow
def test_a_benchmark_runs_there_and_its_report_comes_back(loopback: Loopback, tiny_model: Path) -> None:
    from edgecv.pipeline.remote_bench import RemotePlan, bench_on_device

    plan = RemotePlan((tiny_model,), ("cpu",), (1,), ("1",), "rapid")
    report, notes = bench_on_device(loopback.profile(), plan)
    assert report.results[0].model == str(tiny_model)
    assert report.results[0].latency_p50_ms > 0
    assert "by way of ssh" in notes[0]
    assert not loopback.left_behind()
    _, notes = bench_on_device(loopback.profile(), plan)
    assert "nothing sent, all was there" in notes[0]
