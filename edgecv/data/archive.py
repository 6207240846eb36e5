"""A zip of an image folder as a data set: unpacked once, safely, into the user's cache."""

import contextlib
import json
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.files import MAX_IMAGE_BYTES, check_regular_file, sha256_file
from edgecv.progress import Progress, no_progress
from edgecv.workspace import user_cache

UNPACKED = "data"
"""Kind of the user's cache that unpacked archives are in."""

MAX_ARCHIVE_BYTES = 1 << 40
MAX_MEMBERS = 4_000_000
"""ImageNet's training set has 1.3 million; each costs about a kilobyte of memory while the archive is read."""

MAX_RATIO = 200
"""Unpacked to packed bytes of the whole archive. Photographs are compressed already, flat drawings in BMP shrink to a
fiftieth; deflate's limit, what bombs use, is 1032 (zlib's technical details)."""

FREE_BYTES = 64 << 20
"""Unpacked bytes for which the ratio does not matter: they harm nobody."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_DEPTH = 32
_RECORD = ".edgecv.json"
_CHUNK_BYTES = 1 << 20


def unpack_archive(path: Path, suffixes: tuple[str, ...], progress: Progress = no_progress) -> Path:
    """Return the folder that holds the images of a zip, unpacked unless it was before.

    The folder lies in the user's cache under the SHA-256 of the archive and may be deleted at any time. Only images are
    unpacked. Where the archive wraps all its folders in one, as ``train/<class>/…``, that one is returned.

    Args:
        path: The archive. Links, devices, encrypted members, names that are absolute, lead upwards or come twice,
            and sizes that no image set has are refused before anything is written.
        suffixes: Of the files wanted, in lower case.
        progress: Told while the archive is unpacked.

    Raises:
        UsageError: Not a zip, damaged, or against one of the rules above.
        EnvironmentRefusedError: The cache cannot be written or the disk has too little room.
    """
    check_regular_file(path, "archive", MAX_ARCHIVE_BYTES)
    folder = user_cache(UNPACKED) / sha256_file(path)
    if not _is_whole(folder):
        with _reported(path), zipfile.ZipFile(path) as archive:
            _unpack(archive, path, folder, suffixes, progress)
    return _inner(folder)


def _unpack(archive: zipfile.ZipFile, path: Path, folder: Path, suffixes: tuple[str, ...], progress: Progress) -> None:
    members = [m for m in _checked_members(archive, path) if _is_wanted(m, suffixes)]
    if not members:
        raise UsageError(f"archive '{path}' holds no images; give a zip of class folders with images.")
    total = sum(m.file_size for m in members)
    with _cache_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < total + len(members) * 4096:
            raise EnvironmentRefusedError(
                f"archive '{path}' unpacks to {total / 1e6:.0f} MB and '{folder.parent}' has less room; make room, or "
                "set XDG_CACHE_HOME to a folder on another disk."
            )
        temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        with _cache_errors(folder):
            for done, member in enumerate(members, 1):
                _extract(archive, member, temporary)
                if done % 256 == 0 or done == len(members):
                    progress(f"unpacking {path.name}", done, len(members))
            (temporary / _RECORD).write_text(json.dumps({"files": len(members), "bytes": total}), encoding="utf-8")
            if folder.exists():  # an earlier one that is not whole any more
                shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # another process was faster: its folder is as good
                temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_wanted(member: zipfile.ZipInfo, suffixes: tuple[str, ...]) -> bool:
    parts = PurePosixPath(member.filename).parts
    hidden = parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts)
    return not (member.is_dir() or hidden) and parts[-1].lower().endswith(suffixes)


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    target = folder.joinpath(*PurePosixPath(member.filename).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as out:
        shutil.copyfileobj(source, out, _CHUNK_BYTES)  # zipfile stops at the declared size and checks the CRC


def _checked_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UsageError(f"archive '{path}' has {len(members)} members, over the limit of {MAX_MEMBERS}.")
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in members:
        if fault := _fault(member):
            raise UsageError(f"archive '{path}' is refused: its member {member.orig_filename[:120]!r} {fault}.")
        name = PurePosixPath(member.filename)
        if name in files:
            raise UsageError(f"archive '{path}' is refused: it holds '{member.filename}' twice.")
        (folders if member.is_dir() else files).add(name)
        folders.update(name.parents)
    if both := files & folders:
        raise UsageError(f"archive '{path}' is refused: '{min(both)}' is a file and a folder in it.")
    _check_sizes(members, path)
    return members


def _fault(member: zipfile.ZipInfo) -> str:
    """Return why a member is not unpacked; empty when it may be."""
    name = member.orig_filename
    parts = name.removesuffix("/").split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if "\0" in name or "\\" in name or ":" in parts[0] or name.startswith("/") or "" in parts:
        return "is no relative path with forward slashes"
    if ".." in parts or "." in parts:
        return "leads out of its folder"
    if len(parts) > _MAX_DEPTH or any(len(os.fsencode(part)) > 255 for part in parts):
        return "is nested deeper or named longer than a file system takes"
    if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
        return "is a link or device; put the file itself into the archive"
    if member.flag_bits & 0x1:
        return "is encrypted; unpack it yourself and name the folder"
    if member.compress_type not in _METHODS:
        return "is compressed by another method than deflate; pack it again with: zip -r"
    if member.file_size > MAX_IMAGE_BYTES:
        return f"has {member.file_size} bytes unpacked, over the limit of {MAX_IMAGE_BYTES}"
    return ""


def _check_sizes(members: list[zipfile.ZipInfo], path: Path) -> None:
    packed, unpacked = sum(m.compress_size for m in members), sum(m.file_size for m in members)
    size = path.stat().st_size
    if packed > size:
        raise UsageError(f"archive '{path}' is refused: its members overlap ({packed} bytes packed in {size}).")
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * size:
        raise UsageError(
            f"archive '{path}' is refused: {size} bytes would unpack to {unpacked}, over {MAX_RATIO} times as many."
        )


def _is_whole(folder: Path) -> bool:
    """Return whether the folder holds what was unpacked: a power cut or a tidy user may have taken some."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        sizes = [e.stat().st_size for e in _files(folder) if e.name != _RECORD]
        return bool(record == {"files": len(sizes), "bytes": sum(sizes)})
    except (OSError, ValueError):
        return False


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry


def _inner(folder: Path) -> Path:
    """Return the first folder, going in, that holds more than one folder alone."""
    while True:
        entries = [e for e in os.scandir(folder) if not e.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        inside = [e for e in os.scandir(entries[0].path) if not e.name.startswith(".")]
        if not all(e.is_dir() for e in inside):
            return folder  # one class
        folder = Path(entries[0].path)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as e:
        raise UsageError(f"archive '{path}' is damaged or no zip ({str(e)[:160]}); fetch or make it again.") from e


@contextlib.contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise EnvironmentRefusedError(
            f"cannot unpack into '{folder.parent}': {e.strerror or e}; make room, or set XDG_CACHE_HOME to another "
            "folder."
        ) from e
