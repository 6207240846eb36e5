import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from conftest import build_tiny_model, write_color_folder

from edgecv.cli.main import main
from edgecv.cli.quantize import explanation_table
from edgecv.errors import UsageError
from edgecv.pipeline import QuantizeRequest, quantize_model


@pytest.fixture
def request_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QuantizeRequest:
    monkeypatch.chdir(tmp_path)
    model = build_tiny_model(Path("tiny.onnx"))
    data = write_color_folder(Path("calib"), seed=1)
    return QuantizeRequest(model, "int8", data=data, method="per-channel", bench=False, threads="1")


def test_a_number_of_layers_is_kept_float_and_named_with_its_gain_and_cost(request_int8: QuantizeRequest) -> None:
    report = quantize_model(replace(request_int8, keep_float=("1",)))["quantization"]
    (move,) = report["mixed"]["kept"]
    assert len(move["layers"]) == 1
    assert move["cost_ms"] is not None
    ladder = {step["rung"]: step for step in report["ladder"]}
    assert list(report["kept_float"].values()) == ["kept in float for accuracy"] * ladder["mixed"]["kept"]


def test_names_and_a_number_go_together(request_int8: QuantizeRequest) -> None:
    first = onnx.load("tiny.onnx").graph
    name = next(n.name for n in first.node if n.op_type == "Conv")
    report = quantize_model(replace(request_int8, keep_float=(name, "1")))["quantization"]
    assert report["kept_float"][name] == "excluded by the user"
    assert report["mixed"] is not None


def test_sixteen_bit_activations_are_in_the_file_and_said_to_run_in_float(request_int8: QuantizeRequest) -> None:
    report = quantize_model(replace(request_int8, activations=16))
    zeros = {i.data_type for i in onnx.load(report["artifact"]).graph.initializer if i.name.endswith("zero_point")}
    assert onnx.TensorProto.UINT16 in zeros
    assert onnx.TensorProto.UINT8 not in zeros
    assert any("run in float" in note for note in report["quantization"]["notes"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "fp16", "keep_float": ("auto",)}, "--keep-float auto or a number is for --int8"),
        ({"mode": "dynamic", "explain": True}, "--explain is for --int8"),
        ({"mode": "fp16", "activations": 16}, "--activations 16 is for --int8"),
        ({"mode": "dynamic", "method": "auto", "int8_heads": True}, "--int8-heads is for --int8"),
        ({"keep_float": ("Relu_2",)}, "no node or layer 'Relu_2'"),
        ({"activations": 12}, "--activations 12 is neither 8 nor 16"),
        ({"activations": 16, "explain": True}, "--explain measures int8 activations"),
        ({"keep_float": ("auto", "2")}, "contradict each other"),
    ],
)
def test_what_does_not_go_together_is_refused(
    request_int8: QuantizeRequest, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        quantize_model(replace(request_int8, **changes))  # type: ignore[arg-type]
    assert sorted(p.name for p in Path().iterdir()) == ["calib", "tiny.onnx"]


def test_an_explanation_is_printed_and_written_beside_the_model(
    request_int8: QuantizeRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", "tiny.onnx", "--int8", "--data", "calib", "--method", "per-channel", "--explain"]
    assert main([*command, "--no-bench", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["explanation"]
    assert found["files"] == ["tiny.int8.explain.html", "tiny.int8.explain.png"]
    assert {"layer", "share", "alone_db", "cost_ms", "clipped"} <= set(found["rows"][0])
    assert Path("tiny.int8.explain.png").read_bytes().startswith(b"\x89PNG")
    ((title, columns, rows),), (meaning, note) = explanation_table(found)
    assert "share is the part of all such errors" in meaning
    assert title.endswith("by their share of the error")
    assert len(rows) == len(found["rows"])
    assert len(rows[0]) == len(columns)
    assert "tiny.int8.explain.html and tiny.int8.explain.png" in note


def test_an_older_explanation_is_not_replaced_without_force(request_int8: QuantizeRequest) -> None:
    Path("tiny.int8.explain.html").write_text("mine")
    begun: list[str] = []
    with pytest.raises(UsageError, match=r"explain\.html' exists already"):
        quantize_model(replace(request_int8, explain=True), lambda label, done, total: begun.append(label))
    assert begun == []
