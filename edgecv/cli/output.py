"""What a command prints: a table, then verdict, artifact, next command; or one JSON object."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgecv.progress import Progress, no_progress


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
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False, default=str) + "\n")
        return
    if not quiet:
        for table in tables:
            _print_table(*table)
        for note in notes:
            sys.stdout.write(note + "\n")
    lines = [("verdict", verdict), ("artifact", str(artifact or "")), ("next", next_command)]
    for name, text in lines[:1] if quiet else lines:
        if text:
            sys.stdout.write(f"{name + ':':<10}{text}\n")


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for i, column in enumerate(columns):
        words = i == 0 or any(row[i][:1].isalpha() for row in rows)
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.width = max(console.width, 100) if not console.is_terminal else console.width
    console.print(table)


@contextmanager
def progress_bar(*, as_json: bool = False, quiet: bool = False) -> Iterator[Progress]:
    """Yield a :data:`~edgecv.progress.Progress` that draws on stderr: bars on a terminal, plain lines otherwise."""
    if quiet or as_json:
        yield no_progress
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _plain_lines()


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


def _plain_lines(interval_s: float = 2.0) -> Progress:
    last: dict[str, float] = {}

    def report(label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if label in last and done != total and now - last[label] < interval_s:
            return
        if label not in last and total and done == total:
            last[label] = now
            return  # over before anyone waited for it
        last[label] = now
        sys.stderr.write(f"{label}: {done}/{total}\n" if total else f"{label}: {done}\n")
        sys.stderr.flush()

    return report
