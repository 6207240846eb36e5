from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from edgecv.errors import UsageError
from edgecv.manifest import Manifest, from_metadata
from edgecv.nn.checkpoint import save_network
from edgecv.nn.student import student_of
from edgecv.pipeline.export import ExportRequest, export_model


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    student = student_of("lenet5", macs=0.6, num_classes=3)
    student = replace(student, labels=("red", "green", "blue"), source={"weights": "trained", "license": "CC0-1.0"})
    path = tmp_path / "model.safetensors"
    save_network(path, student)
    return path


def _manifest(path: str) -> Manifest:
    manifest = from_metadata(ort.InferenceSession(path).get_modelmeta().custom_metadata_map, path)
    assert manifest is not None
    return manifest


def test_a_checkpoint_says_itself_which_network_it_is(checkpoint: Path, color_folder: Path) -> None:
    result = export_model(ExportRequest("model.safetensors", data=color_folder))
    assert result["artifact"] == "model.onnx"
    manifest = _manifest("model.onnx")
    assert manifest.architecture == "lenet5"
    assert manifest.output.labels == ("red", "green", "blue")
    assert manifest.source["weights"] == "checkpoint:model.safetensors"
    assert manifest.source["license"] == "CC0-1.0"
    assert [s["name"] for s in manifest.stages] == ["student", "export"]
    assert manifest.structure[0]["step"] == "depthwise"
    assert manifest.arguments == {"num_classes": 3, "input_size": 32}
    assert manifest.input.input_size == (3, 32, 32)
    assert not any("no labels" in n for n in result["notes"])


def test_the_exported_student_answers_as_the_checkpoint(checkpoint: Path, color_folder: Path) -> None:
    from edgecv.nn.checkpoint import load_network

    export_model(ExportRequest("model.safetensors", data=color_folder, input_kind="float"))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = load_network(checkpoint).module(images).numpy()
    session = ort.InferenceSession("model.onnx")
    answer = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert np.allclose(answer, expected, atol=1e-4)


def test_arch_is_still_asked_for_where_nothing_is_said(checkpoint: Path, color_folder: Path) -> None:
    torch.save({"a": torch.zeros(1)}, "w.pth")
    with pytest.raises(UsageError, match="--arch"):
        export_model(ExportRequest("w.pth", data=color_folder))
    with pytest.raises(UsageError, match=r"holds a lenet5, not a resnet18"):
        export_model(ExportRequest("model.safetensors", arch="resnet18", data=color_folder))
    export_model(ExportRequest("model.safetensors", arch="lenet5", data=color_folder))


def test_an_own_network_exports_by_name_with_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, color_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = export_model(ExportRequest("dsnet:width=0.25,depth=1", random_init=True, data=color_folder))
    manifest = _manifest(result["artifact"])
    assert manifest.architecture == "dsnet"
    assert manifest.arguments["depth"] == 1
