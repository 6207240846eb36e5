"""SIGINT and SIGTERM while training: finish the step, write a checkpoint, leave; soon, even when a step is long."""

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgecv.errors import EXIT_INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 1.5
"""Seconds a step may take to end by itself; the checkpoint has the rest of five."""

_TIDY_S = 0.5
"""For what libraries registered to be done at the end of the process; some of it waits for what no longer answers."""


class Stop:
    """What the loop and the signals know of each other.

    Attributes:
        requested: A signal came.
        changing: Held while weights change; between two steps whoever holds it sees a whole state.
        leave: Called once from another thread when the loop does not come back in time: writes what it can.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.changing = threading.RLock()
        self.leave: Callable[[], None] = lambda: None
        self.over = threading.Event()


@contextmanager
def stop_on_signals(grace_s: float = GRACE_S) -> Iterator[Stop]:
    """Yield a :class:`Stop` that signals set, in place of the handlers there were; put those back at the end.

    Python runs handlers between two instructions of the main thread, and a backward pass is one. So a thread is told as
    well (``signal.set_wakeup_fd``); when the loop has not come back after ``grace_s`` it calls ``leave`` and
    ends the process. Outside the main thread no signal arrives and nothing is changed.

    A signal that is ignored (``nohup``) stays ignored.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before: dict[int, Any] = {}
    for ours in SIGNALS:
        if signal.getsignal(ours) is not signal.SIG_IGN:
            before[ours] = signal.signal(ours, lambda *_: stop.requested.set())
    fd_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(
        target=_watch, args=(reading, stop, grace_s), name="edgecv-training-signals", daemon=True
    )
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.over.set()
        os.close(writing)  # ends the thread
        watcher.join()
        os.close(reading)


def _watch(reading: int, stop: Stop, grace_s: float) -> None:
    while number := os.read(reading, 1):
        if number[0] not in SIGNALS:
            continue
        stop.requested.set()
        if not stop.over.wait(grace_s):
            _leave(stop)


def _leave(stop: Stop) -> None:
    """Write a last checkpoint unless the loop is writing one, then end as an interrupted command does."""
    if stop.changing.acquire(timeout=2.0):
        with contextlib.suppress(Exception):
            stop.leave()
    for worker in multiprocessing.active_children():
        worker.kill()  # the end of a process waits for them, and they for images to read
    tidy = threading.Thread(target=atexit._run_exitfuncs, daemon=True)  # removes temporary files (edgecv.files)
    tidy.start()
    tidy.join(_TIDY_S)
    with contextlib.suppress(OSError):
        os.write(2, b"\rinterrupted; the newest checkpoint is whole, go on with --resume.\n")
    os._exit(EXIT_INTERRUPTED)
