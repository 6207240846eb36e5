import os
import shutil
from pathlib import Path

import pytest
from conftest import write_color_folder

from edgecv.data.contents import Contents
from edgecv.errors import UsageError


def test_equal_content_has_the_hash_wherever_it_lies(tmp_path: Path) -> None:
    first = write_color_folder(tmp_path / "a", per_class=2)
    second = shutil.copytree(first, tmp_path / "b" / "c")
    assert Contents().data(first) == Contents().data(second)


@pytest.mark.parametrize("change", ["pixels", "name", "class", "gone"])
def test_whatever_changes_in_a_data_set_changes_its_hash(tmp_path: Path, change: str) -> None:
    data = write_color_folder(tmp_path / "a", per_class=2)
    contents = Contents(tmp_path / "record.json")
    before = contents.data(data)
    image = data / "red" / "0.png"
    if change == "pixels":
        shutil.copy(data / "blue" / "0.png", image)
    elif change == "name":
        image.rename(data / "red" / "9.png")
    elif change == "class":
        (data / "red").rename(data / "rot")
    else:
        image.unlink()
    assert contents.data(data) != before


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, record = write_color_folder(tmp_path / "a", per_class=2), tmp_path / "record.json"
    first = Contents(record)
    digest = first.data(data)
    first.save()

    def fail(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("edgecv.data.contents.sha256_file", fail)
    assert Contents(record).data(data) == digest
    os.utime(data / "red" / "0.png", (1, 1))
    with pytest.raises(AssertionError, match=r"0\.png"):
        Contents(record).data(data)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 3}', '{"a": [1, 2, 3]}', "null"])
def test_a_damaged_record_is_made_anew(tmp_path: Path, text: str) -> None:
    data, record = write_color_folder(tmp_path / "a", per_class=1), tmp_path / "record.json"
    record.write_text(text)
    contents = Contents(record)
    assert contents.data(data) == Contents().data(data)
    contents.save()
    assert "red" in record.read_text()


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "x" * 5000])
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Contents().file(tmp_path / name)
