from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import build_tiny_model
from onnx import TensorProto, helper, numpy_helper

from edgecv.data.samples import sample_photographs
from edgecv.errors import UsageError
from edgecv.graph.adopt import AdoptSettings, adopt_model
from edgecv.runtime import Model

SETTINGS = AdoptSettings(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    labels=("a", "b", "c"),
    input_size=None,
    interpolation="bilinear",
    crop_pct=0.875,
    input_kind="uint8",
    softmax=False,
)


def _foreign(path: Path, shape: list[object], classes: int = 3, opset: int = 17) -> Path:
    """A float network nobody told us anything about."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "h"], ["scores"], transB=1),
    ]
    if shape[-1] == 3:
        nodes.insert(0, helper.make_node("Transpose", ["nhwc"], ["x"], perm=[0, 3, 1, 2]))
    arrays = {"w": rng.standard_normal((8, 3, 3, 3)), "h": rng.standard_normal((classes, 8))}
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("nhwc" if shape[-1] == 3 else "x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], classes])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize("shape", [["n", 3, 32, 40], [1, 3, 32, 40], ["n", 32, 40, 3], ["n", 3, "h", "w"]], ids=str)
def test_an_adopted_model_predicts_from_a_photograph(tmp_path: Path, shape: list[object]) -> None:
    source, output = _foreign(tmp_path / "m.onnx", shape), tmp_path / "m.edgecv.onnx"
    before = source.read_bytes()
    settings = replace(SETTINGS, input_size=(32, 40) if shape[2] == "h" else None)
    checks, manifest = adopt_model(source, output, sample_photographs(), settings)
    assert [c.batch for c in checks] == ([1] if shape[0] == 1 else [1, 2, 7])
    assert all(c.top1_agreement == 1 for c in checks)
    assert manifest.input.input_size == (3, 32, 40)
    assert manifest.input.batch == (1 if shape[0] == 1 else 0)
    assert source.read_bytes() == before
    with Model.load(output) as model:
        assert model(sample_photographs()[0]).label in "abc"
    assert ort.InferenceSession(str(output)).get_inputs()[0].type == "tensor(uint8)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": None}, "--mean"),
        ({"std": None}, "--std"),
        ({"labels": ("a", "b")}, "3 classes, the label file 2"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
    ],
)
def test_what_the_file_does_not_say_is_asked_for(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    source = _foreign(tmp_path / "m.onnx", ["n", 3, 32, 40])
    with pytest.raises(UsageError, match=message):
        adopt_model(source, tmp_path / "o.onnx", sample_photographs(), replace(SETTINGS, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "o.onnx").exists()


def test_an_open_size_is_asked_for(tmp_path: Path) -> None:
    source = _foreign(tmp_path / "m.onnx", ["n", 3, "h", "w"])
    with pytest.raises(UsageError, match="--input-size"):
        adopt_model(source, tmp_path / "o.onnx", sample_photographs(), SETTINGS)


def test_an_edgecv_model_is_not_adopted_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        adopt_model(build_tiny_model(tmp_path / "m.onnx"), tmp_path / "o.onnx", sample_photographs(), SETTINGS)
