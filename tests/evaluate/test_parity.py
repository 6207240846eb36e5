import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY_LABELS, build_tiny_model, tiny_manifest, write_color_folder
from onnx import numpy_helper

from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError
from edgecv.evaluate import tally
from edgecv.evaluate.classifier import open_classifier, open_for_model
from edgecv.evaluate.parity import verify_models
from edgecv.files import sha256_file
from edgecv.manifest import OutputSpec


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A candidate that decides differently on some images."""
    return build_tiny_model(tmp_path / "noisy.onnx", noise=0.35, seed=3)


def change_weights(path: Path, name: str, value: float) -> Path:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), value), name))
    onnx.save(model, path)
    return path


def test_a_model_against_itself_agrees_and_few_images_leave_it_undecided(tiny_model: Path, color_folder: Path) -> None:
    report = verify_models(tiny_model, tiny_model, color_folder)
    assert (report.agreement, report.drop_points, report.harmful, report.helpful) == (1.0, 0.0, 0, 0)
    assert report.verdict == "undecided"
    assert report.images_needed == 765
    assert report.default_margin
    assert (report.kl_mean, report.sqnr_db, report.max_abs_diff) == (0.0, None, 0.0)
    assert any("same bytes" in note for note in report.notes)


def test_a_wide_margin_passes(tiny_model: Path, color_folder: Path) -> None:
    report = verify_models(tiny_model, tiny_model, color_folder, max_drop=30)
    assert report.verdict == "pass"
    assert report.images_needed is None


def test_counts_agree_with_a_plain_run_of_both_models(tiny_model: Path, noisy: Path, color_folder: Path) -> None:
    from edgecv.runtime.preprocess import preprocess

    dataset = open_dataset(color_folder, TINY_LABELS)
    a, b = open_classifier(tiny_model), open_classifier(noisy)
    pixels = np.stack([preprocess(p, a.spec) for p, _ in dataset.samples])
    truth = np.array([label for _, label in dataset.samples])
    left, right = a.scores(pixels), b.scores(pixels)
    was_right, is_right = left.argmax(1) == truth, right.argmax(1) == truth
    p, q = a.probabilities(left), b.probabilities(right)

    report = verify_models(tiny_model, noisy, color_folder, batch_size=5)
    assert report.harmful == (was_right & ~is_right).sum() > 0
    assert report.helpful == (~was_right & is_right).sum()
    assert report.n == 18
    assert report.agreement == pytest.approx((left.argmax(1) == right.argmax(1)).mean())
    assert report.drop_points == pytest.approx(100 * (report.harmful - report.helpful) / 18)
    assert report.top1 == pytest.approx({"reference": was_right.mean(), "candidate": is_right.mean()})
    assert report.kl_mean == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-6)
    assert report.sqnr_db == pytest.approx(10 * np.log10((left**2).sum() / ((left - right) ** 2).sum()), rel=1e-6)
    worst = int(np.abs(left - right).max(axis=1).argmax())
    assert report.max_abs_diff == pytest.approx(np.abs(left - right).max())
    assert report.max_abs_diff_image == str(dataset.samples[worst][0].relative_to(color_folder))


def test_a_broken_candidate_fails_and_names_the_class_that_lost_most(tiny_model: Path, tmp_path: Path) -> None:
    data = write_color_folder(tmp_path / "data", per_class=8)
    blind = change_weights(shutil.copy(tiny_model, tmp_path / "blind.onnx"), "head.weight", 0.0)
    report = verify_models(tiny_model, blind, data, max_drop=2)
    assert report.verdict == "fail"
    assert report.drop_interval is not None
    assert report.drop_interval[0] > 2
    assert report.worst_class is not None
    assert report.worst_class["harmful"] == 8
    assert report.flips[0]["kind"] == "harmful"
    assert report.flips[0]["from"] in TINY_LABELS


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.usefixtures("trusted_models")
def test_outputs_that_are_not_finite_fail_without_labels_too_and_have_no_figures(
    tiny_model: Path, color_folder: Path, tmp_path: Path, value: float
) -> None:
    sick = change_weights(shutil.copy(tiny_model, tmp_path / "sick.onnx"), "head.bias", value)
    report = verify_models(tiny_model, sick, color_folder / "red")
    assert (report.verdict, report.drop_interval) == ("fail", None)
    assert report.reason == "NaN or infinite outputs on 6 of 6 images of the candidate"
    assert (report.kl_mean, report.sqnr_db, report.max_abs_diff) == (None, None, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.usefixtures("trusted_models")
def test_outputs_that_are_not_finite_never_pass(
    tiny_model: Path, color_folder: Path, tmp_path: Path, value: float
) -> None:
    sick = change_weights(shutil.copy(tiny_model, tmp_path / "sick.onnx"), "head.bias", value)
    for pair in [(tiny_model, sick), (sick, tiny_model), (sick, sick)]:
        report = verify_models(*pair, color_folder, max_drop=100)
        assert report.verdict == "fail"
        assert "18 of 18 images" in report.reason


def test_without_labels_only_agreement_is_known(tiny_model: Path, noisy: Path, color_folder: Path) -> None:
    report = verify_models(tiny_model, noisy, color_folder / "red", max_drop=50)
    assert report.verdict == "undecided"
    assert (report.drop_points, report.drop_interval, report.top1) == (None, None, None)
    assert "without labels" in report.reason
    assert report.images_needed is not None
    assert report.images_needed > report.n == 6


def test_a_model_without_labels_falls_back_to_agreement_and_says_so(tmp_path: Path, color_folder: Path) -> None:
    nameless = build_tiny_model(tmp_path / "nameless.onnx", output=OutputSpec("logits"))
    report = verify_models(nameless, nameless, color_folder)
    assert report.drop_points is None
    assert any("carries no label names" in note for note in report.notes)


def test_class_numbers_serve_a_model_without_labels(tmp_path: Path, color_folder: Path) -> None:
    for i, name in enumerate(TINY_LABELS):
        (color_folder / name).rename(color_folder / str(i))
    nameless = build_tiny_model(tmp_path / "nameless.onnx", output=OutputSpec("logits"))
    report = verify_models(nameless, nameless, color_folder)
    assert report.top1 == {"reference": 1.0, "candidate": 1.0}


def test_labels_that_have_nothing_to_do_with_the_images_never_pass(tiny_model: Path, tmp_path: Path) -> None:
    data = write_color_folder(tmp_path / "data", per_class=20)
    for old, new in [("red", "x"), ("green", "red"), ("blue", "green"), ("x", "blue")]:
        (data / old).rename(data / new)
    blind = change_weights(shutil.copy(tiny_model, tmp_path / "blind.onnx"), "head.weight", 0.0)
    for candidate in (blind, tiny_model):
        report = verify_models(tiny_model, candidate, data, max_drop=30)
        assert report.harmful == 0
        assert (report.verdict, report.images_needed) == ("undecided", None)
        assert "right on 0 of 60 images" in report.reason


def test_copies_are_judged_once(tiny_model: Path, color_folder: Path) -> None:
    for i in range(300):
        (color_folder / "red" / f"copy{i}.png").hardlink_to(color_folder / "red" / "0.png")
    report = verify_models(tiny_model, tiny_model, color_folder)
    assert (report.n, report.verdict, report.host["n"]) == (18, "undecided", 18)
    assert any("300 of 318 images are copies of others" in note for note in report.notes)
    assert report.max_abs_diff_image == ""


def test_broken_links_are_noted(tiny_model: Path, color_folder: Path) -> None:
    (color_folder / "red" / "gone.png").symlink_to("nothing.png")
    report = verify_models(tiny_model, tiny_model, color_folder)
    assert report.n == 18
    assert any(note.startswith("left out: 1 broken links or pipes") for note in report.notes)


@pytest.mark.parametrize("margin", [-0.1, 100.5, 1e9, float("inf"), float("nan")])
def test_a_margin_that_is_no_share_of_images_is_refused_before_any_work(margin: float) -> None:
    with pytest.raises(UsageError, match="percentage points"):
        verify_models(Path("nowhere.onnx"), Path("nowhere.onnx"), Path("nowhere"), max_drop=margin)


def test_a_data_set_is_opened_for_a_model_by_its_labels_its_width_or_not_at_all(
    tiny_model: Path, tmp_path: Path, color_folder: Path
) -> None:
    nameless = open_classifier(build_tiny_model(tmp_path / "nameless.onnx", output=OutputSpec("logits")))
    dataset, notes = open_for_model(color_folder, open_classifier(tiny_model))
    assert (dataset.labelled, dataset.num_classes, notes) == (True, 3, [])
    dataset, notes = open_for_model(color_folder, nameless)
    assert not dataset.labelled
    assert notes[0].startswith("agreement only: the model carries no label names")
    for i, name in enumerate(TINY_LABELS):
        (color_folder / name).rename(color_folder / str(i))
    dataset, notes = open_for_model(color_folder, nameless)
    assert (dataset.labelled, dataset.num_classes, notes) == (True, 3, [])
    (color_folder / "0").rename(color_folder / "3")  # the model has no such output
    dataset, notes = open_for_model(color_folder, nameless)
    assert not dataset.labelled
    assert "0 to 2" in notes[0]


def test_each_model_gets_its_own_preprocessing(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    spec = replace(tiny_manifest(48).input, interpolation="nearest")
    other = build_tiny_model(tmp_path / "other.onnx", size=48, input=spec)
    report = verify_models(tiny_model, other, color_folder, batch_size=7)
    assert report.n == 18
    assert report.max_abs_diff > 0


def test_fixed_batch_and_float_input_are_served(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    report = verify_models(tiny_model, tmp_path / "four.onnx", color_folder, batch_size=7)
    assert (report.n, report.agreement) == (18, 1.0)
    assert report.max_abs_diff < 1e-5


def test_different_classes_are_refused(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    swapped = build_tiny_model(tmp_path / "swapped.onnx", output=OutputSpec("logits", labels=("red", "blue", "green")))
    with pytest.raises(UsageError, match=r"number 1 is 'green' in .* and 'blue' in"):
        verify_models(tiny_model, swapped, color_folder)


def test_calibration_images_are_refused_and_stated_when_allowed(
    tiny_model: Path, color_folder: Path, tmp_path: Path
) -> None:
    used = tuple(sha256_file(color_folder / "green" / f"{i}.png") for i in (1, 4))
    calibrated = build_tiny_model(tmp_path / "calibrated.onnx", calibration=used)
    for pair in [(tiny_model, calibrated), (calibrated, tiny_model)]:
        with pytest.raises(UsageError, match=r"2 of 18 images were used to calibrate .*green/1\.png"):
            verify_models(*pair, color_folder)
    report = verify_models(tiny_model, calibrated, color_folder, allow_leak=True)
    assert report.leak == {"count": 2, "first": str(color_folder / "green" / "1.png")}


def test_images_outside_the_limit_cannot_leak(tiny_model: Path, color_folder: Path, tmp_path: Path) -> None:
    used = (sha256_file(color_folder / "green" / "1.png"),)
    calibrated = build_tiny_model(tmp_path / "calibrated.onnx", calibration=used)
    report = verify_models(tiny_model, calibrated, color_folder, limit=6)
    assert (report.n, report.leak) == (6, None)


def test_a_broken_image_is_named(tiny_model: Path, color_folder: Path) -> None:
    (color_folder / "red" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(UsageError, match=r"red/2\.png"):
        verify_models(tiny_model, tiny_model, color_folder)


def test_the_list_of_flips_is_capped_and_harmful_ones_come_first(
    tiny_model: Path, noisy: Path, color_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecv.evaluate import verdict

    monkeypatch.setattr(tally, "MAX_FLIPS", 2)
    monkeypatch.setattr(verdict, "MAX_FLIPS", 2)
    report = verify_models(tiny_model, noisy, color_folder)
    assert report.changed > 2
    assert [flip["kind"] for flip in report.flips] == ["harmful", "harmful"]


@pytest.mark.imagenet
def test_photographs_are_matched_to_wordnet_ids(imagenet_eval: Path) -> None:
    names = sorted(p.name for p in imagenet_eval.iterdir() if p.is_dir())
    dataset = open_dataset(imagenet_eval, label_ids=tuple(names))
    assert len(dataset) == 400
    assert [label for _, label in dataset.samples] == list(range(400))
