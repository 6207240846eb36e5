"""Reading files that may come from anywhere, and writing files that are never half there."""

import atexit
import errno
import functools
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgecv.errors import UsageError

MAX_MODEL_BYTES = 4 << 30
MAX_IMAGE_BYTES = 256 << 20
MAX_TEXT_BYTES = 4 << 20

_CHUNK_BYTES = 1 << 20


def check_regular_file(path: Path, what: str, max_bytes: int) -> int:
    """Return the size of a regular file in bytes.

    Args:
        path: The file.
        what: What it is to the user, for messages: ``"model"``, ``"image"``.
        max_bytes: Refuse anything larger.

    Raises:
        UsageError: Missing, a folder, a FIFO or device (reading those hangs), empty, too large, or unreadable.
    """
    try:
        info = path.stat()
    except FileNotFoundError:
        raise UsageError(f"{what} '{path}' does not exist; check the path.") from None
    except (OSError, ValueError) as e:
        raise UsageError(_unreadable(path, what, e)) from e
    return _checked_size(info, path, what, max_bytes)


def read_file(path: Path, what: str, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """Read a whole regular file after the checks of :func:`check_regular_file`, made on the open file itself.

    Args:
        path: The file.
        what: What it is to the user, for messages.
        max_bytes: Refuse anything larger.
        follow_links: A path that a user named may be a link; one that a file from elsewhere names may not.

    Raises:
        UsageError: As :func:`check_regular_file`; a link where none is followed; a file that grows meanwhile.
    """
    check_regular_file(path, what, max_bytes)  # opening a device can have effects of its own
    # Not blocking: the path may have become a FIFO, which would wait for a writer for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        with open(os.open(path, flags), "rb") as f:
            size = _checked_size(os.fstat(f.fileno()), path, what, max_bytes)
            data = f.read(size + 1)
    except OSError as e:
        if e.errno == errno.ELOOP and not follow_links:
            raise UsageError(f"{what} '{path}' is a link; put the file itself there.") from e
        raise UsageError(_unreadable(path, what, e)) from e
    if len(data) > size:
        raise UsageError(f"{what} '{path}' grew while it was read; try again when it is whole.")
    return data


def _checked_size(info: os.stat_result, path: Path, what: str, max_bytes: int) -> int:
    if stat.S_ISDIR(info.st_mode):
        raise UsageError(f"{what} '{path}' is a folder; name a file.")
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(f"{what} '{path}' is not a regular file; copy its content into one first.")
    if info.st_size == 0:
        raise UsageError(f"{what} '{path}' is empty; fetch or make it again.")
    if info.st_size > max_bytes:
        raise UsageError(f"{what} '{path}' has {info.st_size} bytes, over the limit of {max_bytes}.")
    return info.st_size


def _unreadable(path: Path, what: str, error: Exception) -> str:
    shown = str(path).encode(errors="replace").decode()
    return f"{what} '{shown}' cannot be read: {getattr(error, 'strerror', None) or error}."


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_output(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse an output that cannot or should not be written, before any work is done.

    Raises:
        UsageError: The folder is missing or not writable, the path is a folder or one of the inputs, or the file
            exists and ``force`` is false.
    """
    folder = path.parent
    try:
        exists = path.exists()
        if not folder.is_dir():
            raise UsageError(f"cannot write '{path}': the folder '{folder}' does not exist; make it first.")
    except OSError as e:  # a name too long for the file system
        raise UsageError(f"cannot write '{str(path)[:80]}…': {e.strerror}; choose another -o.") from e
    if path.is_dir():
        raise UsageError(f"cannot write '{path}': it is a folder; name a file with -o.")
    if exists and not path.is_file():
        raise UsageError(f"cannot write '{path}': it is a device or pipe, not a file; choose another -o.")
    if any(path.resolve() == p.resolve() for p in inputs):
        raise UsageError(f"'{path}' is an input of this command and is never overwritten; choose another -o.")
    if exists and not force:
        raise UsageError(f"'{path}' exists already; add --force to replace it or choose another -o.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write '{path}': no permission to write in '{folder}'; choose another -o.")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then fsync and rename it into place.

    Nothing is left behind when ``write`` raises or the user interrupts.

    Raises:
        UsageError: The disk is full or the folder not writable.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as e:
        raise UsageError(f"cannot write '{path}': {e.strerror}.") from e
    temporary = Path(name)
    remove = functools.partial(temporary.unlink, missing_ok=True)
    atexit.register(remove)  # for an end that this function does not see
    try:
        write(temporary)
        with temporary.open("rb+") as f:
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as e:
        remove()
        raise UsageError(f"cannot write '{path}': {e.strerror or e}.") from e
    except BaseException:
        remove()
        raise
    finally:
        atexit.unregister(remove)
    _fsync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` through :func:`write_atomically`."""
    write_atomically(path, lambda temporary: _write(temporary, data))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
