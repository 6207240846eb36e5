"""Running a function over many items in threads, a bounded distance ahead of who takes the results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from edgecv.runtime.host import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None, ahead: int | None = None
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` in the order of ``items``.

    Decoding and hashing release Python's lock, so threads use all cores. At most ``ahead`` results exist at a time
    however slow the taker is. An exception is raised where its item stands in the order; leaving the loop
    early cancels what has not begun.

    Args:
        function: Called in worker threads.
        items: Taken lazily.
        workers: Threads; the usable cores when None.
        ahead: Items under way or finished and not taken yet; twice the threads when None.
    """
    threads = workers or usable_cores()
    source = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="edgecv-data")
    pending: deque[Future[Result]] = deque()
    try:
        pending.extend(pool.submit(function, item) for item in islice(source, ahead or 2 * threads))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
