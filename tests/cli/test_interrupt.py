"""Ctrl-C and SIGTERM while a model never comes back from a run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model, write_color_folder
from onnx import TensorProto, helper, numpy_helper

PROGRAM = """
import sys
from edgecv.cli.interrupt import end_on_signals
from edgecv.cli.main import main
end_on_signals()
sys.exit(main(sys.argv[1:]))
"""


def build_endless_classifier(path: Path) -> Path:
    """The tiny model with a Loop behind it whose condition never turns false."""
    model = onnx.load(build_tiny_model(path))
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["go_on2"]), helper.make_node("Add", ["v", "one"], ["v2"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go_on", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("go_on2", TensorProto.BOOL, []), value("v2", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Loop", ["", "true", "before"], ["logits"], body=body))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    onnx.save(model, path)
    return path


@contextmanager
def started(code: str, *arguments: str, cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A process started from a script may inherit an ignored SIGINT; a terminal's never does.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_busy(pid: int) -> None:
    """Wait until the main thread of ``pid`` has computed for a while: the endless run has begun."""
    for _ in range(600):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 3:
            return
        time.sleep(0.1)
    raise AssertionError("it never got busy")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("command", "number"),
    [(["predict", "data/red/0.png", "-m", "endless.onnx"], signal.SIGINT),
     (["eval", "endless.onnx", "--data", "data"], signal.SIGTERM),
     (["quantize", "endless.onnx", "--int8", "--data", "data", "--no-bench"], signal.SIGTERM)],
    ids=["predict", "eval", "quantize"],
)  # fmt: skip
def test_a_signal_ends_a_model_that_never_comes_back(
    tmp_path: Path, command: list[str], number: signal.Signals
) -> None:
    write_color_folder(tmp_path / "data", per_class=4)
    build_endless_classifier(tmp_path / "endless.onnx")
    before = set(tmp_path.rglob("*"))
    with started(PROGRAM, *command, "--trust", cwd=tmp_path) as process:
        wait_until_busy(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; nothing half-written was left behind."
    assert "Traceback" not in err
    assert out == ""
    assert set(tmp_path.rglob("*")) == before


STUCK = """
import ctypes, pathlib, tempfile
from edgecv.cli.interrupt import end_on_signals
from edgecv.files import write_atomically

end_on_signals(grace_s=0.2)
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock

def write(path):
    path.write_text("half")
    print("stuck", flush=True)
    lock(mutex), lock(mutex)  # the second never returns, whatever signal comes

with tempfile.TemporaryDirectory(prefix=".edgecv-", dir="."):
    write_atomically(pathlib.Path("out.onnx"), write)
"""


def test_temporary_files_and_folders_of_a_stuck_process_are_removed(tmp_path: Path) -> None:
    with started(STUCK, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        assert len(list(tmp_path.iterdir())) == 2
        time.sleep(1)  # from its print into the call
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert list(tmp_path.iterdir()) == []


def test_python_code_is_interrupted_in_the_usual_way(tmp_path: Path) -> None:
    code = (
        "import time\nfrom edgecv.cli.interrupt import end_on_signals\nend_on_signals(grace_s=0.5)\n"
        "try:\n    print('on', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1.5)\n    print('cleaned up')\n"
    )
    with started(code, cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "cleaned up\n", "")


def test_a_signal_that_is_to_be_ignored_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from edgecv.cli.interrupt import end_on_signals\nend_on_signals()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\nprint('still here')\n"
    )
    with started(code, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "still here\n", "")
