import json
from pathlib import Path

import pytest
import torch
from conftest import build_tiny_model

from edgecv import workspace
from edgecv.cli.main import main
from edgecv.data.samples import sample_photographs
from edgecv.errors import UsageError
from edgecv.graph.model_file import load_model, require_manifest
from edgecv.pipeline import ExportRequest, export_model


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_checkpoint_is_exported_with_its_classes_and_labels() -> None:
    import timm

    torch.manual_seed(0)
    torch.save({"state_dict": timm.create_model("resnet18", num_classes=3).state_dict()}, "mine.pth")
    Path("labels.txt").write_text("red\ngreen\nblue\n")
    result = export_model(ExportRequest("mine.pth", arch="resnet18", labels=Path("labels.txt")))
    assert result["artifact"] == "mine.onnx"
    manifest = require_manifest(load_model(Path("mine.onnx")), Path("mine.onnx"))
    assert manifest.output.labels == ("red", "green", "blue")
    assert manifest.architecture == "resnet18"
    assert manifest.source["weights"] == "file:mine.pth"
    assert workspace.current_model() == Path("mine.onnx")


def test_a_device_profile_limits_opset_and_ir(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "test_resnet", "--random-init", "--device", "arm64-generic", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["opset"] <= 20
    assert report["ir_version"] <= 9
    assert (
        main(["export", "test_resnet", "--random-init", "--device", "arm64-generic", "--opset", "22", "--force"]) == 2
    )
    assert "arm64-generic" in capsys.readouterr().err


def test_data_of_the_users_own_is_what_the_export_is_checked_on(color_folder: Path) -> None:
    result = export_model(ExportRequest("test_resnet", random_init=True, data=color_folder))
    assert result["host"]["n"] == 18
    assert result["checks"][0]["n"] == 18


def test_without_data_the_sample_photographs_are_used() -> None:
    result = export_model(ExportRequest("test_resnet", random_init=True))
    assert result["checks"][0]["n"] == len(sample_photographs())


def test_labels_that_do_not_fit_are_refused() -> None:
    Path("labels.txt").write_text("red\ngreen\n")
    with pytest.raises(UsageError, match="2 names, the network 1000"):
        export_model(ExportRequest("test_resnet", random_init=True, labels=Path("labels.txt")))
    assert not Path("test_resnet.onnx").exists()


def test_a_foreign_model_is_adopted_beside_itself() -> None:
    build_tiny_model(Path("foreign.onnx"), with_manifest=False)
    Path("labels.txt").write_text("red\ngreen\nblue\n")
    result = export_model(ExportRequest("foreign.onnx", labels=Path("labels.txt")))
    assert result["artifact"] == "foreign.edgecv.onnx"
    assert workspace.current_model() == Path("foreign.edgecv.onnx")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ExportRequest("x.pth"), "x.pth"),
        (ExportRequest("resnet18", arch="resnet18"), "--arch"),
        (ExportRequest("resnet18", input_kind="int7"), "int7"),
        (ExportRequest("resnet18", interpolation="magic"), "magic"),
        (ExportRequest("resnet18", crop_pct=0.0), "--crop-pct"),
        (ExportRequest("a.onnx", random_init=True), "adopted as it is"),
    ],
)
def test_requests_that_make_no_sense_are_refused(request_: ExportRequest, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(request_)


def test_an_export_that_is_interrupted_leaves_nothing() -> None:
    def interrupt(label: str, done: int, total: int) -> None:
        if label.startswith("export"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(ExportRequest("test_resnet", random_init=True), interrupt)
    assert list(Path().iterdir()) == []
