"""Sessions: the provider asked for or an error, bad files in one sentence, weights from nowhere else."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import build_tiny_model
from onnx import TensorProto, helper, numpy_helper

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.runtime import session as session_module
from edgecv.runtime.host import usable_cores
from edgecv.runtime.session import open_session

HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers() and Path("/proc/driver/nvidia/version").exists()
IMAGE = np.zeros((1, 32, 32, 3), np.uint8)


def test_cpu_session_has_its_manifest_and_all_nodes(tiny_model: Path) -> None:
    opened = open_session(tiny_model)
    assert opened.providers == ("cpu",)
    assert opened.node_share == {"cpu": 1.0}
    assert opened.threads == usable_cores()
    assert opened.notes == (f"{tiny_model} has random weights: its answers mean nothing",)
    assert opened.manifest is not None
    assert opened.manifest.architecture == "tiny"
    assert opened.session.run(None, {"image": IMAGE})[0].shape == (1, 3)


def test_weights_that_mean_something_need_no_note(tmp_path: Path) -> None:
    assert open_session(build_tiny_model(tmp_path / "m.onnx", source={"weights": "file:m.pth"})).notes == ()


def test_bytes_give_the_same_as_the_file(tiny_model: Path) -> None:
    from_file = open_session(tiny_model).session.run(None, {"image": IMAGE})[0]
    np.testing.assert_array_equal(
        open_session(tiny_model.read_bytes()).session.run(None, {"image": IMAGE})[0], from_file
    )


def test_foreign_model_has_no_manifest(tmp_path: Path) -> None:
    assert open_session(build_tiny_model(tmp_path / "foreign.onnx", with_manifest=False)).manifest is None


@pytest.mark.skipif(HAS_CUDA, reason="this machine has CUDA")
def test_cuda_without_cuda_is_refused_and_names_what_is_missing(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        EnvironmentRefusedError, match=r"'cuda' (is not in the installed onnxruntime|does not start here: .* missing)"
    ) as e:
        open_session(tiny_model, provider="cuda")
    assert e.value.exit_code == 3
    assert "edgecv[gpu]" in str(e.value) or "onnxruntime-gpu[cuda,cudnn]" in str(e.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(HAS_CUDA, reason="this machine has CUDA")
def test_ordered_fallback_reports_what_was_obtained(tiny_model: Path) -> None:
    opened = open_session(tiny_model, provider="trt,cuda,cpu")
    assert opened.providers == ("cpu",)
    assert opened.notes[0].startswith("cpu instead of trt,cuda: provider 'trt' is not")


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_CUDA, reason="needs an NVIDIA driver and onnxruntime-gpu")
def test_cuda_runs_nodes_on_cuda(tiny_model: Path) -> None:
    opened = open_session(tiny_model, provider="cuda")
    assert opened.providers[0] == "cuda"
    assert opened.node_share["cuda"] > 0


class FakeOrt:
    """An ONNX Runtime that offers CUDA and treats it as the real one does: falls back without a word."""

    def __init__(self, providers: list[str], assigned: dict[str, int], stderr: str = "") -> None:
        self.providers, self.assigned, self.stderr = providers, assigned, stderr
        self.SessionOptions, self.GraphOptimizationLevel = ort.SessionOptions, ort.GraphOptimizationLevel
        self.__version__ = ort.__version__

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, data: bytes, options: object, providers: object, enable_fallback: int) -> object:
        assert enable_fallback == 0  # else Python itself retries on the CPU and prints a banner
        real = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        os.write(2, self.stderr.encode())
        fake = self

        class Group:
            def __init__(self, name: str, nodes: int) -> None:
                self.ep_name, self.nodes = name, nodes

            def get_nodes(self) -> list[int]:
                return [0] * self.nodes

        class Session:
            def get_providers(self) -> list[str]:
                return fake.providers

            def get_provider_graph_assignment_info(self) -> list[Group]:
                return [Group(n, c) for n, c in fake.assigned.items()]

            def get_modelmeta(self) -> object:
                return real.get_modelmeta()

        return Session()


def use(monkeypatch: pytest.MonkeyPatch, runtime: FakeOrt) -> None:
    monkeypatch.setattr(session_module, "load_onnxruntime", lambda: runtime)


def test_silent_fallback_is_seen_and_its_message_reported(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "2026-01-01 0:0:0.1 [E:onnxruntime:, x.cc:1 f] libcudnn.so.9: cannot open shared object file\n"
    use(monkeypatch, FakeOrt(["CPUExecutionProvider"], {"CPUExecutionProvider": 11}, said))
    with pytest.raises(
        EnvironmentRefusedError, match=r"'cuda' does not start here: libcudnn\.so\.9 is missing; it needs an NVIDIA"
    ):
        open_session(tiny_model, provider="cuda")


def test_provider_listed_but_without_a_node_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOrt(["CUDAExecutionProvider", "CPUExecutionProvider"], {"CPUExecutionProvider": 11}))
    with pytest.raises(EnvironmentRefusedError, match="'cuda' starts but takes none of the model's nodes"):
        open_session(tiny_model, provider="cuda")


def test_share_of_nodes_is_reported_in_the_order_asked(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    use(monkeypatch, FakeOrt(both, {"CPUExecutionProvider": 1, "CUDAExecutionProvider": 3}))
    opened = open_session(tiny_model, provider="cuda")
    assert opened.providers == ("cuda", "cpu")
    assert opened.node_share == {"cuda": 0.75, "cpu": 0.25}


@pytest.mark.parametrize("threads", ["0", "-1", "many", 0, 5000, "1.5", 2.7, None])
def test_wrong_threads_are_refused(tiny_model: Path, threads: Any) -> None:
    with pytest.raises(UsageError, match="threads must be 'auto' or a number from 1 to 1024"):
        open_session(tiny_model, threads=threads)


def test_more_threads_than_cores_are_allowed_and_stated(tiny_model: Path) -> None:
    opened = open_session(tiny_model, threads=usable_cores() + 1)
    assert opened.threads == usable_cores() + 1
    assert "usable cores" in opened.notes[0]


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    good = build_tiny_model(folder / "good.onnx").read_bytes()
    contents = {
        "truncated": (good[: len(good) // 2], "not an ONNX file or is truncated"),
        "random": (np.random.default_rng(0).bytes(500), "not an ONNX file or is truncated"),
        "text": (b"hello, this is text", "not an ONNX file or is truncated"),
        "empty": (b"", "is empty"),
    }
    found = {}
    for name, (data, reason) in contents.items():
        (folder / f"{name}.onnx").write_bytes(data)
        found[name] = (folder / f"{name}.onnx", reason)
    return found | {"folder": (folder, "is a folder"), "missing": (folder / "no.onnx", "does not exist")}


@pytest.mark.parametrize("kind", ["truncated", "random", "text", "empty", "folder", "missing"])
def test_bad_files_are_one_sentence_and_silence(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, reason = bad_files(tmp_path)[kind]
    with pytest.raises(UsageError, match=reason) as e:
        open_session(path)
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value)
    assert capfd.readouterr() == ("", "")


def changed(tmp_path: Path, change: str) -> Path:
    model = onnx.load(build_tiny_model(tmp_path / "changed.onnx"))
    if change == "operator":
        model.graph.node[4].op_type = "Convoluted"
    elif change == "opset":
        model.opset_import[0].version = 99
    elif change == "ir":
        model.ir_version = 99
    elif change == "input":
        model.graph.node[4].input[0] = "nowhere"
    onnx.save(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("operator", "needs what this ONNX Runtime lacks .*Convoluted.*update onnxruntime"),
        ("opset", "Opset 99"),
        ("ir", "needs what this ONNX Runtime lacks .*IR version: 99"),
        ("input", "cannot be run .*'nowhere'"),
    ],
)
def test_invalid_graphs_give_onnxruntimes_reason(
    change: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=reason) as e:
        open_session(changed(tmp_path, change), policy="relaxed")  # the others refuse an unknown operator themselves
    assert "onnxruntime_src" not in str(e.value)
    assert capfd.readouterr() == ("", "")


def external(folder: Path, location: str) -> Path:
    """A model whose weights are in another file."""
    folder.mkdir(exist_ok=True)
    weights = np.arange(400, dtype=np.float32)
    tensor = numpy_helper.from_array(weights, "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [400])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [400])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location, offset=0, length=1600)
    model.graph.initializer[0].ClearField("raw_data")
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_model_are_read_from_its_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(tmp_path / "models", "model.onnx.data")
    (tmp_path / "elsewhere").mkdir()
    np.zeros(400, np.float32).tofile(tmp_path / "elsewhere" / "model.onnx.data")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"model.onnx.data' does not exist"):
        open_session(path)
    np.arange(400, dtype=np.float32).tofile(tmp_path / "models" / "model.onnx.data")
    (result,) = open_session(path).session.run(None, {"x": np.zeros(400, np.float32)})
    assert result[399] == 399


def test_model_given_as_bytes_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path, "model.onnx.data")
    np.zeros(400, np.float32).tofile(tmp_path / "model.onnx.data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="keeps weights outside the file"):
        open_session(path.read_bytes())


def test_weights_outside_the_models_folder_are_refused(tmp_path: Path) -> None:
    np.zeros(400, np.float32).tofile(tmp_path / "outside.bin")
    for location in ("../outside.bin", str(tmp_path / "outside.bin")):
        with pytest.raises(UsageError, match="points to weights outside its own folder"):
            open_session(external(tmp_path / "models", location))


def test_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    model = onnx.load(build_tiny_model(tmp_path / "m.onnx", with_manifest=False))
    helper.set_model_props(model, {"edgecv": "{not json"})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"manifest in '.*m\.onnx' is damaged"):
        open_session(tmp_path / "m.onnx")


def test_profile_is_written_where_asked(tiny_model: Path, tmp_path: Path) -> None:
    opened = open_session(tiny_model, profile_prefix=str(tmp_path / "profile"))
    opened.session.run(None, {"image": IMAGE})
    assert Path(opened.session.end_profiling()).parent == tmp_path


def test_unoptimised_graph_gives_the_same_answer(tiny_model: Path) -> None:
    plain = open_session(tiny_model, optimize=False).session.run(None, {"image": IMAGE})[0]
    np.testing.assert_allclose(plain, open_session(tiny_model).session.run(None, {"image": IMAGE})[0], atol=1e-5)


def test_session_keeps_no_second_copy_of_the_model(tiny_model: Path) -> None:
    assert open_session(tiny_model).session._model_bytes is None


@pytest.mark.parametrize("provider", [None, ["cpu"], b"cpu"])
def test_provider_that_is_no_string_is_refused(tiny_model: Path, provider: Any) -> None:
    with pytest.raises(UsageError, match="a provider must be a string"):
        open_session(tiny_model, provider=provider)
