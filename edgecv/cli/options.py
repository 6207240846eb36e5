"""Options that mean the same in every command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

_POLICY = "EDGECV_POLICY"  # edgecv.runtime.model_bytes reads it


def named_path(text: str) -> Path:
    """Return the path an option names; an empty one, as an unset shell variable gives, would mean this folder."""
    if not text.strip():
        raise typer.BadParameter("the path is empty; name a file or folder ('.' is this folder).")
    return Path(text)


def _trust(value: bool) -> bool:
    if value:
        os.environ[_POLICY] = "relaxed"  # the environment, because child processes open models too
    return value


@contextmanager
def restored_policy() -> Iterator[None]:
    """Undo ``--trust`` when the command is over."""
    before = os.environ.get(_POLICY)
    try:
        yield
    finally:
        os.environ.pop(_POLICY, None)
        if before is not None:
            os.environ[_POLICY] = before


Trust = Annotated[
    bool,
    typer.Option("--trust", callback=_trust, help="The models are mine: allow loops, foreign operators, any weights."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the verdict and errors.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; default beside the input.")]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data",
        parser=named_path,
        metavar="PATH",
        help="Image folder (class subfolders), a zip of one, or CSV with path,label.",
    ),
]
Provider = Annotated[
    str, typer.Option("--provider", help="cpu, cuda, trt, openvino, …; 'cuda,cpu' is an ordered fallback.")
]
Threads = Annotated[str, typer.Option("--threads", help="Intra-op threads: a number, or auto.")]
BatchSize = Annotated[int, typer.Option("--batch", min=1, max=1024, help="Images per run.")]
