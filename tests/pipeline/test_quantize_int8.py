from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import build_tiny_model, write_color_folder
from small_graphs import MANIFEST, small_model

from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError
from edgecv.evaluate.looks import pass_level
from edgecv.evaluate.statistics import LEVEL
from edgecv.graph.model_file import load_model, require_manifest
from edgecv.pipeline import QuantizeRequest, quantize_model
from edgecv.pipeline.quantize_int8 import quantize_int8
from edgecv.progress import no_progress


@pytest.fixture
def request_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QuantizeRequest:
    monkeypatch.chdir(tmp_path)
    build_tiny_model(Path("tiny.onnx"))
    data = write_color_folder(Path("calib"), per_class=8, seed=1)
    return QuantizeRequest(Path("tiny.onnx"), "int8", data=data, bench=False)


def rungs(result: dict[str, Any]) -> list[str]:
    return [step["rung"] for step in result["quantization"]["ladder"]]


def test_an_easy_network_needs_one_rung(request_int8: QuantizeRequest) -> None:
    result = quantize_model(request_int8)
    assert rungs(result) == ["per-channel"]
    assert result["quantization"]["ladder"][0]["sqnr_db"] >= 24


def test_a_named_rung_is_walked_to_and_no_further(request_int8: QuantizeRequest) -> None:
    result = quantize_model(replace(request_int8, method="equalize"))
    assert rungs(result) == ["per-channel", "ranges", "equalize"]
    stage = require_manifest(load_model(Path("tiny.int8.onnx")), Path("tiny.int8.onnx")).stages[-1]
    assert stage["settings"]["method"] == "equalize"
    assert stage["settings"]["rungs"][0] == "per-channel"


def test_the_gate_ends_the_climb_and_its_word_is_reported(request_int8: QuantizeRequest) -> None:
    judging = write_color_folder(Path("eval"), per_class=40, seed=2)
    result = quantize_model(replace(request_int8, eval_data=judging, max_drop=5.0))
    assert [s["verdict"] for s in result["quantization"]["ladder"]] == ["pass"]


def test_each_look_at_the_judging_images_must_be_as_sure_as_its_share(request_int8: QuantizeRequest) -> None:
    model = load_model(request_int8.model)
    manifest = require_manifest(model, request_int8.model)
    levels = []

    def never_sure(quantized: object, level: float) -> dict[str, str]:
        levels.append(level)
        return {"verdict": "fail"}

    judging = replace(request_int8, max_drop=0.0, eval_data=Path("calib"))
    dataset = open_dataset(Path("calib"))
    steps = quantize_int8(judging, model, manifest, dataset, never_sure, no_progress).quantized.summary["ladder"]
    asked = sum(step["verdict"] != "" for step in steps)
    assert levels == [pass_level(look, 7 if find_spec("torch") else 6) for look in range(1, asked + 1)]
    levels.clear()
    quantize_int8(replace(judging, method="per-channel"), model, manifest, dataset, never_sure, no_progress)
    assert levels == [LEVEL]


def test_layers_to_keep_float_are_found_when_asked(request_int8: QuantizeRequest) -> None:
    result = quantize_model(replace(request_int8, method="per-channel", keep_float=("1",)))
    assert rungs(result) == ["per-channel", "mixed"]
    assert len(result["quantization"]["mixed"]["kept"]) == 1
    assert "kept in float for accuracy" in str(result["quantization"]["kept_float"])


def test_an_unknown_rung_is_refused_before_any_work(request_int8: QuantizeRequest) -> None:
    with pytest.raises(UsageError, match="'adaround' is not one of"):
        quantize_model(replace(request_int8, method="adaround"))


@pytest.mark.parametrize(("images", "warned"), [(1, True), (19, True), (20, False)])
def test_too_few_images_are_said_with_how_many_would_do(
    request_int8: QuantizeRequest, images: int, warned: bool
) -> None:
    notes = quantize_model(replace(request_int8, images=images))["quantization"]["notes"]
    found = [note for note in notes if note.startswith("warning: calibrated on")]
    assert len(found) == warned
    assert all(f"on {images} image" in note and "20 would do" in note for note in found)


@pytest.mark.parametrize("int8_heads", [False, True])
def test_a_detectors_head_is_quantized_on_request(request_int8: QuantizeRequest, int8_heads: bool) -> None:
    body = """
        t = Conv(image, w) r = Relu(t)
        b = Conv(r, wb) br = Reshape(b, by4) boxes = Relu(br)
        s = Conv(r, ws) sr = Reshape(s, by5) scores = Relu(sr)
    """
    model = small_model(body, {"w": (8, 3, 3, 3), "wb": (8, 8, 1, 1), "ws": (10, 8, 1, 1)} | {
        f"by{n}": np.array([0, -1, n]) for n in (4, 5)
    }, outputs=("float[batch, n, 4] boxes", "float[batch, n, 5] scores"))  # fmt: skip
    dataset = open_dataset(Path("calib"))
    request = replace(request_int8, method="per-channel", int8_heads=int8_heads)
    found = quantize_int8(
        request, model, MANIFEST, dataset, lambda quantized, level: None, no_progress
    ).quantized.summary
    assert found["coverage"]["conv_int8"] == (3 if int8_heads else 1)
    assert found["settings"]["int8_heads"] is int8_heads


def test_how_images_were_used_is_recorded(request_int8: QuantizeRequest) -> None:
    settings = quantize_model(request_int8)["quantization"]["settings"]
    assert settings["images"] + settings["held_out"] == 24


def test_a_file_without_any_int8_layer_is_refused_or_avoided(request_int8: QuantizeRequest) -> None:
    with pytest.raises(UsageError, match="99 layers cannot stay float: int8 runs 3"):
        quantize_model(replace(request_int8, method="per-channel", keep_float=("99",)))
    found = quantize_model(replace(request_int8, method="per-channel", keep_float=("auto",)))
    assert found["quantization"]["layers"] >= 1


def test_named_float_layers_are_in_the_manifest(request_int8: QuantizeRequest) -> None:
    quantize_model(replace(request_int8, method="per-channel", keep_float=("conv1",)))
    stage = require_manifest(load_model(Path("tiny.int8.onnx")), Path("tiny.int8.onnx")).stages[-1]
    assert stage["settings"]["kept_float"] == ["conv1"]


@pytest.mark.parametrize("changes", [{"method": "round"}, {"ranges": "foo"}])
def test_options_of_int8_are_refused_elsewhere(request_int8: QuantizeRequest, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is for --int8; it says nothing about fp16"):
        quantize_model(replace(request_int8, mode="fp16", **changes))
