"""Whether a provider really starts here: a tiny model run in a child process, for some kill the interpreter.

Measured: ONNX Runtime's GPU wheel dies by SIGSEGV when its kernels are listed without CUDA libraries, the WebGPU
plugin 0.4.0 aborts on its virtual device. ``get_available_providers()`` lists what was compiled in, not what works.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgecv
from edgecv.errors import EdgecvError

TIME_LIMIT_S = 60.0
"""CUDA's first start loads more than a gigabyte of libraries from a cold disk."""

_LIST = "--list"
_MARK = "edgecv-probe "  # libraries print what they like on stdout; our line is known by this


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of one provider.

    Attributes:
        provider: Short name.
        started: A one-node model ran on it, and on nothing else.
        reason: Why not; empty when it started.
        seconds: From the start of the child process to its answer.
    """

    provider: str
    started: bool
    reason: str
    seconds: float


def probe_provider(name: str, *, timeout_s: float = TIME_LIMIT_S, command: Sequence[str] | None = None) -> ProbeResult:
    """Run a one-node model on a provider in a child process.

    Args:
        name: Short name of a provider.
        timeout_s: The child is killed after this many seconds.
        command: What to run instead of this module, followed by ``name``.

    Returns:
        The outcome; a provider that hangs or kills its process is one that did not start.
    """
    begin = time.monotonic()
    answer, reason = _ask(name, timeout_s, command)
    seconds = time.monotonic() - begin
    return ProbeResult(name, bool(answer.get("started")), reason or str(answer["reason"]), seconds)


def installed_providers(
    *, timeout_s: float = TIME_LIMIT_S, command: Sequence[str] | None = None
) -> tuple[tuple[str, ...], str]:
    """Ask a child process which providers ONNX Runtime and its plugins hold.

    Returns:
        Short names, and why there are none: ONNX Runtime is absent, damaged, or dies when imported.
    """
    answer, reason = _ask(_LIST, timeout_s, command)
    return tuple(answer.get("installed", ())), reason or str(answer["reason"])


def _ask(question: str, timeout_s: float, command: Sequence[str] | None) -> tuple[dict[str, Any], str]:
    # -P: a file of the working directory must not pass for a module of ours; edgecv itself comes from where we are.
    child = command or (sys.executable, "-P", "-m", "edgecv.runtime.probe")
    home = str(Path(edgecv.__file__).parent.parent)
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [*child, question],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}, f"it hung: no answer in {timeout_s:g} s"
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(_MARK):
            answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return answer, ""
    return {}, _death(done.returncode, done.stderr)


def probe_model() -> bytes:
    """Return an ONNX file of one node: Conv 1x1, float32 (1, 3, 8, 8) -> (1, 4, 8, 8).

    Encoded by hand because the base install has no ``onnx`` package. A convolution because every provider has it, of
    fixed shape because some take nothing else.
    """
    weight = _field(8, b"w") + _dims(4, 3, 1, 1) + _number(2, 1) + _field(9, struct.pack("<12f", *([1.0] * 12)))
    node = _field(1, b"x") + _field(1, b"w") + _field(2, b"y") + _field(3, b"conv") + _field(4, b"Conv")
    graph = (
        _field(1, node)
        + _field(2, b"probe")
        + _field(5, weight)
        + _field(11, _value(b"x", (1, 3, 8, 8)))
        + _field(12, _value(b"y", (1, 4, 8, 8)))
    )
    return (
        _number(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, 13))
    )  # IR version 8, opset 13: read since 2021


def _value(name: bytes, shape: Sequence[int]) -> bytes:
    dims = b"".join(_field(1, _number(1, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _number(1, 1) + _field(2, dims)))  # elem_type 1 = float


def _dims(*sizes: int) -> bytes:
    return b"".join(_number(1, s) for s in sizes)


def _field(number: int, payload: bytes) -> bytes:
    """One length-delimited field of protobuf's wire format."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _number(number: int, value: int) -> bytes:
    """One integer field of protobuf's wire format."""
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _death(code: int, stderr: str) -> str:
    last = (stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
    if code < 0:
        return f"it killed its process ({signal.Signals(-code).name}): {last}"
    return f"its process ended with exit code {code}: {last}"


def _list_here() -> dict[str, Any]:
    from edgecv.runtime.owners import load_onnxruntime
    from edgecv.runtime.providers import PROVIDERS, is_plugin

    try:
        available = load_onnxruntime().get_available_providers()
    except EdgecvError as e:
        return {"installed": [], "reason": str(e)}
    names = [n for n, p in PROVIDERS.items() if p.ort_name in available or is_plugin(n, available)]
    return {"installed": names, "reason": ""}


def _start_here(name: str) -> dict[str, Any]:
    import numpy as np

    from edgecv.runtime.session import open_session

    try:
        opened = open_session(probe_model(), provider=name, threads=1)
        outputs = opened.session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
    except EdgecvError as e:
        return {"started": False, "reason": str(e)}
    if not np.allclose(outputs[0], 3.0, rtol=1e-2):  # room for accelerators that compute in 16 bits
        return {"started": False, "reason": f"it computes wrongly: {float(outputs[0].flat[0])} instead of 3"}
    return {"started": True, "reason": ""}


if __name__ == "__main__":
    asked = sys.argv[1]
    print(_MARK + json.dumps(_list_here() if asked == _LIST else _start_here(asked)), flush=True)  # noqa: T201  (the answer)
