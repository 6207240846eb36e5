"""Provider probes in child processes, the hostile kind included."""

import re
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.runtime.probe import installed_providers, probe_model, probe_provider


def child(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_cpu_starts() -> None:
    result = probe_provider("cpu")
    assert result.started
    assert result.reason == ""
    assert result.seconds > 0


def test_provider_that_is_not_installed_says_why() -> None:
    result = probe_provider("migraphx")
    assert not result.started
    assert "onnxruntime" in result.reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"it killed its process \(SIGSEGV\)"),
        ("import os; os.abort()", r"it killed its process \(SIGABRT\)"),
        ("import sys; sys.exit('a library is missing')", "ended with exit code 1: a library is missing"),
        ("print('noise')", "ended with exit code 0"),
    ],
)
def test_a_child_that_dies_is_a_provider_that_does_not_start(code: str, reason: str) -> None:
    result = probe_provider("cuda", command=child(code))
    assert not result.started
    assert re.search(reason, result.reason)


def test_a_child_that_hangs_is_killed() -> None:
    result = probe_provider("cuda", timeout_s=0.5, command=child("import time; time.sleep(60)"))
    assert not result.started
    assert result.reason == "it hung: no answer in 0.5 s"
    assert result.seconds < 30


def test_noise_around_the_answer_does_not_matter() -> None:
    code = "print('hello'); print('edgecv-probe {\"started\": true, \"reason\": \"\"}'); print('bye')"
    assert probe_provider("cuda", command=child(code)).started


def test_installed_providers_are_listed_without_importing_onnxruntime_here() -> None:
    names, reason = installed_providers()
    assert "cpu" in names
    assert reason == ""
    assert installed_providers(command=child("import os; os.abort()")) == (
        (),
        "it killed its process (SIGABRT): it said nothing",
    )


def test_the_hand_encoded_model_is_what_onnx_writes() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")],
    )
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    ours = onnx.load_from_string(probe_model())
    onnx.checker.check_model(ours, full_check=True)
    assert ours.SerializeToString() == expected.SerializeToString()
