"""How long work reports its progress, without the library knowing about terminals."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(label, done, total)``; ``total`` is 0 when it is not known yet."""


def no_progress(label: str, done: int, total: int) -> None:
    """Report nothing: the default of every library function."""
