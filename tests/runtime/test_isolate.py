"""Models tried in a child process: what kills, hangs or floods ONNX Runtime becomes one sentence here."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model
from onnx import TensorProto, helper, numpy_helper

from edgecv.cli.main import main
from edgecv.errors import UsageError
from edgecv.runtime import Model, caution, isolate
from edgecv.runtime.isolate import try_in_child, try_once
from edgecv.runtime.model_bytes import ModelBytes, read_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(isolate, "_passed", set())


def source(proto: onnx.ModelProto) -> ModelBytes:
    return ModelBytes(proto.SerializeToString(), "m.onnx", None)


def one_node(node: onnx.NodeProto, weights: dict[str, np.ndarray], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, [4])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def endless() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "b",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]),
        ],
    )
    loop = helper.make_node("Loop", ["m", "c", "x"], ["y"], body=body)
    return one_node(loop, {"m": np.array(1 << 62), "c": np.array(True)})


def test_a_good_model_passes(tmp_path: Path) -> None:
    try_in_child(ModelBytes(build_tiny_model(tmp_path / "m.onnx").read_bytes(), "m.onnx", None))


def test_a_model_that_ends_its_process_is_refused_by_name() -> None:
    least = {"least": np.array([np.iinfo(np.int64).min]), "minus_one": np.array([-1])}
    proto = one_node(helper.make_node("Div", ["least", "minus_one"], ["y"]), least, TensorProto.INT64)
    with pytest.raises(UsageError, match=r"'m.onnx' was tried in a process of its own and ended it \(SIGFPE\)"):
        try_in_child(source(proto))


def test_a_model_that_never_ends_is_stopped() -> None:
    with pytest.raises(UsageError, match="not done after 2 s of CPU time"):
        try_in_child(source(endless()), cpu_s=2)


def test_a_model_that_floods_the_memory_is_stopped() -> None:
    node = helper.make_node("Expand", ["x", "s"], ["y"])
    with pytest.raises(UsageError, match="needs more than 256 MiB to run"):
        try_in_child(source(one_node(node, {"s": np.array([1 << 28, 4])})), memory_bytes=256 << 20)


def test_onnxruntimes_own_refusal_comes_through() -> None:
    with pytest.raises(UsageError, match="needs what this ONNX Runtime lacks"):
        try_in_child(source(one_node(helper.make_node("Nope", ["x"], ["y"]), {})))


def test_zeros_that_do_not_suit_a_model_do_not_refuse_it() -> None:
    proto = one_node(helper.make_node("Add", ["x", "w"], ["y"]), {"w": np.ones(7, np.float32)})
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    try_in_child(source(proto))


def test_a_child_that_hangs_or_says_nothing_is_a_refusal(tiny_model: Path) -> None:
    model = ModelBytes(b"", "m.onnx", None)
    with pytest.raises(UsageError, match="hung"):
        try_in_child(model, command=(sys.executable, "-c", "import time; time.sleep(60)"), wall_s=0.5)
    with pytest.raises(UsageError, match="with exit code 3"):
        try_in_child(model, command=(sys.executable, "-c", "import sys; sys.exit(3)"))


def test_the_same_bytes_are_tried_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(isolate, "try_in_child", lambda model: tried.append(model.name))
    model = ModelBytes(tiny_model.read_bytes(), "a", None)
    try_once(model)
    try_once(model)
    monkeypatch.setattr(isolate, "_passed", set())  # another process
    try_once(model)
    assert tried == ["a"]
    try_once(ModelBytes(model.data + b"\0", "b", None))
    assert tried == ["a", "b"]


def test_a_home_that_cannot_be_written_is_no_error(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr(isolate, "try_in_child", lambda model: None)
    try_once(ModelBytes(tiny_model.read_bytes(), "a", None))


def test_load_tries_first_when_asked(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(isolate, "try_in_child", lambda model: tried.append(model.name))
    Model.load(tiny_model)
    assert tried == []
    Model.load(tiny_model, isolate=True)
    assert tried == [str(tiny_model)]


def test_commands_try_every_model_but_trusted_ones(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(model: ModelBytes) -> None:
        raise UsageError(f"tried {model.name}.")

    monkeypatch.setattr(isolate, "try_in_child", refuse)
    monkeypatch.setattr(caution, "_tries_first", True)
    for command in (["inspect"], ["quantize", "--dynamic"], ["bench"], ["predict", "x.png", "--model"]):
        assert main([*command, str(tiny_model)]) == 2
        assert f"tried {tiny_model}" in capsys.readouterr().err
    assert main(["inspect", str(tiny_model), "--trust", "--quiet"]) == 0
    assert main(["inspect", str(tiny_model), "--quiet"]) == 2  # --trust holds for one command
    read_model(tiny_model.read_bytes())  # bytes in memory are the program's own affair
