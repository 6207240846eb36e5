"""The parent's end of one worker: start it, ask it, and turn whatever goes wrong there into one error here."""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

from edgecv import errors
from edgecv.benchmark.plan import Candidate
from edgecv.errors import EdgecvError, EnvironmentRefusedError, UsageError

_MAX_ANSWER_BYTES = 32 << 20
_MAX_PRINTED_BYTES = 64 << 10


_CPU_START_S = 300.0
_BUILD_S = 1800.0  # TensorRT and others build their engine at load, which takes minutes


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before a worker counts as hung, in seconds.

    Attributes:
        start_s: For import, load and the first run together.
        answer_s: For one command, on top of the time the command itself asks for.
    """

    start_s: float
    answer_s: float = 120.0


class Child:
    """One worker process: started, loaded, and ready to take turns until it is closed.

    Attributes:
        candidate: What it times.
        facts: Its first answer: cold start, memory, threads, providers, manifest.

    Raises:
        EdgecvError: The class the worker raised, when it refused the model or provider on purpose.
        EnvironmentRefusedError: It died or hung; the message names model and provider.
    """

    def __init__(self, candidate: Candidate, job: Mapping[str, Any], patience: Patience | None = None) -> None:
        """Start the process and wait until its first run is done."""
        self.candidate = candidate
        self._patience = patience or Patience(start_s=_CPU_START_S if candidate.provider == "cpu" else _BUILD_S)
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        self._unread = b""
        # Answers have a pipe of their own: whatever a provider's library prints ends up in the temporary file.
        self._answers, answers_end = _pipe()
        spawned_ns = time.perf_counter_ns()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgecv.benchmark.worker", str(os.getpid()), str(answers_end)],
            stdin=subprocess.PIPE,
            stdout=self._printed,
            stderr=self._printed,
            pass_fds=(answers_end,),
            start_new_session=True,  # the terminal's Ctrl-C reaches the parent only, which then kills us
        )
        os.close(answers_end)
        try:
            self.facts = self._exchange({**job, "spawned_ns": spawned_ns}, self._patience.start_s)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id, for counting its CPU time."""
        return self._process.pid

    def ask(self, do: str, *, expected_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """Send one command and return its answer.

        Args:
            do: A command of :mod:`edgecv.benchmark.worker`.
            expected_s: Time the command should take by itself; patience comes on top.
            **arguments: The command's own arguments.
        """
        return self._exchange({"do": do, **arguments}, expected_s + self._patience.answer_s)

    def close(self) -> None:
        """Kill the process; harmless when it is gone already."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # unsent bytes to a dead process
                self._process.stdin.close()
        self._printed.close()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, content: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(content).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        answer: dict[str, Any] = json.loads(self._read_line(timeout_s))
        if "error" in answer:
            raise self._refusal(answer)
        return answer

    def _read_line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        pieces = [self._unread]
        size = len(self._unread)
        while b"\n" not in pieces[-1]:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise EnvironmentRefusedError(
                    f"{self.candidate.label} did not answer within {timeout_s:.0f} s and was ended; "
                    "the model may never finish a run, try it with a smaller --batch or another --provider."
                )
            piece = os.read(self._answers, 1 << 16)
            size += len(piece)
            if not piece or size > _MAX_ANSWER_BYTES:
                raise self._died()
            pieces.append(piece)
        line, _, self._unread = b"".join(pieces).partition(b"\n")
        return line

    def _refusal(self, answer: Mapping[str, Any]) -> EdgecvError:
        kind = getattr(errors, str(answer["error"]), None)
        if isinstance(kind, type) and issubclass(kind, EdgecvError):
            return kind(str(answer["message"]))
        text = " ".join(f"{answer['error']}: {answer['message']}".split())[:300]
        return UsageError(f"{self.candidate.label} cannot be run: {text}")

    def _died(self) -> EdgecvError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        hint = " (the machine may have run out of memory)" if code == -signal.SIGKILL else ""
        return EnvironmentRefusedError(
            f"the process for {self.candidate.label} {how}{hint}{self._last_words()}; "
            "try another --provider or a smaller --batch, or export the model again."
        )

    def _last_words(self) -> str:
        end = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, end - _MAX_PRINTED_BYTES))
        lines = [x.strip() for x in self._printed.read().decode(errors="replace").splitlines() if x.strip()]
        return f", saying: {lines[-1][:200]}" if lines else ""


def _pipe() -> tuple[int, int]:
    """Return a pipe whose writing end is none of 0, 1, 2, which a child's own streams take; ours may be closed."""
    reading, low = os.pipe()
    writing = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(low)
    return reading, writing
