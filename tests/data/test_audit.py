import shutil
from pathlib import Path

import pytest
from conftest import write_color_folder
from PIL import Image

from edgecv.data.audit import audit_dataset
from edgecv.data.duplicates import group_duplicates
from edgecv.data.fingerprint import fingerprint
from edgecv.data.folder import open_dataset
from edgecv.files import sha256_file


def photograph(path: Path, seed: int, size: int = 200) -> Path:
    """A picture with structure at all scales, as photographs have."""
    rng_image = Image.effect_mandelbrot((size, size), (-2 + seed * 0.13, -1.2, 0.6 + seed * 0.09, 1.1), 60)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.merge("RGB", [rng_image, rng_image.transpose(Image.Transpose.ROTATE_90), rng_image]).save(path)
    return path


def test_clean_set_is_ok(color_folder: Path) -> None:
    found = audit_dataset(open_dataset(color_folder))
    assert found.ok
    assert found.images_per_class == {"blue": 6, "green": 6, "red": 6}
    assert found.formats == {"PNG": 18}
    assert found.width_range == (48, 48)


def test_broken_files_are_found_with_the_reason(color_folder: Path) -> None:
    cut = color_folder / "red" / "0.png"
    cut.write_bytes(cut.read_bytes()[:-400])
    (color_folder / "red" / "1.png").write_bytes(b"")
    found = audit_dataset(open_dataset(color_folder))
    assert not found.ok
    assert [path for path, _ in found.broken] == ["red/0.png", "red/1.png"]
    assert all(why for _, why in found.broken)


def test_a_copy_in_another_class_conflicts_and_one_in_its_own_does_not(color_folder: Path) -> None:
    shutil.copy(color_folder / "red" / "0.png", color_folder / "red" / "copy.png")
    found = audit_dataset(open_dataset(color_folder))
    assert found.ok
    assert found.identical == [["red/0.png", "red/copy.png"]]
    shutil.copy(color_folder / "red" / "0.png", color_folder / "blue" / "copy.png")
    found = audit_dataset(open_dataset(color_folder))
    assert not found.ok
    assert found.conflicting == [["blue/copy.png", "red/0.png", "red/copy.png"]]


def test_a_picture_saved_again_is_nearly_identical_and_shared(tmp_path: Path) -> None:
    original = photograph(tmp_path / "here" / "a.png", 1)
    photograph(tmp_path / "here" / "b.png", 4)
    (tmp_path / "there").mkdir()
    with Image.open(original) as image:
        image.resize((100, 100)).save(tmp_path / "there" / "again.jpg", quality=40)
    found = audit_dataset(open_dataset(tmp_path / "here"), open_dataset(tmp_path / "there"))
    assert found.shared == [("a.png", "again.jpg")]
    assert not found.ok


def test_images_a_model_was_calibrated_with_are_a_leak(color_folder: Path) -> None:
    used = sha256_file(color_folder / "green" / "2.png")
    found = audit_dataset(open_dataset(color_folder), calibration=[used])
    assert found.calibration == ["green/2.png"]
    assert not found.ok


def test_flat_pictures_of_different_colors_are_not_copies(tmp_path: Path) -> None:
    for name, color in {"red": (255, 0, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}.items():
        Image.new("RGB", (32, 32), color).save(tmp_path / f"{name}.png")
    assert group_duplicates([fingerprint(p) for p in sorted(tmp_path.iterdir())]) == []


def test_groups_join_through_common_members(tmp_path: Path) -> None:
    first = photograph(tmp_path / "a.png", 2)
    shutil.copy(first, tmp_path / "b.png")
    with Image.open(first) as image:
        image.save(tmp_path / "c.jpg", quality=50)
    photograph(tmp_path / "d.png", 6)
    prints = [fingerprint(p) for p in sorted(tmp_path.iterdir())]
    assert group_duplicates(prints) == [[0, 1, 2]]


@pytest.mark.imagenet
def test_photographs_of_imagenet_are_all_different_and_survive_recoding(imagenet_calib: Path, tmp_path: Path) -> None:
    paths = [p for p, _ in open_dataset(imagenet_calib).samples][:40]
    prints = [fingerprint(p) for p in paths]
    assert group_duplicates(prints) == []
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((image.width // 2, image.height // 2))
            small.save(tmp_path / f"{i}.jpg", quality=60)
    again = [fingerprint(tmp_path / f"{i}.jpg") for i in range(len(paths))]
    assert group_duplicates([*prints, *again]) == [[i, i + len(paths)] for i in range(len(paths))]


def test_unlabelled_folder_has_no_classes(tmp_path: Path) -> None:
    write_color_folder(tmp_path / "x", per_class=2)
    found = audit_dataset(open_dataset(tmp_path / "x" / "red"))
    assert found.ok
    assert found.images_per_class == {}
