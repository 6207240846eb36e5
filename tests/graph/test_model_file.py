from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model

from edgecv.errors import UsageError
from edgecv.graph import model_file


def test_the_same_model_gives_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        model = model_file.load_model(tiny_model)
        model_file.save_model(model, tmp_path / name, model_file.require_manifest(model, tiny_model))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    onnx.checker.check_model(str(tmp_path / "a.onnx"))


@pytest.mark.parametrize("kind", ["random", "truncated", "text", "empty", "folder", "missing", "weights only"])
def test_what_is_not_a_model_is_one_clear_error(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    path = tmp_path / "bad.onnx"
    content = tiny_model.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        data = {"random": bytes(range(256)) * 40, "truncated": content[: len(content) // 2], "text": b"hello\n" * 99}
        path.write_bytes(data.get(kind, b"\x08\x08" if kind == "weights only" else b""))
    with pytest.raises(UsageError, match=r"bad\.onnx"):
        model_file.load_model(path)


def test_weights_outside_the_models_folder_are_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    proto = onnx.load(build_tiny_model(inside / "m.onnx"))
    for tensor in proto.graph.initializer:
        if tensor.name == "conv2.weight":
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", "../secret.bin"), ("length", "2304")):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
    (inside / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UsageError, match=r"secret\.bin"):
        model_file.load_model(inside / "m.onnx")


def test_a_foreign_model_is_told_how_to_be_adopted(tmp_path: Path) -> None:
    path = build_tiny_model(tmp_path / "foreign.onnx", with_manifest=False)
    with pytest.raises(UsageError, match="edgecv export"):
        model_file.require_manifest(model_file.load_model(path), path)


def test_weights_too_large_for_one_file_go_beside_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "MAX_SINGLE_FILE_BYTES", 100)
    path = tmp_path / "big.onnx"
    model_file.save_model(model_file.load_model(tiny_model), path)
    assert (tmp_path / "big.onnx.data").is_file()
    again = model_file.load_model(path)
    assert model_file.weight_bytes(again) == model_file.weight_bytes(model_file.load_model(tiny_model))


@pytest.mark.parametrize("place", ["constant", "branch"])
def test_a_node_may_not_point_to_another_file(tmp_path: Path, place: str) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    outside = onnx.TensorProto(name="t", data_type=onnx.TensorProto.FLOAT, dims=[1])
    outside.data_location = onnx.TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "pipe"
    proto = onnx.load(build_tiny_model(tmp_path / "m.onnx"))
    node = onnx.helper.make_node("Constant", [], ["t"], value=outside)
    if place == "branch":
        branch = onnx.helper.make_graph([node], "b", [], [onnx.helper.make_tensor_value_info("t", 1, [1])])
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
        node = onnx.helper.make_node("If", ["yes"], ["u"], then_branch=branch, else_branch=branch)
    proto.graph.node.append(node)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UsageError, match="outside the file"):
        model_file.load_model(tmp_path / "m.onnx")


def test_a_graph_that_contradicts_itself_or_its_manifest_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(build_tiny_model(tmp_path / "m.onnx"))
    proto.graph.initializer[2].dims[0] = 1 << 30
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UsageError, match=r"its shape .* says 115964116992"):
        model_file.load_model(tmp_path / "m.onnx")
    proto = onnx.load(build_tiny_model(tmp_path / "n.onnx"))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    del proto.graph.value_info[:]
    model = model_file.ir.from_proto(proto)
    with pytest.raises(UsageError, match="7 classes and its manifest names 3"):
        model_file.require_manifest(model, tmp_path / "n.onnx")
