import inspect
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError


def picture(path: Path, color: tuple[int, int, int] = (200, 10, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)
    return path


def test_class_folders_map_by_name_and_not_by_position(color_folder: Path) -> None:
    found = open_dataset(color_folder, labels=("red", "green", "blue"))
    assert found.class_names == ("blue", "green", "red")
    labels = {path.parent.name: label for path, label in found.samples}
    assert labels == {"red": 0, "green": 1, "blue": 2}
    assert found.labelled
    assert not found.partial


def test_a_partial_set_of_classes_works(color_folder: Path) -> None:
    found = open_dataset(color_folder, labels=("pink", "blue", "red", "green", "black"))
    assert found.partial
    assert {label for _, label in found.samples} == {1, 2, 3}


def test_without_a_model_classes_keep_their_names_and_have_no_index(color_folder: Path) -> None:
    found = open_dataset(color_folder)
    assert not found.labelled
    assert found.class_names == ("blue", "green", "red")
    assert len(found.class_indices) == len(found)


def test_order_is_sorted_whatever_the_file_system_says(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/9.png", "b/1.png", "a/deep/5.png"):
        picture(tmp_path / name)
    found = open_dataset(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p, _ in found.samples] == ["a/9.png", "a/deep/5.png", "b/1.png", "b/2.png"]


def test_flat_folder_and_single_image_have_no_labels(tmp_path: Path) -> None:
    one = picture(tmp_path / "x.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    flat = open_dataset(tmp_path, labels=("a",))
    assert (flat.samples, flat.skipped) == (((one, None),), 1)
    assert open_dataset(one).samples == ((one, None),)


def test_csv_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "one.png")
    picture(tmp_path / "images" / "two.png")
    table = tmp_path / "list.csv"
    table.write_text("path,label\nimages/two.png,green\nimages/one.png,red\n", encoding="utf-8-sig")
    found = open_dataset(table, labels=("red", "green"))
    assert [(p.name, label) for p, label in found.samples] == [("two.png", 1), ("one.png", 0)]


def test_text_list_names_one_path_a_line(tmp_path: Path) -> None:
    picture(tmp_path / "one.png")
    (tmp_path / "list.txt").write_text("one.png\n\n")
    assert len(open_dataset(tmp_path / "list.txt")) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("label\nred\n", "no column 'path'"),
        ("", "no column 'path'"),
        ("path,label\n", "names no image"),
        ("path,label\nabsent.png,red\n", "line 2 .*'absent.png'"),
        ("path,label\n../outside.png,red\n", "leads outside"),
        ("path,label\n/etc/hostname,red\n", "relative"),
        ("path,label\none.png,\n", "no label for 'one.png'"),
        ("path,label\none.png,red\none.png,red\n", "twice"),
        ("path,label\none.png,red\nx/../one.png,red\n", "names 'one.png' twice, on line 3 as 'x/../one.png'"),
        ("path,label\none.png,red\nlink.png,red\n", "twice"),
        ("path,label\n" + "a" * 3_000 + ",red\n", "line 2 .*too long"),
        ("path,label\na\0.png,red\n", "line 2 .*relative"),
        ("path,label\ncircle.png,red\n", "circle"),
        ("path,label\none.png,purple\n", "'purple' matches none"),
        ("path\n\x00\n", "line 2|readable"),
    ],
)
def test_bad_csv_is_told_in_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    picture(tmp_path / "inner" / "one.png")
    picture(tmp_path / "outside.png")
    (tmp_path / "inner" / "x").mkdir()
    (tmp_path / "inner" / "link.png").symlink_to("one.png")
    (tmp_path / "inner" / "circle.png").symlink_to("circle.png")
    table = tmp_path / "inner" / "list.csv"
    table.write_text(content)
    if not content:
        table.write_text("\n")
    with pytest.raises(UsageError, match=words):
        open_dataset(table, labels=("red", "green"))


def test_csv_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UsageError, match="UTF-8"):
        open_dataset(tmp_path / "x.csv")


def test_a_folder_of_splits_asks_which_one(tmp_path: Path) -> None:
    for side in ("train", "val"):
        picture(tmp_path / side / "red" / "x.png")
    with pytest.raises(UsageError, match=r"holds splits \(train, val\); name one of them: .*/val"):
        open_dataset(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "x.png")
    picture(tmp_path / "bus" / "x.png")
    assert open_dataset(tmp_path).class_names == ("bus", "train")


@pytest.mark.parametrize("name", ["missing", "empty", "folders", "words"])
def test_nothing_to_read_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "folders" / "a").mkdir(parents=True)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "x.md").write_text("x")
    with pytest.raises(UsageError, match=name):
        open_dataset(tmp_path / name)


def test_images_beside_class_folders_are_not_guessed_at(tmp_path: Path) -> None:
    picture(tmp_path / "red" / "x.png")
    picture(tmp_path / "stray.png")
    with pytest.raises(UsageError, match=r"both images \('stray.png'\) and folders"):
        open_dataset(tmp_path)


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    inside = picture(tmp_path / "set" / "red" / "x.png")
    (tmp_path / "set" / "red" / "y.png").symlink_to(inside)
    assert len(open_dataset(tmp_path / "set")) == 2
    (tmp_path / "set" / "red" / "z.png").symlink_to(outside)
    with pytest.raises(UsageError, match="leads outside"):
        open_dataset(tmp_path / "set")


def test_a_link_to_a_parent_folder_does_not_loop(tmp_path: Path) -> None:
    picture(tmp_path / "red" / "x.png")
    (tmp_path / "red" / "again").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="link to a folder"):
        open_dataset(tmp_path)


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    os.mkfifo(tmp_path / "y.png")
    found = open_dataset(tmp_path)
    assert [p.name for p, _ in found.samples] == ["x.png"]
    assert (found.skipped, found.unreadable) == (0, (tmp_path / "y.png",))


def test_links_that_lead_nowhere_or_round_in_a_circle_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "red" / "x.png")
    (tmp_path / "red" / "gone.png").symlink_to("nothing.png")
    (tmp_path / "red" / "self.png").symlink_to("self.png")
    found = open_dataset(tmp_path)
    assert len(found) == 1
    assert [p.name for p in found.unreadable] == ["gone.png", "self.png"]


def test_a_folder_of_nothing_but_broken_links_says_so(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nothing.png")
    with pytest.raises(UsageError, match="1 broken links or pipes"):
        open_dataset(tmp_path)


def nested(folder: Path, name: str, depth: int) -> None:
    """Make folders inside folders, one by one: together they may be deeper than one path can name."""
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)


def test_folders_are_walked_without_recursion(tmp_path: Path) -> None:
    picture(tmp_path / "blue" / "x.png")
    nested(tmp_path / "red", "d", 200)
    picture(tmp_path / "red" / Path(*["d"] * 200) / "y.png")
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = open_dataset(tmp_path)
    finally:
        sys.setrecursionlimit(usual)
    assert [p.name for p, _ in found.samples] == ["x.png", "y.png"]


def test_folders_deeper_than_a_path_can_name_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "blue" / "x.png")
    nested(tmp_path / "red", "d" * 250, 20)
    with pytest.raises(UsageError, match="too long"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 3_000])
def test_a_name_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        open_dataset(tmp_path / name)


def test_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"x")
    with pytest.raises(UsageError, match="neither a folder"):
        open_dataset(tmp_path / "x.onnx")


def test_a_limit_takes_evenly_spaced_images(color_folder: Path) -> None:
    found = open_dataset(color_folder, labels=("red", "green", "blue"))
    assert [label for _, label in found.limited(6).samples] == [2, 2, 1, 1, 0, 0]
    assert found.limited(None) is found
