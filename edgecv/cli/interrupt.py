"""Ctrl-C and SIGTERM end a command even while ONNX Runtime does not come back."""

import atexit
import contextlib
import os
import queue
import signal
import threading
from typing import Any

from edgecv.errors import EXIT_INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals(grace_s: float = 1.0) -> None:
    """Raise KeyboardInterrupt in the main thread on a signal; end the process when it does not get there.

    Python runs its handlers between two instructions of the main thread. Inside one run of a model there is none, and
    a model may run for ever. So a thread is told of the signal as well (``signal.set_wakeup_fd``). When the main thread
    has not come back after ``grace_s`` seconds, that thread does what the end of a process does to temporary files and
    folders, and ends it with the exit code of an interrupt.

    A signal that whoever started us wants ignored (``nohup``, a shell's background job) stays ignored.

    Args:
        grace_s: How long the main thread may take to come back, in seconds.
    """
    came_back: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put() may be called in a handler inside a handler

    def interrupt(number: int, frame: Any) -> None:
        came_back.put(number)
        raise KeyboardInterrupt

    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # as set_wakeup_fd asks
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, came_back, grace_s), name="edgecv-signals", daemon=True).start()


def _watch(reading: int, came_back: "queue.SimpleQueue[int]", grace_s: float) -> None:
    while number := os.read(reading, 1):
        if number[0] not in SIGNALS:
            continue
        try:
            came_back.get(timeout=grace_s)
        except queue.Empty:
            _end()


def _end() -> None:
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()  # temporary folders, and the files of edgecv.files, are removed by these
    with contextlib.suppress(OSError):
        show_cursor = "\r\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
        os.write(2, f"{show_cursor}interrupted; nothing half-written was left behind.\n".encode())
    os._exit(EXIT_INTERRUPTED)
