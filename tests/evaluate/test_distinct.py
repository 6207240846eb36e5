import shutil
from pathlib import Path

import pytest
from conftest import tiny_manifest

from edgecv.data.folder import open_dataset
from edgecv.errors import UsageError
from edgecv.evaluate.distinct import check_leak, find_distinct
from edgecv.files import sha256_file


def test_each_content_stays_once_and_conflicts_of_class_are_said(color_folder: Path) -> None:
    shutil.copy(color_folder / "red" / "0.png", color_folder / "red" / "zz.png")
    shutil.copy(color_folder / "red" / "0.png", color_folder / "blue" / "zz.png")
    dataset = open_dataset(color_folder)
    found = find_distinct(dataset)
    names = [str(dataset.samples[i][0].relative_to(color_folder)) for i in found.positions]
    assert len(names) == 18
    assert "blue/zz.png" in names
    assert not {"red/0.png", "red/zz.png"} & set(names)
    assert [h.hex() for h in found.hashes] == [sha256_file(dataset.samples[i][0]) for i in found.positions]
    assert (found.copies, found.conflicting) == (2, 2)
    assert "2 of 20 images are copies" in found.notes()[0]
    assert "2 of them have another class" in found.notes()[0]


def test_without_copies_there_is_nothing_to_say(color_folder: Path) -> None:
    assert find_distinct(open_dataset(color_folder)).notes() == []


def test_a_leaked_picture_counts_once(color_folder: Path) -> None:
    shutil.copy(color_folder / "red" / "0.png", color_folder / "red" / "zz.png")
    manifest = tiny_manifest(calibration=(sha256_file(color_folder / "red" / "0.png"),))
    dataset = open_dataset(color_folder)
    found = find_distinct(dataset)
    with pytest.raises(UsageError, match="1 of 18 images were used to calibrate"):
        check_leak(dataset, found, [manifest], allow=False)
    leak = check_leak(dataset, found, [manifest], allow=True)
    assert leak is not None
    assert leak.count == 1
