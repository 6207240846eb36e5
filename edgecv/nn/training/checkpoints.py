"""Checkpoints of a running training: written whole or not at all, checked before they are believed."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edgecv.errors import UsageError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, sha256_file, write_atomically, write_bytes

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

FOLDER = "checkpoints"
KEPT = 2
"""How many stay: when the newest is damaged there is the one before."""

_NAME = re.compile(r"state-(\d{8})\.pt")


@contextmanager
def sole_writer(run: Path) -> Iterator[None]:
    """Hold a run folder for this process while the ``with`` block runs; the end of the process lets go of it.

    Raises:
        UsageError: Another training writes there.
    """
    if fcntl is None:  # Windows has no such lock
        yield
        return
    with (run / ".lock").open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise UsageError(f"another training writes to '{run}'; wait for it, or choose another -o.") from e
        yield


def save_checkpoint(run: Path, state: Mapping[str, Any]) -> Path:
    """Write ``state`` as the newest checkpoint of a run folder and remove all but :data:`KEPT`.

    Its SHA-256 goes before it, into ``state-….pt.sha256`` as ``sha256sum -c`` reads it: a checkpoint without one was
    never finished.

    Args:
        run: The run folder.
        state: Tensors, numbers, strings, and lists and dictionaries of them; nothing that needs unpickling code.

    Raises:
        UsageError: The disk is full or the folder not writable; the checkpoints there were stay.
    """
    folder = run / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as e:
        raise UsageError(f"cannot write '{folder}': {e.strerror}.") from e
    earlier = _numbered(folder)
    path = folder / f"state-{(max(earlier) + 1 if earlier else 1):08d}.pt"

    def write(temporary: Path) -> None:
        _save(state, temporary)
        write_bytes(_checksum_file(path), f"{sha256_file(temporary)}  {path.name}\n".encode())

    write_atomically(path, write)
    for number in sorted(earlier)[: 1 - KEPT]:
        _remove(earlier[number])
    return path


def load_newest(run: Path, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the newest sound checkpoint's state on the CPU, or None when there is none.

    A damaged one is named, renamed to ``….damaged``, and the one before it taken.

    Args:
        run: The run folder.
        tell: Given a sentence about each damaged file.
    """
    found = _numbered(run / FOLDER)
    for number in sorted(found, reverse=True):
        path = found[number]
        reason = _damage(path)
        if not reason:
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as e:  # the unpickler's and the zip reader's own
                reason = f"it cannot be read safely: {str(e).strip().splitlines()[0][:100]}"
            else:
                return dict(state)
        tell(f"warning: checkpoint '{path}' is damaged ({reason}); the one before it is taken.")
        os.replace(path, path.with_name(path.name + ".damaged"))
        _checksum_file(path).unlink(missing_ok=True)
    return None


def has_checkpoints(run: Path) -> bool:
    """Return whether a run folder holds a checkpoint, sound or not."""
    return bool(_numbered(run / FOLDER))


def remove_checkpoints(run: Path) -> None:
    """Remove every checkpoint of a run folder, and nothing else."""
    for path in _numbered(run / FOLDER).values():
        _remove(path)


def _damage(path: Path) -> str:
    """Return what is wrong with a file, or nothing."""
    try:
        check_regular_file(path, "checkpoint", 4 * MAX_MODEL_BYTES)
        expected = _checksum_file(path).read_text().split()[0]
        if sha256_file(path) != expected:
            return "its SHA-256 is not the recorded one"
    except UsageError as e:
        return str(e)
    except (OSError, IndexError, UnicodeDecodeError):
        return "its SHA-256 was not recorded"
    return ""


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _numbered(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    matches = ((_NAME.fullmatch(p.name), p) for p in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _checksum_file(path).unlink(missing_ok=True)


def _save(state: Mapping[str, Any], path: Path) -> None:
    """Let torch.save write, and raise the OSError of a full disk, for which it has a RuntimeError of its own."""
    errors: list[OSError] = []
    with path.open("wb", buffering=0) as f:

        class Watched:
            def write(self, data: Any) -> int:
                try:
                    f.write(data)
                except OSError as e:
                    errors.append(e)
                    raise
                return len(data)

            def flush(self) -> None:
                f.flush()

        try:
            torch.save(dict(state), Watched())  # type: ignore[arg-type]
        except RuntimeError:
            if errors:
                raise errors[0] from None
            raise
