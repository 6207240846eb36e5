"""Int8 files that other tools wrote: the commands work on them as they are, beside the float model they came from."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import build_tiny_model, write_color_folder
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

from edgecv.cli.main import main

FORMS: dict[str, dict[str, object]] = {
    "qdq": {},
    "qdq per channel": {"per_channel": True, "activation_type": QuantType.QUInt8},
    "s8s8": {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8},
    "qoperator": {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QUInt8},
    "qoperator per channel": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        "per_channel": True,
    },
}


class Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, folder: Path) -> None:
        self.left: Iterator[Path] = iter(sorted(folder.glob("*/*.png")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        path = next(self.left, None)
        if path is None:
            return None
        return {"image": np.asarray(Image.open(path).convert("RGB").resize((32, 32)))[None]}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build_tiny_model(Path("float.onnx"))
    build_tiny_model(Path("bare.onnx"), with_manifest=False)
    write_color_folder(Path("calib"), seed=1)
    write_color_folder(Path("eval"), seed=2)


def quantized_elsewhere(form: str, source: str = "bare.onnx") -> str:
    quantize_static(source, "theirs.onnx", Images(Path("calib")), **FORMS[form])
    return "theirs.onnx"


def per_channel_activations() -> str:
    """The form NNCF writes: an activation quantized with one scale a channel, weights in codes, biases in float."""
    model = onnx.load("bare.onnx")
    codes = [
        helper.make_node("QuantizeLinear", ["r1", "s", "z"], ["r1_codes"], axis=1),
        helper.make_node("DequantizeLinear", ["r1_codes", "s", "z"], ["r1_back"], axis=1),
    ]
    position = next(i for i, n in enumerate(model.graph.node) if n.name == "conv2")
    model.graph.node[position].input[0] = "r1_back"
    for offset, node in enumerate(codes):
        model.graph.node.insert(position + offset, node)
    scales = np.linspace(0.01, 0.03, 8, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "s"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.uint8), "z"))
    onnx.save(model, "theirs.onnx")
    return "theirs.onnx"


@pytest.mark.parametrize("form", [*FORMS, "per channel activations"])
def test_verify_and_eval_take_the_float_models_preprocessing(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = per_channel_activations() if form not in FORMS else quantized_elsewhere(form)
    assert main(["verify", "float.onnx", theirs, "--data", "eval", "--max-drop", "50", "--layers", "--json"]) in (0, 4)
    report = json.loads(capsys.readouterr().out)
    assert report["agreement"] == 1.0
    assert 5 < report["sqnr_db"] < 90  # near, and not the float model itself
    assert any("gets the preprocessing and classes of float.onnx" in note for note in report["notes"])
    assert report["layers"]["layers"]
    assert main(["eval", theirs, "float.onnx", "--data", "eval", "--quiet"]) == 0


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_one_adopted_predicts_and_keeps_its_codes(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.txt").write_text("red\ngreen\nblue\n")
    theirs = quantized_elsewhere(form)
    assert main(["export", theirs, "--mean", "0.5", "--std", "0.5", "--labels", "labels.txt", "-o", "own.onnx"]) == 0
    assert "edgecv quantize" not in capsys.readouterr().out  # it is quantized already
    assert main(["predict", "eval/green/0.png", "--model", "own.onnx", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] == "green"
    kinds = {i.data_type for i in onnx.load("own.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_a_manifest_that_came_along_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = quantized_elsewhere("qdq", "float.onnx")
    assert main(["predict", "eval/blue/0.png", "--model", theirs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["label"] == "blue"


@pytest.mark.slow
def test_bench_and_compare_time_it_beside_the_float_model(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = quantized_elsewhere("qoperator")
    assert main(["bench", "float.onnx", theirs, "--preset", "rapid", "--json", "-o", "report.json"]) in (0, 4)
    results = json.loads(capsys.readouterr().out)["results"]
    assert [Path(r["model"]).name for r in results] == ["float.onnx", "theirs.onnx"]
    assert main(["compare", "report.json", "report.json", "--quiet"]) == 0


@pytest.mark.parametrize("mode", ["--int8", "--dynamic", "--fp16", "--bf16", "--weights-only=8"])
@pytest.mark.parametrize(("form", "source"), [("qdq", "bare.onnx"), ("qoperator", "bare.onnx"), ("qdq", "float.onnx")])
def test_a_quantized_model_is_not_quantized_again(
    mode: str, form: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = quantized_elsewhere(form, source)
    assert main(["quantize", theirs, mode, "--data", "calib", "--no-bench"]) == 2
    error = capsys.readouterr().err.strip()
    assert "quantized already" in error
    assert "quantize the float model it was made from" in error
    assert len(error.splitlines()) == 1
