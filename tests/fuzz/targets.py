"""What is fuzzed: each target takes bytes and may end in an EdgecvError, which is the refusal, and in nothing else."""

import atexit
import os
import shutil
import signal
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgecv.errors import EdgecvError
from edgecv.text import UNSAFE

MAX_MESSAGE = 400
"""Characters a refusal may have."""

_FOLDER = Path(tempfile.mkdtemp(prefix="edgecv-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def manifest(data: bytes) -> None:
    from edgecv.manifest import KEY, from_metadata, to_metadata

    found = from_metadata({KEY: data.decode("utf-8", "surrogateescape")}, "m.onnx")
    if found is not None:
        assert from_metadata(to_metadata(found), "m.onnx") == found


def recipe(data: bytes) -> None:
    from edgecv.config.recipe import load_recipe

    load_recipe(str(_written("recipe.toml", data)))


def profile(data: bytes) -> None:
    from edgecv.config.device import load_device

    load_device(str(_written("rpi4.toml", data)))


def policy(data: bytes) -> None:
    from edgecv.runtime.policy import POLICIES, check_model

    for level in ("relaxed", "standard", "strict"):  # what one allows, the next may refuse
        check_model(data, "m.onnx", POLICIES[level])


def preprocess(data: bytes) -> None:
    from edgecv.manifest import InputSpec
    from edgecv.runtime.preprocess import preprocess as run

    modes = ("center", "squash", "border")
    spec = InputSpec("x", (3, 32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", 0.875, modes[len(data) % 3])
    assert run(data, spec).shape == (32, 32, 3)


def checkpoint(data: bytes) -> None:
    from edgecv.nn.checkpoint import read_manifest

    read_manifest(_written("c.safetensors", data))


def session(data: bytes) -> None:
    """What the strict level lets through is opened and run by ONNX Runtime in a process of its own."""
    import onnxruntime as ort

    from edgecv.runtime.policy import POLICIES, check_model

    check_model(data, "m.onnx", POLICIES["strict"])
    ort.set_default_logger_severity(4)
    child = os.fork()
    if child == 0:
        _run_here(ort, data)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise AssertionError(f"ONNX Runtime ended its process: {signal.Signals(os.WTERMSIG(status)).name}")


def _run_here(ort: object, data: bytes) -> None:
    import resource

    from edgecv.runtime.isolate import _feeds

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CPU, (5, 6))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 30), size + (4 << 30)))
    try:
        options = ort.SessionOptions()  # type: ignore[attr-defined]
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        opened = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])  # type: ignore[attr-defined]
        feeds = _feeds(opened)
        if feeds is not None:
            opened.run(None, feeds)
    except Exception:  # a refusal of ONNX Runtime's own is as good as ours
        pass
    os._exit(0)


def _written(name: str, data: bytes) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": manifest,
    "recipe": recipe,
    "profile": profile,
    "policy": policy,
    "preprocess": preprocess,
    "checkpoint": checkpoint,
    "session": session,
}
"""Name -> what takes the bytes."""


def run_target(name: str, data: bytes) -> bool:
    """Give ``data`` to a target; return whether it was taken. Whatever else happens is a finding and is raised."""
    refusal: EdgecvError | None = None
    try:
        TARGETS[name](data)
    except EdgecvError as e:
        refusal = e
    if refusal is None:
        return True
    text = str(refusal)
    assert not UNSAFE.search(text), f"more than one line, or control characters: {text!r}"
    assert len(text) <= MAX_MESSAGE, f"{len(text)} characters: {text!r}"
    assert refusal.exit_code == 2, f"exit code {refusal.exit_code}: {text!r}"
    return False


def safetensors(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body
