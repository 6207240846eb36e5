import os
from pathlib import Path

import pytest

from edgecv import files
from edgecv.errors import UsageError


def test_reads_a_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert files.read_file(path, "model", 3) == b"abc"
    assert files.sha256_file(path) == files.sha256_bytes(b"abc")


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "empty", "too large"])
def test_refuses_what_is_not_a_file_of_sane_size_and_names_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.onnx"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "too large":
        path.write_bytes(b"abcd")
    with pytest.raises(UsageError, match=r"x\.onnx"):
        files.read_file(path, "model", 3)


def test_write_replaces_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "out"
    files.write_bytes(path, b"x")
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    def full(temporary: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match="No space left"):
        files.write_atomically(tmp_path / "out", full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["no folder", "folder", "exists", "input"])
def test_output_that_should_not_be_written_is_refused_before_work(tmp_path: Path, case: str) -> None:
    path = tmp_path / "out.onnx"
    inputs: tuple[Path, ...] = ()
    if case == "no folder":
        path = tmp_path / "missing" / "out.onnx"
    elif case == "folder":
        path.mkdir()
    else:
        path.touch()
        inputs = (path,) if case == "input" else ()
    with pytest.raises(UsageError, match=r"out\.onnx"):
        files.check_output(path, force=case == "input", inputs=inputs)


def test_force_replaces_an_existing_output(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.touch()
    files.check_output(path, force=True)


def test_a_device_or_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="device or pipe"):
        files.check_output(tmp_path / "pipe", force=True)
    with pytest.raises(UsageError, match="device or pipe"):
        files.check_output(Path(os.devnull), force=True)


def test_a_name_too_long_for_the_file_system_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        files.check_output(tmp_path / ("x" * 5000), force=False)


def test_size_limit_at_the_limit_and_above(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(10))
    assert len(files.read_file(path, "model", 10)) == 10
    with pytest.raises(UsageError, match="has 10 bytes, over the limit of 9"):
        files.read_file(path, "model", 9)


def test_a_link_is_followed_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    assert files.read_file(tmp_path / "link", "model", 10) == b"x"
    with pytest.raises(UsageError, match="is a link; put the file itself there"):
        files.read_file(tmp_path / "link", "model", 10, follow_links=False)
    assert files.read_file(tmp_path / "f", "model", 10, follow_links=False) == b"x"


def test_a_file_that_becomes_a_fifo_between_check_and_reading_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(files, "check_regular_file", lambda *arguments: 1)  # it was a file when that looked
    with pytest.raises(UsageError, match="not a regular file"):
        files.read_file(tmp_path / "fifo", "model", 10)


def test_a_name_no_file_can_have_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        files.read_file(Path("a\0b"), "model", 10)
