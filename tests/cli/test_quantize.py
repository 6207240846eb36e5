from typing import Any

import pytest

from edgecv.cli.quantize import quantize_notes, quantize_verdict

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
