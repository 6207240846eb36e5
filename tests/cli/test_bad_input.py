"""Every command against every bad input: one line on stderr, the right exit code, nothing left behind."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import build_tiny_model, write_color_folder
from onnx import TensorProto, helper

from edgecv.cli.main import main

Make = Callable[[Path], Path]


def _missing(folder: Path) -> Path:
    return folder / "bad.onnx"


def _folder(folder: Path) -> Path:
    (folder / "bad.onnx").mkdir()
    return folder / "bad.onnx"


def _truncated(folder: Path) -> Path:
    path = build_tiny_model(folder / "bad.onnx")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _random(folder: Path) -> Path:
    path = folder / "bad.onnx"
    path.write_bytes(bytes(range(256)) * 64)
    return path


def _empty(folder: Path) -> Path:
    path = folder / "bad.onnx"
    path.touch()
    return path


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "bad.onnx")
    return folder / "bad.onnx"


def _foreign(folder: Path) -> Path:
    return build_tiny_model(folder / "bad.onnx", with_manifest=False)


def _text_model(folder: Path) -> Path:
    """A model of another kind: token ids in, nothing to do with images."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["ids"], ["out"])],
        "text",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 16])],
        [helper.make_tensor_value_info("out", TensorProto.INT64, ["n", 16])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "bad.onnx")
    return folder / "bad.onnx"


BAD_MODELS: dict[str, Make] = {
    f.__name__[1:]: f for f in (_missing, _folder, _truncated, _random, _empty, _fifo, _foreign, _text_model)
}

MODEL_COMMANDS: dict[str, list[str]] = {
    "export": ["export", "{bad}", "--mean", "0.5", "--std", "0.5"],
    "quantize int8": ["quantize", "{bad}", "--int8", "--data", "{data}"],
    "quantize dynamic": ["quantize", "{bad}", "--dynamic", "--no-bench"],
    "quantize fp16": ["quantize", "{bad}", "--fp16", "--no-bench"],
    "quantize bf16": ["quantize", "{bad}", "--bf16", "--no-bench"],
    "quantize weights only": ["quantize", "{bad}", "--weights-only", "8", "--no-bench"],
    "verify reference": ["verify", "{bad}", "{good}", "--data", "{data}"],
    "verify candidate": ["verify", "{good}", "{bad}", "--data", "{data}"],
    "eval": ["eval", "{bad}", "--data", "{data}"],
    "bench": ["bench", "{bad}", "--preset", "rapid"],
    "predict": ["predict", "{image}", "--model", "{bad}"],
}

WORKS_ON_FOREIGN = {
    ("bench", "foreign"),
    ("bench", "text_model"),
    ("export", "foreign"),
    ("verify reference", "foreign"),
    ("verify candidate", "foreign"),
}
"""Timing needs no manifest, adopting is what a foreign model is for (this one takes bytes already), and verify gives it
the preprocessing of the other model."""


def _fill(command: list[str], **places: Path) -> list[str]:
    return [part.format(**places) for part in command]


def _snapshot(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _assert_one_clear_line(err: str) -> None:
    lines = [line for line in err.splitlines() if line and not line.endswith(tuple("0123456789"))]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", BAD_MODELS)
@pytest.mark.parametrize("command", MODEL_COMMANDS)
def test_a_bad_model_is_one_line_and_exit_2(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    if (command, kind) in WORKS_ON_FOREIGN:
        pytest.skip("this command takes such a model")
    data = write_color_folder(place / "data", per_class=2)
    good = build_tiny_model(place / "good.onnx")
    (place / "bad").mkdir()
    bad = BAD_MODELS[kind](place / "bad")
    before = _snapshot(place)
    arguments = _fill(MODEL_COMMANDS[command], bad=bad, good=good, data=data, image=data / "red" / "0.png")
    code = main(arguments)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    _assert_one_clear_line(captured.err)
    assert "bad.onnx" in captured.err
    assert _snapshot(place) - {".edgecv"} == before


def _no_data(folder: Path) -> Path:
    return folder / "nowhere"


def _empty_data(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _text_data(folder: Path) -> Path:
    (folder / "texts" / "red").mkdir(parents=True)
    (folder / "texts" / "red" / "a.txt").write_text("hello")
    return folder / "texts"


def _lying_images(folder: Path) -> Path:
    (folder / "lies" / "red").mkdir(parents=True)
    (folder / "lies" / "red" / "a.jpg").write_text("hello")
    return folder / "lies"


def _truncated_image(folder: Path) -> Path:
    write_color_folder(folder / "cut", per_class=1)
    path = folder / "cut" / "green" / "0.png"
    path.write_bytes(path.read_bytes()[:200])
    return folder / "cut"


def _unknown_class(folder: Path) -> Path:
    write_color_folder(folder / "classes", per_class=1)
    (folder / "classes" / "green").rename(folder / "classes" / "grene")
    return folder / "classes"


BAD_DATA: dict[str, Make] = {
    f.__name__[1:]: f for f in (_no_data, _empty_data, _text_data, _lying_images, _truncated_image, _unknown_class)
}

DATA_COMMANDS: dict[str, list[str]] = {
    "quantize": ["quantize", "{good}", "--int8", "--data", "{data}", "--no-bench"],
    "gate": ["quantize", "{good}", "--fp16", "--eval-data", "{data}", "--max-drop", "1", "--no-bench"],
    "verify": ["verify", "{good}", "{good}", "--data", "{data}"],
    "eval": ["eval", "{good}", "--data", "{data}"],
    "bench": ["bench", "{good}", "--data", "{data}"],
    "export": ["export", "{good}", "--data", "{data}"],
}


@pytest.mark.parametrize("kind", BAD_DATA)
@pytest.mark.parametrize("command", DATA_COMMANDS)
def test_bad_data_is_one_line_and_exit_2(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    if kind == "unknown_class" and command in ("quantize", "bench", "export"):
        pytest.skip("labels do not matter to this command")
    good = build_tiny_model(place / "good.onnx", with_manifest=command != "export")
    data = BAD_DATA[kind](place)
    before = _snapshot(place)
    code = main(_fill(DATA_COMMANDS[command], good=good, data=data))
    captured = capsys.readouterr()
    assert code == 2, captured.err
    _assert_one_clear_line(captured.err)
    assert (data.name if kind != "unknown_class" else "grene") in captured.err
    assert _snapshot(place) - {".edgecv"} == before
    if kind == "unknown_class":
        assert "green" in captured.err  # the nearest name


WRITERS: dict[str, list[str]] = {
    "quantize": ["quantize", "{good}", "--fp16", "--no-bench", "-o", "{out}"],
    "adopt": ["export", "{foreign}", "-o", "{out}"],
    "bench": ["bench", "{good}", "-o", "{out}"],
    "export": ["export", "resnet18", "--random-init", "-o", "{out}"],
}


@pytest.mark.parametrize("case", ["exists", "no folder", "a folder"])
@pytest.mark.parametrize("command", WRITERS)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, case: str
) -> None:
    good = build_tiny_model(place / "good.onnx")
    foreign = build_tiny_model(place / "foreign.onnx", with_manifest=False)
    out = place / "out.json"
    if case == "exists":
        out.write_text("precious")
    elif case == "no folder":
        out = place / "nowhere" / "out.json"
    else:
        out.mkdir()
    code = main(_fill(WRITERS[command], good=good, foreign=foreign, out=out))
    captured = capsys.readouterr()
    assert code == 2, captured.err
    _assert_one_clear_line(captured.err)
    if case == "exists":
        assert "--force" in captured.err
        assert out.read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["exprot"], "export"),
        (["export", "resnet5O"], "resnet50"),
        (["export", "resnet18", "--random-init", "--device", "rpi6"], "rpi5"),
        (["export", "resnet18", "--randominit"], "--random-init"),
        (["export", "resnet18", "--opset", "99"], "--opset"),
        (["models", "resnet5O"], "resnet50"),
        (["bench", "{good}", "--provider", "cdua"], "cuda"),
        (["bench", "{good}", "--preset", "rapd"], "rapid"),
        (["bench", "{good}", "--threads", "many"], "many"),
        (["predict", "{good}", "--model", "{good}", "--provider", "cup"], "cpu"),
        (["quantize", "{good}"], "--int8"),
        (["quantize", "{good}", "--int8"], "--data"),
        (["quantize", "{good}", "--int8", "--fp16"], "--int8"),
        (["quantize", "{good}", "--int8", "--data", ""], "empty"),
        (["export", "resnet18", "--random-init", "--data", ""], "empty"),
        (["run", "lite0-int8", "--calib", ""], "empty"),
        (["demo", "--data", ""], "empty"),
        (["quantize", "{good}", "--fp16", "--max-drop", "1"], "--eval-data"),
        (["quantize", "{good}", "--int8", "--data", "{data}", "--keep-float", "conv3"], "conv2"),
        (["quantize", "{good}", "--int8", "--data", "{data}", "--ranges", "mes"], "mse"),
        (["run", "lite0-int9"], "lite0-int8"),
        (["run", "lite0-int8"], "--calib"),
        (["export", "w.pth"], "w.pth"),
        (["export", "resnet18", "--weights", "w.pth", "--random-init"], "--random-init"),
        (["export", "resnet18", "--mean", "0.5"], "--mean"),
        (["export", "{good}", "--mean", "a,b"], "--mean"),
        (["quantize", "--int8", "--data", "{data}"], "edgecv export"),
        (["verify", "--data", "{data}"], "edgecv export"),
        (["bench"], "edgecv export"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_mistyped_word_shows_what_was_meant(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    good = build_tiny_model(place / "good.onnx")
    data = write_color_folder(place / "data", per_class=1)
    code = main(_fill(arguments, good=good, data=data))
    captured = capsys.readouterr()
    assert code == 2, captured.err
    _assert_one_clear_line(captured.err)
    assert hint in captured.err


def test_cuda_on_a_machine_without_it_is_exit_3_and_names_what_is_missing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    good = build_tiny_model(place / "good.onnx")
    for command in (["bench", str(good)], ["predict", "x.png", "--model", str(good)]):
        assert main([*command, "--provider", "cuda"]) == 3
        assert "edgecv[gpu]" in capsys.readouterr().err
