"""What ONNX Runtime's C++ side says on stderr, caught and boiled down to one clause."""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_one_at_a_time = threading.RLock()

_LOG_LINE = re.compile(r"^\S+ \S+ \[([VIWEF]):onnxruntime[^\]]*\] ?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STATUS = re.compile(r"Exception during initialization: |\[ONNXRuntimeError\] : \d+ : \w+ : ?")
_PLACE = re.compile(r"\S+\.(?:cc|h|cpp|hpp):\d+ ")
_SIGNATURE = re.compile(r"(?:[^()\n]*::)?\w+\((?:[^()]|\([^()]*\))*\)(?: const)? ?|[A-Z]\w*[a-z][A-Z]\w* ")

_CAUSES = (
    (re.compile(r"([\w.+-]+\.so[\w.]*): cannot open shared object file"), "{} is missing"),
    (re.compile(r'depends on "([^"]+)" which is missing'), "{} is missing"),
    (re.compile(r"(CUDA failure \d+: [^;\n]+)"), "{}"),
    (re.compile(r"(Please install TensorRT libraries)"), "the TensorRT libraries are missing"),
)


class CapturedLog:
    """Receives the text once the ``with`` block of :func:`capture_stderr` is over."""

    text: str = ""


@contextlib.contextmanager
def capture_stderr() -> Iterator[CapturedLog]:
    """Catch what C++ writes to file descriptor 2.

    ONNX Runtime names the missing library of a provider nowhere else: the session comes up on the CPU and the
    exit code is 0. The descriptor belongs to the whole process, so lines that are not ONNX Runtime's (another
    thread's, the application's) are passed on afterwards.
    """
    log = CapturedLog()
    with _one_at_a_time, tempfile.TemporaryFile() as sink:
        try:
            saved = os.dup(2)
        except OSError:  # started without stderr
            yield log
            return
        _flush()
        os.dup2(sink.fileno(), 2)
        try:
            yield log
        finally:
            _flush()
            os.dup2(saved, 2)
            sink.seek(0)
            log.text = _COLOUR.sub("", sink.read().decode(errors="replace"))
            foreign = _foreign_lines(log.text)
            if foreign:
                os.write(saved, foreign.encode())
            os.close(saved)


def cause(text: str) -> str:
    """Return the reason in ONNX Runtime's words: the missing library if it names one, else its first error.

    >>> cause("... with error: libcublasLt.so.13: cannot open shared object file: No such file or directory")
    'libcublasLt.so.13 is missing'
    """
    for pattern, sentence in _CAUSES:
        if match := pattern.search(text):
            return sentence.format(match[1].strip())
    for line in text.splitlines():
        logged = _LOG_LINE.match(line)
        if logged and logged[1] in "EF" and (message := plain_message(line[logged.end() :])):
            return message
    return ""


def plain_message(text: str) -> str:
    """Strip status codes, source places and C++ signatures from an ONNX Runtime message; one line, 240 characters.

    >>> plain_message("[ONNXRuntimeError] : 1 : FAIL : /a/model.cc:256 a::Model(int, x) Unsupported IR")
    'Unsupported IR'
    """
    text = " ".join(text.split())
    while True:
        shorter = _STATUS.sub("", text, count=1) if _STATUS.match(text) else text
        if place := _PLACE.match(shorter):
            shorter = shorter[place.end() :]
            if signature := _SIGNATURE.match(shorter):
                shorter = shorter[signature.end() :]
        if shorter == text:
            return text[:240].rstrip(" .")
        text = shorter


def _flush() -> None:
    if sys.stderr is not None:  # started without it
        sys.stderr.flush()


def _foreign_lines(text: str) -> str:
    kept, ours = [], False
    for line in text.splitlines(keepends=True):
        # A message of several lines ends with the line that closes its colour, now empty.
        ours = bool(_LOG_LINE.match(line)) or (ours and not line.strip())
        if not ours and line.strip():
            kept.append(line)
    return "".join(kept)
