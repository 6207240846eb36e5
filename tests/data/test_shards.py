import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecv.data import shards
from edgecv.data.folder import open_dataset
from edgecv.data.shards import open_shards, shard_order, single_files
from edgecv.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(out, "PNG")
    return out.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, count: int = 2, each: int = 12, name: str = "train") -> Path:
    """Image ``i`` has the gray value ``i`` and the class ``i % 3``."""
    for s in range(count):
        samples = [(f"{i:04d}", i) for i in range(s * each, (s + 1) * each)]
        write_tar(
            folder / f"{name}-{s:03d}.tar",
            [m for key, i in samples for m in ((f"{key}.cls", str(i % 3).encode()), (f"{key}.png", png(i)))],
        )
    (folder / "classes.txt").write_text("red\ngreen\nblue\n")
    return folder / f"{name}-{{000..{count - 1:03d}}}.tar"


def test_images_are_read_from_their_place(tmp_path: Path) -> None:
    found = open_shards(write_shards(tmp_path))
    assert len(found) == 24
    assert found.class_names == ("red", "green", "blue")
    for i in range(24):
        assert found.read(i) == png(i)
        assert found.places["label"][i] == i % 3
    assert found.limited(4).read(1) == png(6)


def test_a_shard_is_looked_through_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = write_shards(tmp_path)
    first = open_shards(pattern)
    scans: list[Path] = []
    scan = shards._scan
    monkeypatch.setattr(shards, "_scan", lambda path: (scans.append(path), scan(path))[1])
    assert np.array_equal(open_shards(pattern).places, first.places)
    assert scans == []
    write_tar(tmp_path / "train-001.tar", [("x.cls", b"0"), ("x.png", png(99))])
    assert len(open_shards(pattern)) == 13
    assert scans == [tmp_path / "train-001.tar"]


def test_the_ranks_read_equal_parts_of_different_shards(tmp_path: Path) -> None:
    found = open_shards(write_shards(tmp_path, count=4, each=5))
    orders = [shard_order(found, np.random.default_rng(0), rank, 2) for rank in range(2)]
    assert sorted(np.concatenate(orders).tolist()) == list(range(20))
    used = [set(found.places["shard"][order].tolist()) for order in orders]
    assert used == [{0, 1}, {2, 3}]
    other = shard_order(found, np.random.default_rng(1), 0, 2)
    assert other.tolist() != orders[0].tolist()


def test_few_shards_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MIXED_SHARDS", 2)
    found = open_shards(write_shards(tmp_path, count=6, each=4))
    order = shard_order(found, np.random.default_rng(0), 0, 1)
    windows = [set(found.places["shard"][order[i : i + 8]].tolist()) for i in range(0, 24, 8)]
    assert [len(w) for w in windows] == [2, 2, 2]


GOOD = ("a.cls", b"0"), ("a.png", b"x")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"x")], r"no 'a\.cls'"),
        ([("a.cls", b"0")], "holds no images"),
        ([*GOOD, ("a.jpg", b"x")], "two images of the key"),
        ([("a.cls", b"cat"), ("a.png", b"x")], "not a class number"),
        ([("a.cls", b"-1"), ("a.png", b"x")], "not a class number"),
        ([("a.cls", b"3"), ("a.png", b"x")], "names 3 classes"),
        ([("a.cls", b"0"), ("a.png", b"")], "has 0 bytes"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    path = write_tar(tmp_path / "x.tar", members)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(UsageError, match=message):
        open_shards(path)


def test_links_in_a_tar_are_no_images(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", GOOD)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (tmp_path / "classes.txt").write_text("a\n")
    assert len(open_shards(path)) == 1


@pytest.mark.parametrize("kind", ["missing", "compressed", "text", "no classes"])
def test_bad_shards_are_one_sentence(tmp_path: Path, kind: str) -> None:
    pattern = write_shards(tmp_path)
    last = tmp_path / "train-001.tar"
    if kind == "missing":
        last.unlink()
    elif kind == "compressed":
        write_tar(last, GOOD, "w:gz")
    elif kind == "text":
        last.write_text("no tar at all " * 100)
    else:
        (tmp_path / "classes.txt").unlink()
    with pytest.raises(UsageError, match=r"train-001\.tar|classes\.txt"):
        open_shards(pattern)


@pytest.mark.parametrize("name", ["x-{5..1}.tar", "x-{0..1}-{0..1}.tar", "x-{0..99999999}.tar"])
def test_a_range_that_cannot_be_meant_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="one range of numbers"):
        open_shards(tmp_path / name)


def test_a_shard_that_became_shorter_is_told(tmp_path: Path) -> None:
    found = open_shards(write_shards(tmp_path))
    path = tmp_path / "train-001.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match=r"train-001\.tar' is cut off"):
        found.read(23)


def test_other_commands_say_that_they_want_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="training alone"):
        single_files(open_shards(write_shards(tmp_path)))
    with pytest.raises(UsageError, match="training alone"):
        open_dataset(tmp_path / "train-{000..001}.tar")
