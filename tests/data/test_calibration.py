from collections import Counter
from pathlib import Path

import pytest

from edgecv.data.calibration import copy_images, draw_calibration
from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError


def test_every_class_gives_as_many(color_folder: Path) -> None:
    for extra in (0, 3, 4, 5):
        (color_folder / "red" / f"{extra}.png").unlink()  # red keeps 2 images
    drawn = draw_calibration(open_dataset(color_folder), 9, seed=0)
    assert sorted(Counter(drawn.class_indices).values()) == [2, 3, 4]
    assert Counter(drawn.class_indices)[drawn.class_names.index("red")] == 2


def test_fewer_images_than_classes_takes_different_classes(color_folder: Path) -> None:
    drawn = draw_calibration(open_dataset(color_folder), 2, seed=0)
    assert len(set(drawn.class_indices)) == 2


def test_the_seed_decides(color_folder: Path) -> None:
    dataset = open_dataset(color_folder)
    assert draw_calibration(dataset, 6, 1) == draw_calibration(dataset, 6, 1)
    assert draw_calibration(dataset, 6, 1) != draw_calibration(dataset, 6, 2)


def test_unlabelled_images_can_be_drawn(color_folder: Path) -> None:
    assert len(draw_calibration(open_dataset(color_folder / "red"), 4, 0)) == 4


def test_more_than_there_are_is_refused(color_folder: Path) -> None:
    with pytest.raises(UsageError, match=r"has 18 images.*-n 18"):
        draw_calibration(open_dataset(color_folder), 19, 0)


def test_copies_form_a_data_set_of_their_own(color_folder: Path, tmp_path: Path) -> None:
    drawn = draw_calibration(open_dataset(color_folder), 6, 0)
    copy_images(drawn, tmp_path / "calib")
    again = open_dataset(tmp_path / "calib")
    assert [p.read_bytes() for p, _ in again.samples] == [p.read_bytes() for p, _ in drawn.samples]
    with pytest.raises(UsageError, match="exists already"):
        copy_images(drawn, tmp_path / "calib")


def test_a_failed_copy_leaves_nothing(color_folder: Path, tmp_path: Path) -> None:
    drawn = draw_calibration(open_dataset(color_folder), 6, 0)
    drawn.samples[3][0].unlink()
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        copy_images(drawn, target / "calib")
    assert not list(target.iterdir())
