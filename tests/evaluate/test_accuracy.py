from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import build_tiny_model, tiny_manifest
from PIL import Image

from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError
from edgecv.evaluate.accuracy import evaluate_models
from edgecv.evaluate.statistics import wilson_interval
from edgecv.evaluate.tta import five_crops
from edgecv.files import sha256_file
from edgecv.manifest import OutputSpec
from edgecv.runtime.preprocess import preprocess


def test_a_model_that_is_right_has_accuracy_one_and_its_interval(tiny_model: Path, color_folder: Path) -> None:
    (report,) = evaluate_models([tiny_model], color_folder)
    assert report.n == 18
    assert report.top["1"] == {"accuracy": 1.0, "interval": wilson_interval(18, 18)}
    assert "5" not in report.top  # three classes have no top-5
    assert [row["n"] for row in report.per_class] == [6, 6, 6]
    assert not report.partial


def test_wrong_labels_are_counted_wrong_by_class(tiny_model: Path, color_folder: Path) -> None:
    for i in range(2):
        (color_folder / "red" / f"{i}.png").rename(color_folder / "blue" / f"red{i}.png")
    (report,) = evaluate_models([tiny_model], color_folder, batch_size=5, top=(1, 2))
    assert report.top["1"]["accuracy"] == pytest.approx(16 / 18)
    worst = report.per_class[0]
    assert (worst["label"], worst["n"], worst["correct"]) == ("blue", 8, 6)
    assert report.top["2"]["accuracy"] >= report.top["1"]["accuracy"]


def test_several_models_are_judged_in_one_pass_each_by_its_own_labels(
    tiny_model: Path, color_folder: Path, tmp_path: Path
) -> None:
    # The same network with its outputs named in another order: right only where the names happen to fit.
    shuffled = build_tiny_model(
        tmp_path / "shuffled.onnx", output=OutputSpec("logits", labels=("blue", "green", "red"))
    )
    first, second = evaluate_models([tiny_model, shuffled], color_folder)
    assert first.top["1"]["accuracy"] == 1.0
    assert second.top["1"]["accuracy"] == pytest.approx(1 / 3)


def test_calibration_error_is_the_distance_of_confidence_from_accuracy(tiny_model: Path, color_folder: Path) -> None:
    from edgecv.evaluate.classifier import open_classifier

    model = open_classifier(tiny_model)
    dataset = open_dataset(color_folder)
    pixels = np.stack([preprocess(p, model.spec) for p, _ in dataset.samples])
    confidence = model.probabilities(model.scores(pixels)).max(axis=1)
    bins = (confidence * 15).astype(int)
    expected = sum(abs((1 - confidence[bins == b]).sum()) for b in set(bins.tolist())) / len(confidence)
    (report,) = evaluate_models([tiny_model], color_folder)
    assert report.expected_calibration_error == pytest.approx(expected)


@pytest.mark.parametrize("tta", ["flip", "fivecrop"])
def test_averaged_views_decide_as_well(tmp_path: Path, color_folder: Path, tta: str) -> None:
    model = build_tiny_model(tmp_path / "m.onnx", input=replace(tiny_manifest().input, crop_pct=0.8))
    (report,) = evaluate_models([model], color_folder, tta=tta, batch_size=4)
    assert report.top["1"]["accuracy"] == 1.0
    assert report.tta == tta


def test_five_crops_are_the_corners_and_the_centre_of_the_resized_image(tmp_path: Path) -> None:
    spec = replace(tiny_manifest(8).input, crop_pct=0.5, interpolation="nearest")
    pixels = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)  # the short side is resized to 16: kept as it is
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    crops = five_crops(path, spec)
    expected = [pixels[:8, :8], pixels[:8, 16:], pixels[8:, :8], pixels[8:, 16:], pixels[4:12, 8:16]]
    assert np.array_equal(crops, np.stack(expected))
    assert np.array_equal(crops[4], preprocess(path, spec))


def test_five_crops_of_an_image_smaller_than_the_crop_are_all_the_padded_one(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (30, 30), (9, 9, 9)).save(path)
    crops = five_crops(path, replace(tiny_manifest(8).input, crop_pct=1.5))
    assert all(np.array_equal(crop, crops[4]) for crop in crops)


def test_unknown_view_names_the_nearest(tiny_model: Path, color_folder: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'fivecrop'"):
        evaluate_models([tiny_model], color_folder, tta="5crop")


def test_images_without_labels_are_refused(tiny_model: Path, color_folder: Path) -> None:
    with pytest.raises(UsageError, match="have no labels"):
        evaluate_models([tiny_model], color_folder / "red")


def test_calibration_images_are_refused_per_model(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    used = (sha256_file(color_folder / "red" / "0.png"),)
    calibrated = build_tiny_model(tmp_path / "calibrated.onnx", calibration=used)
    with pytest.raises(UsageError, match="1 of 18 images were used to calibrate"):
        evaluate_models([tiny_model, calibrated], color_folder)
    plain, leaky = evaluate_models([tiny_model, calibrated], color_folder, allow_leak=True)
    assert plain.leak is None
    assert leaky.leak is not None
    assert leaky.leak["count"] == 1


def test_copies_and_broken_links_do_not_count(tiny_model: Path, color_folder: Path) -> None:
    for i in range(50):
        (color_folder / "red" / f"copy{i}.png").hardlink_to(color_folder / "red" / "0.png")
    (color_folder / "red" / "gone.png").symlink_to("nothing.png")
    (report,) = evaluate_models([tiny_model], color_folder)
    assert (report.n, report.host["n"]) == (18, 18)
    assert report.notes[0].startswith("left out: 1 broken links")
    assert report.notes[1].startswith("50 of 68 images are copies")
