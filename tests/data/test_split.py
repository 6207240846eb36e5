import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import write_color_folder

from edgecv.data.folder import open_dataset
from edgecv.data.split import split_dataset, write_lists
from edgecv.errors import UsageError


def sides_of(root: Path, val: float = 0.2, test: float = 0.2, seed: int = 0) -> dict[str, list[str]]:
    sides = split_dataset(open_dataset(root), val, test, seed)
    return {name: [str(p.relative_to(root)) for p, _ in side.samples] for name, side in sides.items()}


@pytest.fixture
def ten_each(tmp_path: Path) -> Path:
    return write_color_folder(tmp_path / "colors", per_class=10)


def test_sides_are_disjoint_complete_and_by_class(ten_each: Path) -> None:
    sides = sides_of(ten_each)
    everything = [name for side in sides.values() for name in side]
    assert len(everything) == len(set(everything)) == 30
    for side, expected in (("train", 6), ("val", 2), ("test", 2)):
        assert Counter(name.split("/")[0] for name in sides[side]) == dict.fromkeys(("red", "green", "blue"), expected)


def test_same_seed_gives_the_same_split_and_another_a_different_one(ten_each: Path) -> None:
    assert sides_of(ten_each) == sides_of(ten_each)
    assert sides_of(ten_each) != sides_of(ten_each, seed=1)


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_on_one_side(ten_each: Path, seed: int) -> None:
    for i in range(3):
        shutil.copy(ten_each / "red" / "0.png", ten_each / "red" / f"copy{i}.png")
    sides = sides_of(ten_each, seed=seed)
    copies = {"red/0.png", "red/copy0.png", "red/copy1.png", "red/copy2.png"}
    assert [copies & set(side) for side in sides.values()].count(copies) == 1


def test_small_classes_add_up_to_the_share(tmp_path: Path) -> None:
    root = write_color_folder(tmp_path / "x", per_class=4)
    assert {name: len(side) for name, side in sides_of(root, val=0.25, test=0.0).items()} == {"train": 9, "val": 3}
    assert len(sides_of(root, val=0.1, test=0.0)["val"]) == 1


def test_a_class_of_one_image_stays_in_training(tmp_path: Path) -> None:
    root = write_color_folder(tmp_path / "x", per_class=1)
    with pytest.raises(UsageError, match="too few for a 'val' side"):
        sides_of(root, val=0.5, test=0.0)


@pytest.mark.parametrize(("val", "test"), [(0, 0), (0.5, 0.5), (-0.1, 0.2), (1.0, 0.0)])
def test_impossible_shares_are_refused(color_folder: Path, val: float, test: float) -> None:
    with pytest.raises(UsageError, match="shares"):
        sides_of(color_folder, val, test)


def test_broken_image_is_named(color_folder: Path) -> None:
    (color_folder / "red" / "0.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"red/0\.png"):
        sides_of(color_folder)


def test_lists_are_read_back_as_they_were(ten_each: Path) -> None:
    sides = split_dataset(open_dataset(ten_each), 0.2, 0.0, 0)
    paths = {ten_each.parent / f"s.{name}.csv": side for name, side in sides.items()}
    write_lists(paths)
    labels = ("red", "green", "blue")
    for path, side in paths.items():
        again = open_dataset(path, labels)
        assert [p.resolve() for p, _ in again.samples] == [p.resolve() for p, _ in side.samples]
        assert [labels[label] for _, label in again.samples if label is not None] == [
            p.parent.name for p, _ in side.samples
        ]


def test_a_list_that_could_not_reach_its_images_is_refused(color_folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(UsageError, match="may not leave its folder"):
        write_lists({elsewhere / "x.csv": open_dataset(color_folder)})
    assert not list(elsewhere.iterdir())
