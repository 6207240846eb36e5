import json
from pathlib import Path
from typing import Any

import pytest

from edgecv.cli.main import main
from edgecv.cli.quantize import quantize_notes, quantize_verdict
from edgecv.graph.model_file import load_model, require_manifest

LATENCY = {"verdict": "n.int8.onnx is 1.20x slower than n.onnx here (95 % interval 1.10–1.30): keep n.onnx"}
LOSSES = [{"kind": "convolutions", "reference_ms": 3.0, "candidate_ms": 4.5}]


def result(latency: dict[str, Any] | None = None, **quantization: Any) -> dict[str, Any]:
    return {
        "source": "n.onnx",
        "bytes_before": 4_000_000,
        "bytes_after": 1_000_000,
        "quantization": quantization,
        "parity": None,
        "latency": latency,
        "notes": [],
    }


def test_a_slower_model_is_called_so_in_the_verdict_with_the_work_that_loses() -> None:
    verdict = quantize_verdict(result(LATENCY | {"slower": True, "slower_in": LOSSES}))
    assert verdict.endswith("keep n.onnx; time is lost in convolutions 3.00 → 4.50 ms")
    assert "not judged" in verdict


@pytest.mark.parametrize("latency", [None, LATENCY | {"slower": False, "slower_in": []}])
def test_a_model_that_is_not_slower_needs_no_advice(latency: dict[str, Any] | None) -> None:
    assert "keep" not in quantize_verdict(result(latency))


def test_rewrites_are_named_and_those_undone_apart() -> None:
    rewrites = [{"name": "a", "kept": True}, {"name": "b", "kept": False}, {"name": "c", "kept": True}]
    assert "for speed: a, c (undone: b)" in quantize_notes(result(rewrites=rewrites))
    assert "for speed: nothing (undone: b)" in quantize_notes(result(rewrites=rewrites[1:2]))
    assert not any(n.startswith("for speed") for n in quantize_notes(result()))
    ordered = [*rewrites[:1], {"name": "order_channels", "kept": True}]
    assert "for speed: a" in quantize_notes(result(rewrites=ordered))


def quantize(model: Path, data: Path, *arguments: str) -> int:
    common = ["quantize", str(model), "--data", str(data), "--no-bench", "--force", "--method", "per-channel"]
    return main([*common, "-o", str(model.with_name("q.onnx")), *arguments])


def test_the_device_chooses_how_int8_is_written_and_is_recorded(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for device in (None, "x86-avx2", "x86-vnni", "cuda-generic"):
        assert quantize(tiny_model, color_folder, "--int8", "--json", *(["--device", device] if device else [])) == 0
        report = json.loads(capsys.readouterr().out)["quantization"]
        settings = report["settings"]
        assert settings["device"] == device
        manifest = require_manifest(load_model(tiny_model.with_name("q.onnx")), tiny_model)
        assert manifest.stages[-1]["settings"]["device"] == device
        found[device] = (settings["activations"], settings["bias"], report["saturation"]["layers_at_risk"] == 0)
    assert found[None] == found["x86-avx2"] == ("uint8", "int32", True)
    assert found["x86-vnni"] == ("uint8", "int32", False)
    assert found["cuda-generic"] == ("int8", "float32", False)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--int8", "--device", "x86-vni"], "Did you mean 'x86-vnni'"),
    (["--fp16", "--device", "x86-vnni"], "--device chooses how int8 is written"),
])  # fmt: skip
def test_a_device_that_cannot_be_meant_is_refused(
    tiny_model: Path, color_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert quantize(tiny_model, color_folder, *arguments) == 2
    assert message in capsys.readouterr().err
