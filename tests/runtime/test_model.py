"""The classifier an app embeds."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import TINY_LABELS, build_tiny_model, tiny_manifest
from onnx import helper, numpy_helper
from PIL import Image

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec, Manifest, OutputSpec, to_metadata
from edgecv.runtime import Model, Prediction

RED = np.full((32, 32, 3), (230, 20, 20), np.uint8)
BLUE = np.full((32, 32, 3), (20, 20, 230), np.uint8)


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return Model.load(tiny_model)


def test_every_kind_of_image_gives_the_same_prediction(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.fromarray(RED).save(path)
    expected = model(RED)
    assert expected.label == "red"
    for image in (path, str(path), path.read_bytes(), Image.fromarray(RED), np.repeat(np.repeat(RED, 2, 0), 2, 1)):
        assert model(image) == expected


def test_prediction_is_made_of_plain_values(model: Model) -> None:
    prediction = model(BLUE)
    assert isinstance(prediction, Prediction)
    assert prediction.top[0] == (prediction.label, prediction.probability)
    assert prediction.label == "blue"
    assert {label for label, _ in prediction.top} == set(TINY_LABELS)
    assert type(prediction.probability) is float
    assert sum(p for _, p in prediction.top) == pytest.approx(1)
    assert len(model(BLUE, top=1).top) == 1


def test_list_in_list_out_in_order_and_over_several_batches(model: Model) -> None:
    images = [RED, BLUE] * 11
    predictions = model(images)
    assert isinstance(predictions, list)
    assert [p.label for p in predictions] == ["red", "blue"] * 11
    assert model([]) == []
    assert [p.label for p in model((BLUE,))] == ["blue"]


def with_batch(path: Path, batch: int) -> Path:
    built = onnx.load(build_tiny_model(path, input=replace(tiny_manifest().input, batch=batch)))
    for value in (built.graph.input[0], built.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(built, path)
    return path


def test_fixed_batch_is_filled_up_and_cut(tmp_path: Path, model: Model) -> None:
    fixed = Model.load(with_batch(tmp_path / "b4.onnx", 4))
    assert fixed(RED).probability == pytest.approx(model(RED).probability)
    assert [p.label for p in fixed([RED, BLUE, RED, BLUE, BLUE])] == ["red", "blue", "red", "blue", "blue"]


def test_threads_share_one_model(model: Model) -> None:
    expected = {id(RED): model(RED), id(BLUE): model(BLUE)}
    wrong: list[Prediction] = []

    def work(image: np.ndarray) -> None:
        got = [model(image) for _ in range(50)]
        wrong.extend(g for g in got if g != expected[id(image)])

    threads = [threading.Thread(target=work, args=(image,)) for image in (RED, BLUE) * 4]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_closed_model_says_so(tiny_model: Path) -> None:
    with Model.load(tiny_model) as model:
        assert model(RED).label == "red"
    with pytest.raises(UsageError, match="model is closed"):
        model(RED)
    model.close()


def test_foreign_model_is_refused_with_the_way_to_adopt_it(tmp_path: Path) -> None:
    path = build_tiny_model(tmp_path / "foreign.onnx", with_manifest=False)
    with pytest.raises(
        UsageError, match=r"no edgecv manifest.*edgecv export .*foreign\.onnx --mean M --std S --labels FILE"
    ):
        Model.load(path)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_model_can_be_loaded_from_what_holds_bytes(tiny_model: Path, kind: Any) -> None:
    assert Model.load(kind(tiny_model.read_bytes()))(RED).label == "red"


def test_model_can_be_loaded_from_bytes(tiny_model: Path) -> None:
    assert Model.load(tiny_model.read_bytes())(RED).label == "red"


def test_without_labels_the_index_is_the_name(tmp_path: Path) -> None:
    model = Model.load(build_tiny_model(tmp_path / "m.onnx", output=OutputSpec("logits")))
    assert model(BLUE).label == "2"


def test_output_that_is_probabilities_already_is_left_as_it_is(tmp_path: Path) -> None:
    spec = OutputSpec("probabilities", kind="probabilities", labels=TINY_LABELS)
    path = build_tiny_model(tmp_path / "m.onnx", output=spec)
    built = onnx.load(path)
    built.graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=-1))
    built.graph.output[0].name = "probabilities"
    onnx.save(built, path)
    with Model.load(build_tiny_model(tmp_path / "n.onnx")) as logits:
        assert Model.load(path)(RED).probability == pytest.approx(logits(RED).probability)


def test_logits_that_the_manifest_calls_probabilities_are_refused(tmp_path: Path) -> None:
    spec = OutputSpec("logits", kind="probabilities", labels=TINY_LABELS)
    model = Model.load(build_tiny_model(tmp_path / "m.onnx", output=spec))
    for _ in range(2):
        with pytest.raises(
            UsageError, match=r"m\.onnx' says in its manifest that it gives probabilities, and gives val"
        ):
            model(RED)


def without_classes(path: Path, axis: int | str) -> Path:
    """The tiny model with every class taken away; the graph says so, or leaves their number open."""
    built = onnx.load(build_tiny_model(path, output=OutputSpec("none")))
    built.graph.initializer.append(numpy_helper.from_array(np.zeros((3, 0), np.float32), "nothing"))
    built.graph.initializer.append(numpy_helper.from_array(np.zeros(3, bool), "no"))
    last = helper.make_node("MatMul", ["logits", "nothing"], ["none"], "none")
    if isinstance(axis, str):
        last = helper.make_node("Compress", ["logits", "no"], ["none"], "none", axis=1)
    built.graph.node.append(last)
    output = helper.make_tensor_value_info("none", onnx.TensorProto.FLOAT, ["batch", axis])
    built.graph.output[0].CopyFrom(output)
    onnx.save(built, path)
    return path


def test_graph_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has no classes"):
        Model.load(without_classes(tmp_path / "m.onnx", 0))
    model = Model.load(without_classes(tmp_path / "open.onnx", "classes"))
    with pytest.raises(UsageError, match=r"answers with shape \(1, 0\)"):
        model(RED)


def broken(path: Path, manifest: Manifest, *, shape: list[int | str] | None = None) -> Path:
    built = onnx.load(build_tiny_model(path, with_manifest=False))
    helper.set_model_props(built, to_metadata(manifest))
    if shape is not None:
        built.graph.node.append(helper.make_node("Identity", ["c2"], ["map"], "map"))
        built.graph.output.append(helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, shape))
    onnx.save(built, path)
    return path


@pytest.mark.parametrize(
    ("manifest", "shape", "reason"),
    [
        (tiny_manifest(output=OutputSpec("map")), ["batch", 8, 32, 32], "is not a classifier: its output is tensor"),
        (tiny_manifest(task="segment"), None, "is not a classifier"),
        (tiny_manifest(output=OutputSpec("scores")), None, "has no output 'scores' as its manifest says"),
        (tiny_manifest(output=OutputSpec("logits", labels=("a", "b"))), None, "has 3 classes, its manifest 2 labels"),
        (tiny_manifest(size=64), None, "takes .* and its manifest says image: uint8"),
        (tiny_manifest(input=replace(tiny_manifest().input, name="pixels")), None, "its manifest says pixels"),
        (tiny_manifest(input=replace(tiny_manifest().input, dtype="float32")), None, "manifest says image: float32"),
        (tiny_manifest(input=replace(tiny_manifest().input, layout="NCHW")), None, "takes .* and its manifest says"),
    ],
)
def test_graph_that_is_not_what_the_manifest_says_is_refused(
    manifest: Manifest, shape: list[int | str] | None, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=reason):
        Model.load(broken(tmp_path / "m.onnx", manifest, shape=shape))


def test_nan_answers_are_an_error_not_a_prediction(tmp_path: Path) -> None:
    path = build_tiny_model(tmp_path / "m.onnx")
    built = onnx.load(path)
    for tensor in built.graph.initializer:
        if tensor.name == "head.bias":
            tensor.raw_data = np.full(3, np.nan, np.float32).tobytes()
    onnx.save(built, path)
    with pytest.raises(UsageError, match="answers with NaN"):
        Model.load(path, policy="relaxed")(RED)
    with pytest.raises(UsageError, match=r"'head.bias' holds NaN"):
        Model.load(path)


def dynamic(path: Path) -> Path:
    spec: InputSpec = replace(tiny_manifest().input, dynamic_size=True)
    built = onnx.load(build_tiny_model(path, input=spec))
    for axis, name in ((1, "height"), (2, "width")):
        built.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(built, path)
    return path


def test_dynamic_size_is_the_default_size_unless_told_otherwise(tmp_path: Path) -> None:
    path = dynamic(tmp_path / "m.onnx")
    larger = np.repeat(np.repeat(RED, 2, 0), 2, 1)
    assert Model.load(path)(larger).label == "red"
    assert Model.load(path, size=(64, 48))(larger).label == "red"
    with pytest.raises(UsageError, match=r"size must be \(height, width\)"):
        Model.load(path, size=(0, 48))


def test_other_size_of_a_fixed_model_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="takes 32x32 only; export it with --dynamic-size"):
        Model.load(tiny_model, size=(64, 64))


@pytest.mark.parametrize("top", [0, -1])
def test_top_below_one_is_refused(model: Model, top: int) -> None:
    with pytest.raises(UsageError, match="top must be at least 1"):
        model(RED, top=top)


@pytest.mark.parametrize("top", ["3", None, 1.5])
def test_top_that_is_no_whole_number_is_refused(model: Model, top: Any) -> None:
    with pytest.raises(UsageError, match="top must be a whole number, not "):
        model(RED, top=top)


@pytest.mark.parametrize("source", [None, 5, ["m.onnx"]])
def test_what_cannot_be_a_model_is_refused(source: Any) -> None:
    with pytest.raises(UsageError, match="a model cannot be a "):
        Model.load(source)


@pytest.mark.parametrize("size", [224, "ab", (224,), (0, 32), (32.0, 32.0)])
def test_size_that_is_none_is_refused(tiny_model: Path, size: Any) -> None:
    with pytest.raises(UsageError, match=r"size must be \(height, width\)"):
        Model.load(tiny_model, size=size)


def test_bad_image_in_a_list_is_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'.*none\.jpg' does not exist"):
        model([RED, tmp_path / "none.jpg"])


def test_long_thin_file_is_named(model: Model, tmp_path: Path) -> None:
    Image.new("RGB", (1, 60_000)).save(tmp_path / "thin.png")
    with pytest.raises(UsageError, match=r"image '.*thin\.png': a picture of 1x60000 pixels is too long and thin"):
        model(tmp_path / "thin.png")


@pytest.mark.parametrize("first", ["import edgecv.runtime", "from edgecv.runtime import Model, Prediction"])
def test_import_loads_neither_torch_nor_onnx_nor_the_command_line(first: str) -> None:
    heavy = ("torch", "timm", "onnx", "onnx_ir", "typer", "rich")
    code = f"{first}; import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_classifying_loads_neither_torch_nor_onnx(tiny_model: Path) -> None:
    code = (
        "import sys, numpy as np; from edgecv.runtime import Model\n"
        f"Model.load({str(tiny_model)!r})(np.zeros((50, 40, 3), np.uint8))\n"
        "print([m for m in ('torch', 'timm', 'onnx', 'onnx_ir', 'typer', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
