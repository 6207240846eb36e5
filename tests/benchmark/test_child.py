import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model, tiny_manifest
from onnx import TensorProto, helper, numpy_helper

from edgecv.benchmark.child import Child, Patience
from edgecv.benchmark.plan import Candidate
from edgecv.errors import EnvironmentRefusedError, UsageError


def job(model: Path, **changes: object) -> dict[str, object]:
    return {"model": str(model), "provider": "cpu", "batch": 1, "threads": "1", "seed": 0, **changes}


def build_endless_model(path: Path) -> Path:
    """A Loop whose condition never turns false."""
    number, flag = TensorProto.FLOAT, TensorProto.BOOL
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "one"], ["v2"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", flag, []), value("v", number, None)],
        [value("c2", flag, []), value("v2", number, None)],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)],
        "endless",
        [value("x", number, ["n", 4])],
        [value("y", number, None)],
        [numpy_helper.from_array(np.array(True), "true")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> bool:
    for _ in range(100):
        if not is_running(pid):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def candidate(tiny_model: Path) -> Candidate:
    return Candidate(tiny_model, threads="1")


def test_first_answer_splits_the_cold_start_and_tells_what_was_obtained(candidate: Candidate) -> None:
    with Child(candidate, job(candidate.model, batch=2)) as child:
        facts = child.facts
    assert all(facts[k] > 0 for k in ("start_ms", "import_ms", "load_ms", "first_run_ms"))
    assert 0 < facts["rss_before_load_mib"] <= facts["peak_rss_after_load_mib"]
    assert facts["providers"] == ["cpu"]
    assert facts["node_share"] == {"cpu": 1.0}
    assert facts["threads"] == 1
    assert facts["input_shapes"] == {"image": [2, 32, 32, 3]}
    assert facts["manifest"]["architecture"] == tiny_manifest().architecture
    assert facts["finite"]
    assert not is_running(child.pid)


def test_turn_gives_at_least_the_runs_asked_for_and_their_cpu_time(candidate: Candidate) -> None:
    with Child(candidate, job(candidate.model)) as child:
        turn = child.ask("turn", turn_ms=0, min_runs=7)
        assert len(turn["samples_ns"]) == 7
        longer = child.ask("turn", turn_ms=30, min_runs=1)
    assert all(ns > 0 for ns in turn["samples_ns"])
    assert sum(longer["samples_ns"]) <= 30e6 + max(longer["samples_ns"])
    assert longer["cpu_seconds"] > 0
    assert longer["involuntary_switches"] >= 0


def test_worker_keeps_its_pipe_clean_of_what_libraries_print(
    candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(1, b'a library says hello\\n')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Child(candidate, job(candidate.model)) as child:
        assert child.ask("memory")["peak_rss_mib"] > 0
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EnvironmentRefusedError, match="a library says hello"):
            child.ask("memory")


@pytest.mark.usefixtures("trusted_models")
def test_nan_outputs_are_seen(tmp_path: Path) -> None:
    path = build_tiny_model(tmp_path / "nan.onnx")
    model = onnx.load(path)
    bias = next(i for i in model.graph.initializer if i.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(3, np.nan, np.float32), "head.bias"))
    onnx.save(model, path)
    with Child(Candidate(path), job(path)) as child:
        assert not child.facts["finite"]


def test_refusal_of_the_provider_keeps_its_class_and_message(candidate: Candidate) -> None:
    with pytest.raises(EnvironmentRefusedError, match="'cuda'") as caught:
        Child(candidate, job(candidate.model, provider="cuda"))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_bad_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(os.urandom(3000))
    with pytest.raises(UsageError, match=r"broken\.onnx"):
        Child(Candidate(path), job(path))


def test_unexpected_exception_in_the_worker_names_the_candidate(candidate: Candidate) -> None:
    with (
        Child(candidate, job(candidate.model)) as child,
        pytest.raises(UsageError, match=r"tiny\.onnx on cpu .*KeyError"),
    ):
        child.ask("dance")


def test_dead_worker_is_one_error_that_names_model_provider_and_signal(candidate: Candidate) -> None:
    with Child(candidate, job(candidate.model)) as child:
        os.kill(child.pid, signal.SIGSEGV)
        with pytest.raises(EnvironmentRefusedError, match=r"tiny\.onnx on cpu .* SIGSEGV"):
            child.ask("turn", turn_ms=1, min_runs=1)


def test_killed_worker_hints_at_memory(candidate: Candidate) -> None:
    with Child(candidate, job(candidate.model)) as child:
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EnvironmentRefusedError, match=r"SIGKILL .*memory"):
            child.ask("memory")


@pytest.mark.usefixtures("trusted_models")
def test_hung_worker_is_ended_and_named(tmp_path: Path) -> None:
    path = build_endless_model(tmp_path / "endless.onnx")
    with pytest.raises(EnvironmentRefusedError, match=r"endless\.onnx on cpu .* did not answer within 2 s"):
        Child(Candidate(path), job(path), Patience(start_s=2))
    left = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    assert not [x for x in left.splitlines() if x.split()[0] == str(os.getpid()) and "benchmark.worker" in x]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.usefixtures("trusted_models")
def test_worker_ends_with_its_parent(tmp_path: Path, endless: bool) -> None:
    model = build_endless_model(tmp_path / "m.onnx") if endless else build_tiny_model(tmp_path / "m.onnx")
    script = (
        "import subprocess, sys, time; from pathlib import Path\n"
        "original = subprocess.Popen.__init__\n"
        "def spawn(self, *a, **k):\n"
        "    original(self, *a, **k); print(self.pid, flush=True)\n"
        "subprocess.Popen.__init__ = spawn\n"
        "from edgecv.benchmark.child import Child; from edgecv.benchmark.plan import Candidate\n"
        f"path = {str(model)!r}\n"
        "child = Child(Candidate(Path(path)), dict(model=path, provider='cpu', batch=1, threads='1', seed=0))\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(1.0)  # let it get into the model
        assert is_running(worker)
        parent.kill()
        assert wait_until_gone(worker)
