from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY_LABELS, build_tiny_model, tiny_manifest

from edgecv.errors import UsageError
from edgecv.evaluate.accuracy import evaluate_models
from edgecv.evaluate.borrowed import borrow_manifest
from edgecv.evaluate.parity import verify_models
from edgecv.runtime.session import Session, open_session


class Node:
    """A graph input or output as ONNX Runtime describes it."""

    def __init__(self, name: str, kind: str, shape: list[object]) -> None:
        self.name, self.type, self.shape = name, kind, shape


class Graph:
    def __init__(self, inputs: list[Node], output: Node) -> None:
        self.get_inputs = lambda: inputs
        self.get_outputs = lambda: [output]


def opened(kind: str, shape: list[object], classes: object = 3) -> Session:
    graph = Graph([Node("x", kind, shape)], Node("scores", "tensor(float)", ["N", classes]))
    return Session(graph, None, ("cpu",), {"cpu": 1.0}, 1, "foreign.onnx")


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("tensor(uint8)", ["N", 32, 32, 3], ("NHWC", "uint8", False, 0)),
        ("tensor(float)", [4, 3, 32, 32], ("NCHW", "float32", False, 4)),
        ("tensor(float)", ["N", 3, "H", "W"], ("NCHW", "float32", True, 0)),
    ],
)
def test_images_are_prepared_as_the_lenders_and_given_as_the_graph_takes_them(
    kind: str, shape: list[object], expected: tuple[object, ...]
) -> None:
    lender = tiny_manifest()
    manifest = borrow_manifest(opened(kind, shape), lender, "ours.onnx")
    spec = manifest.input
    assert (spec.layout, spec.dtype, spec.dynamic_size, spec.batch) == expected
    assert (spec.name, spec.input_size, spec.mean) == ("x", lender.input.input_size, lender.input.mean)
    assert (manifest.output.name, manifest.output.labels) == ("scores", TINY_LABELS)
    assert manifest.calibration == ()


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("tensor(float)", ["N", 3, 64, 64]),
        ("tensor(float)", ["N", 1, 32, 32]),
        ("tensor(float)", ["N", 3072]),
        ("tensor(int64)", ["N", 3, 32, 32]),
    ],
)
def test_a_graph_that_the_images_do_not_fit_is_refused(kind: str, shape: list[object]) -> None:
    with pytest.raises(UsageError, match=r"takes x: .*images prepared for 'ours\.onnx' do not fit; adopt it first"):
        borrow_manifest(opened(kind, shape), tiny_manifest(), "ours.onnx")


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="only models of the same classes"):
        borrow_manifest(opened("tensor(float)", ["N", 3, 32, 32], 10), tiny_manifest(), "ours.onnx")


def test_a_calibration_set_is_not_borrowed(color_folder: Path, tmp_path: Path) -> None:
    from edgecv.files import sha256_file

    images = tuple(sha256_file(p) for p in color_folder.glob("*/*.png"))
    ours = build_tiny_model(tmp_path / "ours.onnx", calibration=images)
    manifest = open_session(ours).manifest
    assert manifest is not None
    assert manifest.calibration
    assert borrow_manifest(opened("tensor(float)", ["N", 3, 32, 32]), replace(manifest), "ours").calibration == ()


def test_either_of_two_models_may_lack_a_manifest_and_the_report_says_so(
    tiny_model: Path, color_folder: Path, tmp_path: Path
) -> None:
    foreign = build_tiny_model(tmp_path / "foreign.onnx", with_manifest=False)
    for pair in ((tiny_model, foreign), (foreign, tiny_model)):
        report = verify_models(*pair, color_folder)
        assert report.agreement == 1.0
        assert any("foreign.onnx has no edgecv manifest: it gets the preprocessing" in n for n in report.notes)
    reports = evaluate_models([foreign, tiny_model], color_folder)
    assert [r.top["1"]["accuracy"] for r in reports] == [1.0, 1.0]
    assert any("has no edgecv manifest" in n for n in reports[0].notes)
    assert not any("has no edgecv manifest" in n for n in reports[1].notes)


def test_two_models_without_a_manifest_are_refused(color_folder: Path, tmp_path: Path) -> None:
    a, b = (build_tiny_model(tmp_path / f"{x}.onnx", with_manifest=False) for x in "ab")
    with pytest.raises(UsageError, match="no edgecv manifest"):
        verify_models(a, b, color_folder)
