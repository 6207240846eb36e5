"""A benchmark on another device: runtime and models go there, the same benchmark runs there, its report comes back."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edgecv
from edgecv import errors
from edgecv.benchmark.job import REPORT
from edgecv.benchmark.report import BenchReport
from edgecv.config.device import DeviceProfile
from edgecv.devices.connection import Connection
from edgecv.devices.open import open_device
from edgecv.errors import DeviceUnreachableError, EdgecvError, EnvironmentRefusedError, UsageError
from edgecv.progress import Progress, no_progress
from edgecv.typed import build

_NEEDED = ("config", "runtime", "benchmark")
"""Folders of edgecv that a benchmark needs on the device, beside the modules at its top."""

_OLDEST_PYTHON = (3, 11)
_INSTALL = {"numpy": "numpy", "onnxruntime": "onnxruntime", "PIL": "pillow"}


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """What to time there; the fields are those of ``edgecv bench``."""

    models: tuple[Path, ...]
    providers: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[str, ...]
    preset: str
    profile: bool = False
    seed: int = 0


def bench_on_device(
    device: DeviceProfile, plan: RemotePlan, *, progress: Progress = no_progress
) -> tuple[BenchReport, list[str]]:
    """Run a benchmark on the device of a profile.

    Returns:
        The report, with this machine's names of the models and the device's facts, and sentences for the user.

    Raises:
        DeviceUnreachableError: The device cannot be reached, or was lost; nothing is left running there.
        EnvironmentRefusedError: Its Python is too old or lacks a package, or the provider cannot be had there.
        UsageError: A model cannot be read or run.
    """
    for model in plan.models:
        if model.with_name(f"{model.name}.data").is_file():
            raise UsageError(
                f"'{model}' keeps its weights in another file; only models of one file are sent to devices."
            )
    with open_device(device) as connection:
        _check_python(device, connection)
        progress("sending", 0, len(plan.models) + 1)
        runtime = _push_runtime(connection)
        there: dict[str, Path] = {}
        for done, model in enumerate(plan.models, 1):
            progress("sending", done, len(plan.models) + 1)
            there.setdefault(connection.push(model), model)
        progress("sending", len(plan.models) + 1, len(plan.models) + 1)
        report = _run(connection, runtime, list(there), plan, device.name)
        sent = connection.sent_bytes
    results = tuple(replace(r, model=str(there.get(r.model, r.model))) for r in report.results)
    what = f"{sent / 1e6:.2f} MB sent" if sent else "nothing sent, all was there"
    return replace(report, results=results), [f"measured on '{device.name}' by way of {device.connection.kind}: {what}"]


def _run(connection: Connection, runtime: str, models: Sequence[str], plan: RemotePlan, name: str) -> BenchReport:
    job = {
        "models": models,
        "providers": plan.providers,
        "batches": plan.batches,
        "threads": plan.threads,
        "preset": plan.preset,
        "profile": plan.profile,
        "seed": plan.seed,
    }
    ran = connection.run(["python", "-P", "-m", "edgecv.benchmark.job", json.dumps(job)], env={"PYTHONPATH": runtime})
    if ran.code:
        last = (ran.printed.strip().splitlines() or ["it said nothing"])[-1][:200]
        raise DeviceUnreachableError(f"the benchmark on device '{name}' ended with code {ran.code}: {last}")
    told = json.loads(connection.fetch(REPORT))
    if "error" in told:
        raise _refusal(name, told)
    return build(BenchReport, {k: v for k, v in told.items() if k not in ("schema", "kind")}, f"report of '{name}'")


def _refusal(name: str, told: dict[str, Any]) -> EdgecvError:
    kind = getattr(errors, str(told["error"]), None)
    kind = kind if isinstance(kind, type) and issubclass(kind, EdgecvError) else UsageError
    return kind(f"on device '{name}': {told['message']}")


def _check_python(device: DeviceProfile, connection: Connection) -> None:
    facts, python = connection.facts, device.connection.python
    if tuple(int(x) for x in facts.python.split(".")[:2]) < _OLDEST_PYTHON:
        raise EnvironmentRefusedError(
            f"device '{device.name}' has Python {facts.python}, at least {'.'.join(map(str, _OLDEST_PYTHON))} is "
            "needed; install a newer one there and name it in the profile: connection.python."
        )
    if facts.missing:
        packages = " ".join(_INSTALL[m] for m in facts.missing)
        raise EnvironmentRefusedError(
            f"the Python of device '{device.name}' lacks {', '.join(facts.missing)}; install there with: "
            f"{python} -m pip install {packages}"
        )


def _push_runtime(connection: Connection) -> str:
    """Send the part of edgecv that runs models; its content names it, so an unchanged one is sent once."""
    source = Path(edgecv.__file__).parent
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        package = Path(folder) / "runtime" / "edgecv"
        package.mkdir(parents=True)
        for path in source.glob("*.py"):
            shutil.copyfile(path, package / path.name)
        for name in _NEEDED:
            shutil.copytree(source / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        return connection.push(package.parent)
