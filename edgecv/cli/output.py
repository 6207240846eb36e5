"""What a command prints: a table, then verdict, artifact, next command; or one JSON object."""

import contextlib
import json
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from edgecv.errors import EnvironmentRefusedError
from edgecv.progress import Progress, no_progress
from edgecv.text import UNSAFE, printable

PLAIN_LINES_EVERY_S = 2.0
"""Seconds between two lines of progress where stderr is no terminal; what is over sooner tells none."""

_ASCII_SIGNS = str.maketrans({"–": "-", "→": "->", "×": "x", "±": "+-", "…": "...", "≤": "<=", "≥": ">="})


def emit(
    result: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool = False,
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = (),
    notes: Sequence[str] = (),
    verdict: str = "",
    artifact: Path | None = None,
    next_command: str = "",
) -> None:
    """Print a command's result.

    Args:
        result: The whole result, JSON-serialisable; printed alone with ``as_json``.
        as_json: One JSON object on stdout, nothing else.
        quiet: Only the verdict line.
        tables: ``(title, column names, rows of strings)``; columns of numbers are right-aligned.
        notes: Lines between the tables and the verdict.
        verdict: One line: what came out and whether to trust it.
        artifact: The file written, if any.
        next_command: What to type next.
    """
    if sys.stdout is None:  # started with it closed
        return
    with _write_errors():
        if as_json:
            _write(_as_json(result))
            return
        parts = []
        if not quiet:
            parts += [_table(*table) for table in tables]
            parts += [printable(note) + "\n" for note in notes]
        lines = [("verdict", verdict), ("artifact", str(artifact or "")), ("next", next_command)]
        parts += [f"{name + ':':<10}{printable(text)}\n" for name, text in (lines[:1] if quiet else lines) if text]
        _write("".join(parts))


def say(text: str) -> None:
    """Write one line on stderr, where there is one; never raises."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        sys.stderr.write(_encodable(printable(text) + "\n", sys.stderr))
        sys.stderr.flush()


def open_closed_streams() -> None:
    """Put the null device where stdin, stdout or stderr are closed.

    Otherwise the next file opened takes the number, and what any library prints ends up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _write(text: str) -> None:
    sys.stdout.write(_encodable(text, sys.stdout))
    sys.stdout.flush()  # a full disk is an error here, not at the end of the process


@contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        with contextlib.suppress(OSError, ValueError):  # else the end of the process tries again what is buffered
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(e, BrokenPipeError):  # who reads has seen enough; the exit code is still the command's
            return
        raise EnvironmentRefusedError(f"cannot write to standard output: {e.strerror or e}.") from e


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    if _is_encodable(text, encoding):
        return text
    return text.translate(_ASCII_SIGNS).encode(encoding, "backslashreplace").decode(encoding)


def _is_encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _as_json(result: Mapping[str, Any]) -> str:
    finite = _finite(result)
    text = json.dumps(finite, indent=2, ensure_ascii=False, default=str, allow_nan=False)
    if UNSAFE.search(text.replace("\n", "")) or not _is_encodable(text, sys.stdout.encoding or "utf-8"):
        text = json.dumps(finite, indent=2, default=str, allow_nan=False)
    return text + "\n"


def _finite(value: Any) -> Any:
    """Replace infinity and NaN, which JSON does not have, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=printable(title) or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        words = i == 0 or any(row[i][:1].isalpha() for row in rows)
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    console.width = max(console.width, 100) if not console.is_terminal else console.width
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@contextmanager
def progress_bar(*, as_json: bool = False, quiet: bool = False) -> Iterator[Progress]:
    """Yield a :data:`~edgecv.progress.Progress` that draws on stderr: bars on a terminal, plain lines otherwise."""
    if quiet or as_json or sys.stderr is None:
        yield no_progress
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield from _plain_lines()


def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total or None)
            bars.update(tasks[label], completed=done, total=total or None)

        yield report


def _plain_lines() -> Iterator[Progress]:
    newest = ""
    over = threading.Event()

    def report(label: str, done: int, total: int) -> None:
        nonlocal newest
        newest = f"{label}: {done}/{total}" if total else f"{label}: {done}"

    def tell() -> None:
        told = ""
        while not over.wait(PLAIN_LINES_EVERY_S):
            if newest != told:
                told = newest
                say(told)

    teller = threading.Thread(target=tell, name="edgecv-progress", daemon=True)
    teller.start()
    try:
        yield report
    finally:
        over.set()
        teller.join()
