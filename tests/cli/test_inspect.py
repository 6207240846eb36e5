"""edgecv inspect as a user runs it."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from conftest import tiny_manifest

from edgecv.cli.main import main
from edgecv.config.device import FULL_RANGE, PORTABLE
from edgecv.quantize.static import quantize_static

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)


def quantized(tiny_model: Path, *, portable: bool) -> Path:
    found = quantize_static(
        ir.load(tiny_model), tiny_manifest(), lambda: iter([PIXELS]), scheme=PORTABLE if portable else FULL_RANGE
    )
    path = tiny_model.with_name(f"tiny-{portable}.onnx")
    ir.save(found.model, path)
    return path


def test_a_model_is_shown_by_operators_and_weights(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    for text in ("operator", "Conv", "weights", "float", "0 of", "verdict:", "next:"):
        assert text in out


def test_json_counts_what_onnx_runtime_runs(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = quantized(tiny_model, portable=True)
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["coverage"]["conv_int8"] == found["operators"]["Conv"]
    assert found["weights"]["int8"]["arrays"] >= 2
    assert found["weights"]["int8"]["bytes"] == found["weights"]["int8"]["elements"]
    assert found["saturation"] is None
    assert {"edgecv", "seed", "n"} <= set(found["host"])


def test_saturation_names_the_layers_at_risk(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = quantized(tiny_model, portable=False)
    assert main(["inspect", str(path), "--saturation", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    at_risk = [row["layer"] for row in found["saturation"]["by_layer"] if row["pairs_at_risk"]]
    assert at_risk
    assert found["saturation"]["layers_at_risk"] == len(at_risk)
    assert main(["inspect", str(path), "--saturation"]) == 0
    out = capsys.readouterr().out
    assert f"{len(at_risk)} layers can saturate" in out
    assert all(name in out for name in at_risk)
    assert "--device qemu-x86:Haswell" in out


def test_a_portable_model_has_none(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(quantized(tiny_model, portable=True)), "--saturation", "-q"]) == 0
    assert capsys.readouterr().out == "verdict:  no layer can saturate\n"


def test_what_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"not a model")
    assert main(["inspect", str(path)]) == 2
    assert "ONNX file" in capsys.readouterr().err


def test_costs_are_told_by_layer_and_in_total(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_model), "--json", "--batch", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    summary = found["summary"]
    assert summary["parameters"] == 8 * 27 + 8 + 8 * 72 + 8 + 3 * 8 + 3
    assert summary["macs"] == 2 * (32 * 32 * 8 * (27 + 72) + 24)
    first = next(row for row in summary["layers"] if row["name"] == "conv1")
    assert (first["formula"], first["output_shape"]) == ("8·3·3·3 + 8", [2, 8, 32, 32])
    assert first["receptive_field"] == {"size": [3, 3], "stride": [1, 1], "offset": [0, 0]}
    assert found["placed"]["Conv"] == {"cpu": 2}
    assert (found["ir_version"], found["obstacles"]) == (9, [])
    assert main(["inspect", str(tiny_model), "--layers"]) == 0
    out = capsys.readouterr().out
    for text in ("8·8·3·3 + 8", "parameters", "held at most", "5/1", "widest view"):
        assert text in out


def test_the_roofline_names_what_to_attack_first(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_model), "--roofline", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for text in ("what to attack first", "measured peak, 1 thread", "attack first: ", "ms to win", "reached"):
        assert text in out


def test_a_picture_is_written_and_never_over_the_model(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    png = tiny_model.with_name("tiny.png")
    assert main(["inspect", str(tiny_model), "-o", str(png), "-q"]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", str(tiny_model), "-o", str(png)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["inspect", str(tiny_model), "-o", str(tiny_model), "--force"]) == 2
    assert "not a .png" in capsys.readouterr().err


def test_what_does_not_run_elsewhere_is_said(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ir.load(tiny_model)
    model.ir_version = 10
    path = tiny_model.with_name("new.onnx")
    ir.save(model, path)
    assert main(["inspect", str(path)]) == 0
    assert "not portable: IR version 10: newer than they read: arm64-generic 9" in capsys.readouterr().out


def test_a_provider_that_is_not_here_is_refused(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_model), "--provider", "acl"]) == 3
    assert capsys.readouterr().err.count("\n") == 1
