"""What a run of a recipe has finished: a folder for each stage with its inputs and settings, a record when it is whole.

A stage's folder carries the hash of everything its result depends on, so another setting gives another folder and
nothing is ever written over. The record is the last file of a stage and appears at once: whoever kills a run leaves a
finished stage or none.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edgecv
from edgecv.data.contents import Contents
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.files import MAX_TEXT_BYTES, read_file, write_atomically, write_bytes
from edgecv.runtime.host import cpu_model, package_versions, usable_cores
from edgecv.typed import build

STAGES_FOLDER = "stages"
RECORD_FILE = "record.json"
MAX_RECORD_BYTES = 16 * MAX_TEXT_BYTES
_SHOWN_KEY = 12

JUDGED = ("quantize", "verify", "eval", "bench")
"""Stages whose figures are made by ONNX Runtime: another version of it may give others."""


@dataclass(frozen=True, slots=True)
class Record:
    """A finished stage.

    Attributes:
        stage: Its name.
        key: :func:`stage_key`.
        inputs: Role -> SHA-256 of what went in, or the name of a network.
        settings: Key -> value.
        artifact: File name inside the stage's folder; empty for a stage that only measures.
        sha256: Of the artifact.
        seconds: How long the stage took, without interruptions before its last start.
        report: The stage's own report.
        edgecv: Version that made it.
    """

    stage: str
    key: str
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    artifact: str
    sha256: str
    seconds: float
    report: Mapping[str, Any]
    edgecv: str


def stage_key(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int) -> str:
    """Return the hash of all that a stage's result depends on: itself, settings, inputs, seed, edgecv's version.

    Figures of ONNX Runtime depend on its version too, times on the machine.
    """
    facts: dict[str, Any] = {"stage": stage, "settings": settings, "inputs": inputs, "seed": seed}
    facts["versions"] = {"edgecv": edgecv.__version__}
    if stage in JUDGED:
        facts["versions"] |= package_versions("onnxruntime", "onnxruntime-gpu")
    if stage == "bench":
        facts["machine"] = [cpu_model(), usable_cores()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def stage_folder(folder: Path, stage: str, key: str) -> Path:
    """Return where a stage's files are."""
    return folder / STAGES_FOLDER / f"{stage}-{key[:_SHOWN_KEY]}"


def find_record(folder: Path, stage: str, key: str, contents: Contents) -> Record | None:
    """Return the record of a finished stage; None where there is none, or its artifact is not what was recorded."""
    place = stage_folder(folder, stage, key)
    path = place / RECORD_FILE
    if not path.is_file():
        return None
    try:
        record = build(Record, json.loads(read_file(path, "record", MAX_RECORD_BYTES)), str(path))
        whole = not record.artifact or contents.file(place / Path(record.artifact).name) == record.sha256
    except (UsageError, ValueError, RecursionError):
        return None
    return record if whole and (record.stage, record.key) == (stage, key) else None


def is_published(folder: Path, stage: str, target: Path, contents: Contents) -> bool:
    """Return whether a file at the top of the run's folder is what some run's stage made."""
    for place in (folder / STAGES_FOLDER).glob(f"{stage}-*"):
        if any(path.samefile(target) for path in place.glob(f"*{target.suffix}")):
            return True
        with contextlib.suppress(UsageError, ValueError, RecursionError, AttributeError):
            record = json.loads(read_file(place / RECORD_FILE, "record", MAX_RECORD_BYTES))
            if record.get("sha256") == contents.file(target):
                return True
    return False


def write_record(folder: Path, record: Record) -> None:
    """Write a record beside the files of its stage, which are on disk already."""
    text = json.dumps(asdict(record), indent=1, default=str)
    write_bytes(stage_folder(folder, record.stage, record.key) / RECORD_FILE, text.encode() + b"\n")


def open_stage_folder(folder: Path, stage: str, key: str, *, resumes: bool, force: bool = False) -> tuple[Path, bool]:
    """Return a stage's folder, made or emptied, and whether it holds the beginning of this stage.

    Args:
        folder: Of the run.
        stage: Its name.
        key: Its key.
        resumes: The stage goes on where it stopped; else what it began is removed.
        force: Begin anew in any case.

    Raises:
        UsageError: The folder cannot be made or written.
    """
    place = stage_folder(folder, stage, key)
    try:
        (place / RECORD_FILE).unlink(missing_ok=True)  # first: what follows may be interrupted
        if resumes and not force and place.is_dir() and any(place.iterdir()):
            return place, True
        if place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True)
    except OSError as e:
        raise UsageError(f"cannot write '{place}': {e.strerror}; choose another -o.") from e
    return place, False


def publish(artifact: Path, target: Path) -> None:
    """Make an artifact appear at the top of the run's folder under a name to remember.

    A second name for the same bytes, where the file system has such; else a copy.
    """
    for suffix in ("", ".data"):  # external weights of a large .onnx lie beside it
        source, place = artifact.with_name(artifact.name + suffix), target.with_name(target.name + suffix)
        if source.is_file() and not (place.exists() and place.samefile(source)):
            write_atomically(place, functools.partial(_link, source))


def _link(source: Path, temporary: Path) -> None:
    temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the run's folder, made if it is missing, for this process alone; a killed one holds nothing.

    Raises:
        UsageError: The folder cannot be written.
        EnvironmentRefusedError: Another run works in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as e:
        raise UsageError(f"cannot write into '{folder}': {e.strerror}; choose another -o.") from e
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise EnvironmentRefusedError(
                f"another edgecv run works in '{folder}'; wait for it, or choose another -o."
            ) from e
        yield
