"""One run of a model under an emulated CPU: arrays go to a child process through a folder, and answers come back."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import edgecv
from edgecv.errors import DeviceUnreachableError, UsageError
from edgecv.files import write_bytes
from edgecv.pipeline.emulator import PREFIX, Emulator, environment
from edgecv.progress import Progress, no_progress
from edgecv.runtime.run_arrays import DONE

_SILENCE_S = 600.0  # a large float network at a high resolution takes minutes for a batch


def run_emulated(
    emulator: Emulator,
    cpu: str,
    model: Path,
    names: tuple[str, str],
    batches: Sequence[np.ndarray],
    progress: Progress = no_progress,
) -> Iterator[np.ndarray]:
    """Run a model under an emulated CPU and yield its answer to each batch.

    Args:
        emulator: From :func:`find_emulator`.
        cpu: A name of :func:`known_cpus`.
        model: ONNX file.
        names: Of its input and of the output wanted.
        batches: Inputs; they lie in a temporary folder meanwhile.
        progress: Told after each batch.

    Raises:
        DeviceUnreachableError: The emulated process died or fell silent; the message says at what.
        UsageError: The model does not load there.
    """
    with tempfile.TemporaryDirectory(prefix="edgecv-") as name:
        folder = Path(name)
        for number, batch in enumerate(batches):
            np.save(folder / f"in-{number}.npy", batch)
        job = {"model": str(model.resolve()), "input": names[0], "output": names[1], "batches": len(batches)}
        write_bytes(folder / "job.json", json.dumps(job).encode())
        _run(emulator, cpu, folder, len(batches), progress)
        answer = json.loads((folder / "answer.json").read_text())
        if answer["error"]:
            raise UsageError(f"on {PREFIX}:{cpu}: {answer['error']}")
        for number in range(len(batches)):
            yield np.load(folder / f"out-{number}.npy")


def _run(emulator: Emulator, cpu: str, folder: Path, total: int, progress: Progress) -> None:
    home = str(Path(edgecv.__file__).parent.parent)
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    own = os.environ.get("LD_LIBRARY_PATH")
    inside = ["-U", "LD_LIBRARY_PATH"] if own is None else ["-E", f"LD_LIBRARY_PATH={own}"]
    command = [emulator.program, *inside, "-cpu", cpu, sys.executable, "-P", "-m", "edgecv.runtime.run_arrays"]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*command, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**environment(emulator.libraries), "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it
        )
        try:
            told = _follow(process, total, progress)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        if (folder / "answer.json").is_file():
            return
        complaints.seek(0)
        last = complaints.read()[-4096:].decode(errors="replace").strip().splitlines()
        raise DeviceUnreachableError(_death(cpu, process.returncode, last[-1] if last else "", silent=not told))


def _follow(process: "subprocess.Popen[bytes]", total: int, progress: Progress) -> bool:
    """Pass the child's progress on until it ends; False when it said nothing for too long."""
    assert process.stdout is not None
    unread = b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], _SILENCE_S)
        if not ready:
            return False
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            process.wait()
            return True
        *lines, unread = (unread + piece).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if text.startswith(DONE):
                progress("emulating", int(text.removeprefix(DONE)), total)


def _death(cpu: str, code: int, last: str, *, silent: bool) -> str:
    if silent:
        return f"{PREFIX}:{cpu} gave no answer in {_SILENCE_S:g} s; use fewer images (-n) or a smaller --batch."
    if code == -signal.SIGILL:
        return (
            f"{PREFIX}:{cpu} lacks instructions that this Python's numpy or ONNX Runtime needs; choose a newer CPU, "
            f"such as {PREFIX}:Haswell."
        )
    return f"{PREFIX}:{cpu} ended with code {code}: {' '.join(last.split())[:200] or 'it said nothing'}"
