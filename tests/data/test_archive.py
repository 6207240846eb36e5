import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecv.data import archive
from edgecv.data.folder import open_dataset
from edgecv.data.split import check_list_place
from edgecv.errors import EdgecvError, EnvironmentRefusedError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgecv" / "data"


def pack(path: Path, root: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                out.write(file, f"{prefix}{file.relative_to(root)}")
    return path


def members(path: Path, *names: str, data: bytes = b"picture") -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name in names:
            out.writestr(zipfile.ZipInfo(name), data)
    return path


@pytest.mark.parametrize("prefix", ["", "train/", "flowers/train/"])
def test_a_zip_is_the_folder_it_was_made_of(color_folder: Path, tmp_path: Path, prefix: str) -> None:
    found = open_dataset(pack(tmp_path / "x.zip", color_folder, prefix), labels=("red", "green", "blue"))
    folder = open_dataset(color_folder, labels=("red", "green", "blue"))
    assert found.class_names == folder.class_names
    for (a, label), (b, expected) in zip(found.samples, folder.samples, strict=True):
        assert (a.relative_to(found.root), label) == (b.relative_to(folder.root), expected)
        assert a.read_bytes() == b.read_bytes()


def test_it_is_unpacked_once_and_again_only_when_something_is_gone(color_folder: Path, tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", color_folder)
    told: list[int] = []
    first = open_dataset(path, progress=lambda label, done, total: told.append(done))
    assert told[-1] == 18
    open_dataset(path, progress=lambda *_: pytest.fail("unpacked again"))
    first.samples[0][0].unlink()
    assert len(open_dataset(path)) == 18


def test_only_images_are_unpacked(color_folder: Path, tmp_path: Path, cache: Path) -> None:
    (color_folder / "red" / "run.sh").write_text("echo")
    (color_folder / "__MACOSX").mkdir()
    (color_folder / "__MACOSX" / "1.png").write_text("fork")
    open_dataset(pack(tmp_path / "x.zip", color_folder))
    assert {p.suffix for p in cache.rglob("*") if p.is_file()} == {".png", ".json"}
    assert not list(cache.rglob("__MACOSX"))


def test_splits_in_one_zip_are_named(color_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        for split in ("train", "test"):
            for file in color_folder.rglob("*.png"):
                out.write(file, f"all/{split}/{file.relative_to(color_folder)}")
    with pytest.raises(UsageError, match="holds splits"):
        open_dataset(tmp_path / "x.zip")


def test_a_list_cannot_name_images_in_a_zip(color_folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(pack(tmp_path / "x.zip", color_folder))
    with pytest.raises(UsageError, match="unpack it"):
        check_list_place(tmp_path / "list.csv", dataset)


@pytest.mark.parametrize(
    "name", ["/etc/1.png", "../1.png", "a/../../1.png", "a\\..\\1.png", "C:/1.png", "a//1.png", "./1.png"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, cache: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is refused: its member"):
        open_dataset(members(tmp_path / "x.zip", "a/0.png", name))
    assert not list(cache.rglob("*.png"))


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        out.writestr(link, "/etc/passwd")
    with pytest.raises(UsageError, match="link or device"):
        open_dataset(tmp_path / "x.zip")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = members(tmp_path / "x.zip", "a/1.png", "a/1.png")
    with pytest.raises(UsageError, match="twice"):
        open_dataset(path)


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a file and a folder"):
        open_dataset(members(tmp_path / "x.zip", "a/1.png", "a/1.png/2.png"))


def test_a_bomb_is_refused_before_anything_is_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 1 << 16)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a/1.png", bytes(1 << 22))
    with pytest.raises(UsageError, match="would unpack to"):
        open_dataset(tmp_path / "x.zip")
    assert not list(cache.rglob("*"))


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as out:
        for i in range(8):
            out.writestr(f"a/{i}.png", bytes(5000))
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    with zipfile.ZipFile(path) as whole:
        central = whole.start_dir
    assert start == central
    # Eight entries of the central directory that all point at the first member, and the other members' bytes cut out.
    first_end = data.index(b"PK\x03\x04", 4)
    entries = data[start:]
    at = -1
    while (at := entries.find(b"PK\x01\x02", at + 1)) >= 0:
        struct.pack_into("<I", entries, at + 42, 0)
    end = entries.rindex(b"PK\x05\x06")
    struct.pack_into("<I", entries, end + 16, first_end)
    path.write_bytes(data[:first_end] + entries)
    with pytest.raises(UsageError, match=r"overlap|damaged"):
        open_dataset(path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"PNG") + 40] ^= 0xFF
    path.write_bytes(data)


def text(path: Path) -> None:
    path.write_text("no zip")


@pytest.mark.parametrize("spoil", [truncated, damaged, text])
def test_a_damaged_archive_is_one_sentence_and_leaves_nothing(
    color_folder: Path, tmp_path: Path, cache: Path, spoil: Callable[[Path], None]
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:  # stored, so that a byte of a picture can be changed
        for file in sorted(color_folder.rglob("*.png")):
            out.write(file, str(file.relative_to(color_folder)))
    spoil(tmp_path / "x.zip")
    with pytest.raises(UsageError, match="is damaged or no zip"):
        open_dataset(tmp_path / "x.zip")
    assert not list(cache.rglob("*"))


@pytest.mark.parametrize(("offset", "value", "words"), [(8, 1, "encrypted"), (10, 14, "another method")])
def test_encrypted_and_other_methods_are_told(tmp_path: Path, offset: int, value: int, words: str) -> None:
    path = members(tmp_path / "x.zip", "a/1.png")
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(data)
    with pytest.raises(UsageError, match=words):
        open_dataset(path)


def test_a_zip_without_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no images"):
        open_dataset(members(tmp_path / "x.zip", "README.md"))


def test_too_little_room_names_the_way_out(color_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(EnvironmentRefusedError, match="XDG_CACHE_HOME"):
        open_dataset(pack(tmp_path / "x.zip", color_folder))


def test_a_cache_that_cannot_be_written_names_the_way_out(
    color_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EdgecvError, match="XDG_CACHE_HOME"):
        open_dataset(pack(tmp_path / "x.zip", color_folder))
