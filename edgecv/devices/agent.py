"""What runs on the device: sent as text to its Python and run there by ``python -c``; the standard library alone.

Every answer on stdout follows a marker, because shells greet with text of their own. A connection that ends early
shows as the end of stdin: what was half received is removed, and what runs is killed with its folder.
"""

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

MARK = b"\x1eedgecv\n"
FAILED = 3
PIECE = 1 << 18
STALE_S = 86400


class Refused(Exception):  # noqa: N818 (no class of edgecv exists on the device)
    """One sentence for the person at the other end."""


def answer(content: Any) -> None:
    """Write one answer as JSON."""
    sys.stdout.buffer.write(MARK + json.dumps(content).encode())
    sys.stdout.buffer.flush()


def rooted(folder: str) -> str:
    """Return the absolute path of a folder in the home folder."""
    return os.path.join(os.path.expanduser("~"), folder)


def hello(folder: str) -> None:
    """Make the folders and tell what this device is; remove what a machine that lost its power left."""
    root = rooted(folder)
    os.makedirs(os.path.join(root, "store"), exist_ok=True)
    jobs = os.path.join(root, "jobs")
    os.makedirs(jobs, exist_ok=True)
    for name in os.listdir(jobs):
        path = os.path.join(jobs, name)
        if time.time() - os.path.getmtime(path) > STALE_S:
            shutil.rmtree(path, ignore_errors=True)
    answer(
        {
            "root": root,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
            "missing": [m for m in ("numpy", "onnxruntime", "PIL") if importlib.util.find_spec(m) is None],
            "free_bytes": shutil.disk_usage(root).free,
        }
    )


def has(folder: str, *digests: str) -> None:
    """Tell which digests are here."""
    store = os.path.join(rooted(folder), "store")
    answer([d for d in digests if os.path.isdir(os.path.join(store, d))])


def store(folder: str, digest: str, name: str, size: str, kind: str) -> None:
    """Receive one file, or a tar to be unpacked, into the folder of its digest; all of it or nothing."""
    final = os.path.join(rooted(folder), "store", digest)
    part = tempfile.mkdtemp(prefix="part-", dir=os.path.dirname(final))
    try:
        path = os.path.join(part, name if kind == "file" else ".tar")
        received, told = hashlib.sha256(), int(size)
        with open(path, "wb") as f:
            while told:
                piece = sys.stdin.buffer.read(min(PIECE, told))
                if not piece:
                    raise Refused("the connection ended while " + name + " was sent")
                received.update(piece)
                f.write(piece)
                told -= len(piece)
            f.flush()
            os.fsync(f.fileno())
        if received.hexdigest() != digest:
            raise Refused(name + " arrived damaged")
        if kind == "tar":
            with tarfile.open(path) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(part)
            os.unlink(path)
        if not os.path.isdir(final):
            os.rename(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    answer(os.path.join(final, name) if kind == "file" else final)


def run(folder: str, job: str, text: str) -> None:
    """Run a command in a folder of its own until it ends, or stdin does."""
    order = json.loads(text)
    place = os.path.join(rooted(folder), "jobs", job)
    os.makedirs(place, exist_ok=True)
    first, *rest = order["argv"]
    argv = [sys.executable if first == "python" else first, *rest]
    with open(os.path.join(place, "printed"), "wb") as printed:
        child = subprocess.Popen(
            argv, cwd=place, env={**os.environ, **order["env"]}, stdin=subprocess.DEVNULL, stdout=printed,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    ended = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        if not ended.is_set():
            kill(child.pid)
            child.wait()
            shutil.rmtree(place, ignore_errors=True)
            os._exit(FAILED)

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    ended.set()
    kill(child.pid)
    with open(os.path.join(place, "printed"), "rb") as f:
        f.seek(max(0, os.fstat(f.fileno()).st_size - 4000))
        answer({"code": code, "printed": f.read().decode(errors="replace")})
    sys.stdout.close()
    os._exit(0)  # the watcher still reads


def kill(group: int) -> None:
    """End a process and all it started."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def fetch(folder: str, job: str, name: str) -> None:
    """Write out one file of a job."""
    with open(os.path.join(rooted(folder), "jobs", job, name), "rb") as f:
        sys.stdout.buffer.write(MARK)
        shutil.copyfileobj(f, sys.stdout.buffer)


def clean(folder: str, job: str) -> None:
    """Remove a job."""
    shutil.rmtree(os.path.join(rooted(folder), "jobs", job), ignore_errors=True)
    answer(True)


def main(arguments: Sequence[str]) -> int:
    """Do one thing; return the exit code."""
    try:
        VERBS[arguments[0]](*arguments[1:])
    except Refused as e:
        text = str(e)
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        text = "its disk is full" if full else "%s (%s)" % (e.strerror, e.filename)  # noqa: UP031 (old Pythons)
    else:
        return 0
    sys.stderr.write("\nedgecv-agent: " + text + "\n")
    return FAILED


VERBS: dict[str, Callable[..., None]] = {
    "hello": hello, "has": has, "store": store, "run": run, "fetch": fetch, "clean": clean,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
