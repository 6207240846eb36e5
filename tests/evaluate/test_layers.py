from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY_LABELS, build_tiny_model
from onnx import TensorProto, helper, numpy_helper

from edgecv.data.folder import open_dataset
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.evaluate import layers
from edgecv.evaluate.layers import first_departing_layer
from edgecv.manifest import OutputSpec

TENSORS = ["cast", "nchw", "scaled", "normalised", "c1", "r1", "c2", "r2", "pool", "flat", "logits"]


def with_changed_weight(path: Path, name: str, factor: float) -> Path:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    onnx.save(model, path)
    return path


def with_quantized(path: Path, tensor: str, scale: float, suffix: str) -> Path:
    """Put QuantizeLinear and DequantizeLinear behind ``tensor``; its readers take ``tensor`` + ``suffix``."""
    model = onnx.load(path)
    nodes = []
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == tensor:
                node.input[i] = tensor + suffix
        nodes.append(node)
        if tensor in node.output:
            nodes.append(helper.make_node("QuantizeLinear", [tensor, "qs", "qz"], [tensor + "_q"]))
            nodes.append(helper.make_node("DequantizeLinear", [tensor + "_q", "qs", "qz"], [tensor + suffix]))
    model.graph.initializer.append(helper.make_tensor("qs", TensorProto.FLOAT, [], [scale]))
    model.graph.initializer.append(helper.make_tensor("qz", TensorProto.UINT8, [], [128]))
    copied = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copied)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def test_equal_models_never_depart(tiny_model: Path, color_folder: Path) -> None:
    report = first_departing_layer(tiny_model, tiny_model, open_dataset(color_folder))
    assert [row["tensor"] for row in report.layers] == TENSORS
    assert all(row["sqnr_db"] is None for row in report.layers)
    assert (report.first_below, report.largest_step, report.n, report.not_compared) == ("", "", 8, 0)


def test_the_layer_whose_weights_changed_is_found(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    candidate = with_changed_weight(build_tiny_model(tmp_path / "c.onnx"), "conv2.weight", 1.3)
    report = first_departing_layer(tiny_model, candidate, open_dataset(color_folder), images=3)
    assert report.first_below == "c2"
    assert report.largest_step == "c2"
    by_name = {row["tensor"]: row for row in report.layers}
    assert by_name["r1"]["sqnr_db"] is None
    assert by_name["c2"]["sqnr_db"] == pytest.approx(-20 * np.log10(0.3), abs=1.5)  # the bias did not grow


@pytest.mark.parametrize("suffix", ["_dequantized", "_DequantizeLinear_Output"])
def test_a_quantized_tensor_is_compared_as_its_readers_see_it(
    tiny_model: Path, color_folder: Path, tmp_path: Path, suffix: str
) -> None:
    candidate = with_quantized(build_tiny_model(tmp_path / "c.onnx"), "r1", 0.5, suffix)
    report = first_departing_layer(tiny_model, candidate, open_dataset(color_folder), images=3)
    by_name = {row["tensor"]: row for row in report.layers}
    assert by_name["c1"]["sqnr_db"] is None
    assert by_name["r1"]["sqnr_db"] is not None
    assert report.first_below == report.largest_step == "r1"


def test_a_small_loss_is_placed_though_nothing_falls_below_the_threshold(
    tiny_model: Path, color_folder: Path, tmp_path: Path
) -> None:
    candidate = with_changed_weight(build_tiny_model(tmp_path / "c.onnx"), "conv1.weight", 1.0001)
    report = first_departing_layer(tiny_model, candidate, open_dataset(color_folder), images=2)
    assert report.first_below == ""
    assert report.largest_step == "c1"


@pytest.mark.usefixtures("trusted_models")
def test_nan_counts_as_departed(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    candidate = with_changed_weight(build_tiny_model(tmp_path / "c.onnx"), "conv2.bias", np.nan)
    report = first_departing_layer(tiny_model, candidate, open_dataset(color_folder), images=1)
    assert report.first_below == "c2"


def test_models_without_a_common_name_are_refused(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    output = OutputSpec("x_logits", labels=TINY_LABELS)
    model = onnx.load(build_tiny_model(tmp_path / "other.onnx", output=output))
    renamed = {name: f"x_{name}" for name in TENSORS}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)
    model.graph.output[0].name = "x_logits"
    onnx.save(model, tmp_path / "renamed.onnx")
    with pytest.raises(UsageError, match="share no tensor name"):
        first_departing_layer(tiny_model, tmp_path / "renamed.onnx", open_dataset(color_folder))


def test_without_the_tools_extra_the_install_line_is_given(
    tiny_model: Path, color_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentRefusedError, match=r"pip install 'edgecv\[tools\]'"):
        first_departing_layer(tiny_model, tiny_model, open_dataset(color_folder))
