"""A device one can push files to, run commands on and fetch results from, whatever lies between."""

import io
import json
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edgecv.devices import agent
from edgecv.errors import DeviceUnreachableError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, sha256_file

_AGENT = Path(agent.__file__)
_PATIENCE_S = 60.0
_GRACE_S = 5.0
_NO_COMMAND = 127  # what a shell answers for a program that is not there (POSIX, 2.8.2)


@dataclass(frozen=True, slots=True)
class Line:
    """What lies between this machine and the device.

    Attributes:
        name: The device, for messages.
        python: The interpreter there.
        folder: Of edgecv's files, in the home folder there.
        wrap: Turns a command for the device into one for this machine.
        explain: Says in words why that one ended with a code and text of its own; empty where it was the command's.
        close: Ends what stays open between commands.
    """

    name: str
    python: str
    folder: str
    wrap: Callable[[Sequence[str]], list[str]]
    explain: Callable[[int, str], str]
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the device told when it was first reached.

    Attributes:
        root: edgecv's folder there, an absolute path.
        python: Version of its interpreter.
        machine: As ``uname -m``, asked of Python.
        system: ``Linux``, …
        missing: Which of numpy, onnxruntime and Pillow its Python lacks.
        free_bytes: On the disk of ``root``.
    """

    root: str
    python: str
    machine: str
    system: str
    missing: tuple[str, ...]
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended.

    Attributes:
        code: Exit code; negative for a signal.
        printed: The end of what it printed.
    """

    code: int
    printed: str


class Connection:
    """An open device; use it in a ``with`` block, which cleans up.

    Attributes:
        facts: What the device told.
        sent_bytes: Sent so far, files only.

    Raises:
        DeviceUnreachableError: From every method: not there, refuses us, has no Python, its disk is full, the
            connection dropped.
    """

    def __init__(self, line: Line) -> None:
        """Reach the device."""
        self._line = line
        self._job = secrets.token_hex(8)
        self.sent_bytes = 0
        try:
            told = json.loads(self._ask("hello"))
        except BaseException:
            line.close()
            raise
        self.facts = DeviceFacts(**{**told, "missing": tuple(told["missing"])})

    def push(self, path: Path) -> str:
        """Bring a file, or the content of a folder, to the device unless it is there; return its path there."""
        if path.is_dir():
            with tempfile.TemporaryFile() as packed:
                digest, size = _pack(path, packed)
                return self._push(packed, digest, size, path.name, "tar")
        size = check_regular_file(path, "file", MAX_MODEL_BYTES)
        with path.open("rb") as f:
            return self._push(f, sha256_file(path), size, path.name, "file")

    def run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 3600.0) -> Ran:
        """Run a command in a folder of its own; ``python`` as its first word is the device's interpreter.

        It is killed, and its folder removed, when the connection ends before it does.
        """
        order = json.dumps({"argv": list(argv), "env": dict(env or {})})
        told = json.loads(self._ask("run", self._job, order, timeout_s=timeout_s, hold=True))
        return Ran(told["code"], told["printed"])

    def fetch(self, name: str) -> bytes:
        """Return a file out of the folder of the last command."""
        return self._ask("fetch", self._job, name)

    def clean(self) -> None:
        """Remove the folder of the command; pushed files stay, so that they need not be sent again."""
        self._ask("clean", self._job)

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.clean()
        except DeviceUnreachableError:
            if error is None:
                raise
        finally:
            self.close()

    def _push(self, data: IO[bytes], digest: str, size: int, name: str, kind: str) -> str:
        if json.loads(self._ask("has", digest)):
            place = f"{self.facts.root}/store/{digest}"
            return f"{place}/{name}" if kind == "file" else place
        if size * 2 > self.facts.free_bytes and size > self.facts.free_bytes:
            raise DeviceUnreachableError(
                f"device '{self._line.name}': its disk is full: '{name}' has {size / 1e6:.1f} MB, "
                f"{self.facts.free_bytes / 1e6:.1f} MB are free in {self.facts.root}; make room there."
            )
        path = json.loads(self._ask("store", digest, name, str(size), kind, data=data, timeout_s=None))
        self.sent_bytes += size
        return str(path)

    def _ask(
        self,
        what: str,
        *arguments: str,
        data: IO[bytes] | None = None,
        timeout_s: float | None = _PATIENCE_S,
        hold: bool = False,
    ) -> bytes:
        """Let the agent do one thing and return what it answers; ``hold`` keeps its stdin open until it has."""
        line = self._line
        argv = line.wrap([line.python, "-c", _AGENT.read_text(), what, line.folder, *arguments])
        stdin: Any = data if data is not None else (subprocess.PIPE if hold else subprocess.DEVNULL)
        try:
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                process = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=err, start_new_session=True)
                try:
                    code = process.wait(timeout_s)
                finally:
                    _end(process)
                out.seek(0)
                err.seek(0)
                return self._answer(code, out.read(), err.read(1 << 16).decode(errors="replace"))
        except FileNotFoundError as e:
            return self._answer(_NO_COMMAND, b"", str(e))
        except subprocess.TimeoutExpired:
            raise DeviceUnreachableError(
                f"device '{line.name}' did not answer within {timeout_s:.0f} s and what ran there was ended; "
                "see whether it is busy, or asleep."
            ) from None

    def _answer(self, code: int, out: bytes, err: str) -> bytes:
        _, mark, told = out.partition(agent.MARK)
        if code == 0 and mark:
            return told
        line = self._line
        if reason := line.explain(code, err):
            raise DeviceUnreachableError(f"device '{line.name}' {reason}")
        if "edgecv-agent: " in err:
            reason = err.rpartition("edgecv-agent: ")[2].strip()
            raise DeviceUnreachableError(f"device '{line.name}': {reason}; nothing half-written was left there.")
        if code == _NO_COMMAND:
            raise DeviceUnreachableError(
                f"device '{line.name}' has no '{line.python}'; install Python there, or name it in the profile: "
                "connection.python."
            )
        last = (err.strip().splitlines() or ["it said nothing"])[-1][:200]
        raise DeviceUnreachableError(f"device '{line.name}': its Python ended with code {code}: {last}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the process's stdin, at which the agent ends what it runs; kill it when that does not help."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_GRACE_S if process.stdin is not None else 0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pack(folder: Path, into: IO[bytes]) -> tuple[str, int]:
    """Write a folder as a tar that is the same for the same content; return its SHA-256 and size."""
    import hashlib

    with tarfile.open(fileobj=into, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                data = path.read_bytes()
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, io.BytesIO(data))
    size = into.seek(0, io.SEEK_END)
    into.seek(0)
    digest = hashlib.file_digest(into, "sha256").hexdigest()  # type: ignore[arg-type]
    into.seek(0)
    return digest, size
