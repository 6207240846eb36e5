"""Trying a model in a child process first: a file that crashes, hangs or floods ONNX Runtime then costs one error line.

The child gets the very bytes that were checked, over a pipe; it opens them on the CPU with one thread and runs once on
zeros. Its CPU time and memory are limited (setrlimit(2)), and it can write no file.
"""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import edgecv
from edgecv.errors import EdgecvError, UsageError
from edgecv.files import sha256_bytes
from edgecv.runtime.host import package_versions
from edgecv.runtime.model_bytes import ModelBytes
from edgecv.runtime.ort_session import RunOptions, create_session
from edgecv.workspace import user_cache

CPU_LIMIT_S = 20
"""CPU time of the child, plus 10 s for each GiB of the model; EfficientNet-B7 takes 2 s. CPU time, because a busy
machine must not make a good model look like a hanging one."""
WALL_LIMIT_S = 120.0
MEMORY_LIMIT_BYTES = 3 << 30
"""Address space on top of the interpreter's and of four times the model: ONNX Runtime copies weights to pack them."""

_MARK = "edgecv-tried "
_OPEN_SIZES = {"nhwc": (1, 224, 224, 3), "nchw": (1, 3, 224, 224)}
_DTYPES = {
    "tensor(float)": "f4", "tensor(uint8)": "u1", "tensor(int8)": "i1", "tensor(float16)": "f2", "tensor(double)": "f8",
    "tensor(int32)": "i4", "tensor(int64)": "i8", "tensor(bool)": "?",
}  # fmt: skip


def try_in_child(
    source: ModelBytes,
    *,
    cpu_s: int = CPU_LIMIT_S,
    memory_bytes: int = MEMORY_LIMIT_BYTES,
    wall_s: float = WALL_LIMIT_S,
    command: Sequence[str] | None = None,
) -> None:
    """Open a model and run it once in a child process.

    Args:
        source: The model.
        cpu_s: CPU time the child may take, in seconds; more for models of gigabytes.
        memory_bytes: Address space it may take, besides what its interpreter has and four times the model.
        wall_s: It is killed after this many seconds.
        command: What to run instead of this module.

    Raises:
        UsageError: It does not load there, ends the process, or does not come to an end.
    """
    home = str(Path(edgecv.__file__).parent.parent)
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    child = command or (sys.executable, "-P", "-m", "edgecv.runtime.isolate")
    folder = str(source.folder) if source.folder else None
    job = {"name": source.name, "folder": folder, "cpu_s": cpu_s, "memory_bytes": memory_bytes}
    try:
        done = subprocess.run(
            [*child, json.dumps(job)],
            input=source.data,
            capture_output=True,
            timeout=wall_s,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"model '{source.name}' was tried in a process of its own and hung; refused.") from None
    for line in reversed(done.stdout.decode(errors="replace").splitlines()):
        if line.startswith(_MARK):
            answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            if answer["error"]:
                raise UsageError(answer["error"])
            return
    raise UsageError(
        f"model '{source.name}' was tried in a process of its own and {_death(done.returncode, cpu_s)}; refused."
    )


def try_once(source: ModelBytes) -> None:
    """Try a model in a child process unless these very bytes passed before, with this edgecv and ONNX Runtime.

    Raises:
        UsageError: As :func:`try_in_child`.
    """
    versions = package_versions("onnxruntime", "onnxruntime-gpu")
    key = "-".join([sha256_bytes(source.data), edgecv.__version__, *versions.values()])
    if key in _passed:
        return
    record: Path | None
    try:
        record = user_cache("tried") / key
        known = record.is_file()
    except (OSError, RuntimeError):  # no home
        record, known = None, False
    if not known:
        try_in_child(source)
        _remember(record)
    _passed.add(key)


_passed: set[str] = set()


def _remember(record: Path | None) -> None:
    try:
        if record is not None:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.touch()
    except OSError:  # a home that cannot be written: the next command tries again
        pass


def _death(code: int, cpu_s: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"was not done after {cpu_s} s of CPU time"
    return f"ended it ({signal.Signals(-code).name})" if code < 0 else f"ended it with exit code {code}"


def _limit(model_bytes: int, cpu_s: int, memory_bytes: int) -> None:
    """Limit this process: CPU time, memory, and nothing written."""
    cpu_s += math.ceil(10 * model_bytes / (1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # no Linux: without the size of today there is nothing to add to
    size = pages * resource.getpagesize() + memory_bytes + 4 * model_bytes
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _feeds(session: Any) -> dict[str, Any] | None:
    """Return zeros for every input; None when one takes no plain tensor."""
    import numpy as np

    feeds = {}
    for taken in session.get_inputs():
        if taken.type not in _DTYPES:
            return None
        sizes = _OPEN_SIZES["nhwc" if taken.shape[-1:] in ([1], [3], [4]) else "nchw"]
        shape = [d if isinstance(d, int) else sizes[min(i, 3)] for i, d in enumerate(taken.shape)]
        feeds[taken.name] = np.zeros(shape, _DTYPES[taken.type])
    return feeds


def _try_here(name: str, folder: str | None, cpu_s: int, memory_bytes: int) -> str:
    """Open and run the model on stdin; return why it is refused, or nothing."""
    from edgecv.runtime.owners import load_onnxruntime

    ort = load_onnxruntime()
    data = sys.stdin.buffer.read()
    _limit(len(data), cpu_s, memory_bytes)
    source = ModelBytes(data, name, Path(folder) if folder else None)
    try:
        session = create_session(ort, source, ["cpu"], RunOptions(1, None, True))
    except EdgecvError as e:
        return str(e)
    except MemoryError:
        return f"model '{name}' needs more than {memory_bytes >> 20} MiB to load; refused."
    try:
        feeds = _feeds(session)
        if feeds is not None:
            session.run(None, feeds)
    except MemoryError:
        return f"model '{name}' needs more than {memory_bytes >> 20} MiB to run; refused."
    except Exception as e:  # onnxruntime's exceptions have no common base but this
        if "bad_alloc" in str(e) or "Failed to allocate" in str(e):
            return f"model '{name}' needs more than {memory_bytes >> 20} MiB to run; refused."
        return ""  # zeros of a guessed size need not suit it; whether it runs is the command's to find out
    return ""


if __name__ == "__main__":
    print(_MARK + json.dumps({"error": _try_here(**json.loads(sys.argv[1]))}), flush=True)  # noqa: T201  (the answer)
