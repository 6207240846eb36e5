from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import build_tiny_model, write_color_folder

from edgecv.errors import UsageError
from edgecv.graph.model_file import load_model, require_manifest
from edgecv.pipeline import QuantizeRequest, quantize_model


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


def test_layers_to_keep_float_are_found_when_asked(request_int8: QuantizeRequest) -> None:
    result = quantize_model(replace(request_int8, method="per-channel", keep_float=("1",)))
    assert rungs(result) == ["per-channel", "mixed"]
    assert len(result["quantization"]["mixed"]["kept"]) == 1
    assert "kept in float for accuracy" in str(result["quantization"]["kept_float"])


def test_an_unknown_rung_is_refused_before_any_work(request_int8: QuantizeRequest) -> None:
    with pytest.raises(UsageError, match="'adaround' is not one of"):
        quantize_model(replace(request_int8, method="adaround"))


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
