import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from conftest import swept

from edgecv.data.samples import sample_photographs
from edgecv.errors import GateFailedError, UsageError
from edgecv.manifest import InputSpec, from_metadata
from edgecv.nn import exporters
from edgecv.nn.export import ExportSettings, export_network
from edgecv.nn.network import Network


class Small(torch.nn.Module):
    """A network with everything an export has to clean: norm, ReLU6, spatial mean, denormal weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = torch.nn.BatchNorm2d(8)
        self.act = torch.nn.ReLU6()
        self.head = torch.nn.Linear(8, 5)
        with torch.no_grad():
            self.head.weight[0, 0] = 1e-41

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.norm(self.conv(images))).mean((2, 3)))  # type: ignore[no-any-return]


def small_network() -> Network:
    spec = InputSpec("image", (3, 48, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), layout="NCHW", dtype="float32")
    return Network(Small().eval(), "small", spec, (), (), {"weights": "random-init"}, 2)


@pytest.fixture
def images() -> list[Path]:
    return sample_photographs()


def test_the_exported_graph_takes_bytes_is_clean_and_carries_its_proof(tmp_path: Path, images: list[Path]) -> None:
    path = tmp_path / "small.onnx"
    report = export_network(small_network(), path, images, ExportSettings())
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    operators = [n.op_type for n in proto.graph.node]
    assert "BatchNormalization" not in operators
    assert "ReduceMean" not in operators
    assert "GlobalAveragePool" in operators
    assert not any(n.doc_string or n.metadata_props for n in proto.graph.node)
    assert proto.ir_version == 8
    head = next(i for i in proto.graph.initializer if i.dims == [5, 8])
    assert not (np.abs(onnx.numpy_helper.to_array(head)[0, 0]) > 0)
    (image,) = proto.graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value or d.dim_param for d in image.type.tensor_type.shape.dim] == ["batch", 48, 64, 3]
    session = ort.InferenceSession(str(path))
    manifest = from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    assert manifest == report.manifest
    assert manifest.parity[0]["batches"] == [1, 2, 7]
    assert manifest.parity[0]["n"] == len(images)
    assert [c.batch for c in report.checks] == [1, 2, 7]


def test_float_input_and_softmax(tmp_path: Path, images: list[Path]) -> None:
    path = tmp_path / "small.onnx"
    export_network(small_network(), path, images, ExportSettings(input_kind="float", softmax=True))
    session = ort.InferenceSession(str(path))
    assert session.get_inputs()[0].shape[1:] == [3, 48, 64]
    assert session.get_inputs()[0].type == "tensor(float)"
    output = session.run(None, {"image": np.zeros((3, 3, 48, 64), np.float32)})[0]
    np.testing.assert_allclose(output.sum(1), 1, atol=1e-6)


def test_dynamic_size_is_checked_at_three_sizes(tmp_path: Path, images: list[Path]) -> None:
    path = tmp_path / "small.onnx"
    report = export_network(small_network(), path, images, ExportSettings(dynamic_size=True))
    assert len({c.size for c in report.checks}) == 3
    session = ort.InferenceSession(str(path))
    assert session.run(None, {"image": np.zeros((1, 97, 131, 3), np.uint8)})[0].shape == (1, 5)


def test_a_graph_that_answers_differently_is_not_written(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    export = exporters._export

    def tampered(*args: object, **kwargs: object) -> object:
        model = export(*args, **kwargs)  # type: ignore[arg-type]
        value = next(v for n, v in model.graph.initializers.items() if "head.bias" in n)
        value.const_value = exporters.ir.tensor(value.const_value.numpy() + 0.01, name=value.name)  # type: ignore[union-attr]
        return model

    monkeypatch.setattr(exporters, "_export", tampered)
    with pytest.raises(GateFailedError, match="standard deviations"):
        export_network(small_network(), tmp_path / "small.onnx", images, ExportSettings())
    assert list(tmp_path.iterdir()) == []


def test_a_target_too_old_for_the_opset_is_refused(tmp_path: Path, images: list[Path]) -> None:
    with pytest.raises(UsageError, match="reads up to 7"):
        export_network(small_network(), tmp_path / "small.onnx", images, ExportSettings(ir_limit=7))


def test_a_network_that_needs_its_size_cannot_be_exported_without_it(tmp_path: Path, images: list[Path]) -> None:
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(3 * 16 * 16, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(images.flatten(1))  # type: ignore[no-any-return]

    network = replace(
        small_network(), module=Fixed().eval(), input=replace(small_network().input, input_size=(3, 16, 16))
    )
    with pytest.raises(GateFailedError, match="dynamic-size"):
        export_network(network, tmp_path / "x.onnx", images, ExportSettings(dynamic_size=True))


_EXPORT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from nn.test_export import small_network
from edgecv.data.samples import sample_photographs
from edgecv.nn.export import ExportSettings, export_network
export_network(small_network(), Path({path!r}), sample_photographs(), ExportSettings())
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent.parent)
    for name, hash_seed in (("a", "1"), ("b", "2")):
        code = _EXPORT.format(tests=tests, path=str(tmp_path / f"{name}.onnx"))
        subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": hash_seed, "PATH": ""})
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert b"test_export" not in (tmp_path / "a.onnx").read_bytes()


SWEEP = (
    "resnet18", "resnet50", "vgg11", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small",
    "efficientnet_lite0", "efficientnet_b0", "xception41", "inception_resnet_v2", "seresnet50", "repvgg_a0",
    "convnext_atto", "densenet121", "ghostnet_100", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "mobilevit_xs",
    "torchvision:mobilenet_v2",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", swept(SWEEP, ("resnet18", "mobilenetv3_large_100", "convnext_atto", "mobilevit_xs")))
def test_every_network_of_the_sweep_exports_with_dynamic_batch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgecv.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["export", name, "--random-init", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [c["batch"] for c in report["checks"]] == [1, 2, 7]
    assert report["source"]["weights"] == "random-init"
    session = ort.InferenceSession(report["artifact"])
    assert session.get_inputs()[0].type == "tensor(uint8)"
