"""Fuzz one target: ``PYTHONPATH=tests python -m fuzz.run TARGET --seconds 600``; exits 1 with what it found kept.

With ``--atheris`` coverage guides the search (``pip install atheris``); without it, inputs are changed at random, and
those with an outcome not seen before are changed further.
"""

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.corpus import seeds
from fuzz.mutate import mutate_bytes, mutate_model
from fuzz.targets import TARGETS, run_target

MAX_SECONDS = 5.0
"""What takes longer counts as a hang."""

_MAX_KEPT = 500


@dataclass
class Outcome:
    """What a run found.

    Attributes:
        executions: Inputs tried.
        taken: How many of them were legal.
        findings: Input and error of each distinct failure.
    """

    executions: int = 0
    taken: int = 0
    findings: dict[str, tuple[bytes, str]] = field(default_factory=dict)


def fuzz(target: str, seconds: float, seed: int = 0) -> Outcome:
    """Change the corpus at random for some seconds; every legal file of the corpus is tried as it is first."""
    rng = random.Random(seed)
    corpus = seeds(target)
    change: Callable[..., bytes] = mutate_model if target in ("policy", "session") else mutate_bytes
    outcome = Outcome()
    for data in corpus:
        if not _try(target, data, outcome):
            outcome.findings.setdefault("legal", (data, "a legal file is refused"))
    original, seen = list(corpus), set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = change(rng.choice(corpus), original, rng)
        taken = _try(target, data, outcome)
        mark = (taken, len(data).bit_length(), len(corpus) % 7 if taken else 0)
        if mark not in seen and len(corpus) < _MAX_KEPT:
            seen.add(mark)
            corpus.append(data)
    return outcome


def _try(target: str, data: bytes, outcome: Outcome) -> bool:
    outcome.executions += 1
    begin = time.process_time()
    taken = False
    try:
        taken = run_target(target, data)
        outcome.taken += taken
        seconds = time.process_time() - begin
        assert seconds <= MAX_SECONDS, f"it took {seconds:.1f} s"
    except Exception as e:  # whatever it is, it is a finding
        key = f"{type(e).__name__}: {_place(e)}"
        outcome.findings.setdefault(key, (data, f"{type(e).__name__}: {str(e)[:300]}"))
    return taken


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def keep(target: str, findings: dict[str, tuple[bytes, str]], folder: Path) -> list[Path]:
    """Write each finding to ``folder/TARGET-HASH``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for data, error in findings.values():
        path = folder / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        print(f"{path}: {error}")
        written.append(path)
    return written


def _with_atheris(target: str, seconds: int, folder: Path) -> None:
    import atheris

    corpus = folder / f"corpus-{target}"
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds(target):
        (corpus / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    with atheris.instrument_imports(include=["edgecv", "PIL", "tomllib", "json"]):
        for name in ("edgecv.manifest", "edgecv.config.recipe", "edgecv.config.device", "edgecv.runtime.preprocess"):
            __import__(name)
        __import__("edgecv.runtime.policy")
    arguments = [sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-artifact_prefix={folder}/{target}-"]
    atheris.Setup([*arguments, f"-timeout={MAX_SECONDS:.0f}", "-rss_limit_mb=2048"], lambda d: run_target(target, d))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="folder for inputs that break something"
    )
    parser.add_argument("--atheris", action="store_true", help="guided by coverage")
    options = parser.parse_args()
    if options.atheris:
        _with_atheris(options.target, options.seconds, options.keep)
        return 0
    outcome = fuzz(options.target, options.seconds, options.seed)
    print(f"{options.target}: {outcome.executions} inputs, {outcome.taken} taken, {len(outcome.findings)} findings")
    keep(options.target, outcome.findings, options.keep)
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
