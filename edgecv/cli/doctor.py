"""``edgecv doctor``: what this machine has and what must be mended."""

from typing import TYPE_CHECKING

import typer

from edgecv.cli.options import Debug, Json, Quiet, Seed
from edgecv.cli.output import emit, progress_bar

if TYPE_CHECKING:
    from edgecv.runtime.diagnosis import Diagnosis


def doctor(as_json: Json = False, quiet: Quiet = False, seed: Seed = 0, debug: Debug = False) -> None:
    """Show ONNX Runtime, the providers that really start, CPU and cores; each problem with its fix.

    Exit code 3 when something must be mended before models run.
    """
    from dataclasses import asdict

    from edgecv.errors import EnvironmentRefusedError
    from edgecv.runtime.diagnosis import diagnose
    from edgecv.runtime.host import host_facts

    with progress_bar(as_json=as_json, quiet=quiet) as progress:
        found = diagnose(progress=progress)
    broken = sum(p.broken for p in found.problems)
    verdict = f"ready to run models on: {', '.join(p.name for p in found.providers if p.status == 'starts')}"
    if broken:
        verdict = f"{broken} thing{'s' if broken > 1 else ''} to mend before models run"
    emit(
        {"verdict": verdict, "broken": broken, **asdict(found)}
        | host_facts(n=len(found.providers), seed=seed, threads=found.cores.usable),
        as_json=as_json,
        quiet=quiet,
        tables=_tables(found),
        notes=_problem_lines(found),
        verdict=verdict,
        next_command="" if broken else "edgecv export MODEL",
    )
    if broken:
        raise typer.Exit(EnvironmentRefusedError.exit_code)


def _tables(found: "Diagnosis") -> list[tuple[str, list[str], list[list[str]]]]:
    from edgecv.runtime.diagnosis import PARTS

    cores = found.cores
    limits = {"affinity": cores.affinity, "cgroup quota": cores.cgroup_quota, "physical": cores.physical}
    limit_text = ", ".join(f"{name} {value or 'none'}" for name, value in limits.items())
    machine = [
        ["ONNX Runtime", ", ".join(f"{o.name} {o.version}" for o in found.owners) or "none"],
        ["CPU", f"{found.cpu} ({found.machine})"],
        ["instructions", ", ".join(found.cpu_flags) or "none of those that matter here"],
        ["int8 dot product", "yes" if found.int8_dot_product else "no: int8 sums saturate at 16 bits here"],
        ["cores usable", f"{cores.usable} ({limit_text})"],
    ]
    packages = [
        [
            part,
            ", ".join(f"{d} {found.packages[d]}" for d in needed if d in found.packages) or "-",
            install if part in found.missing else "complete",
        ]
        for part, (install, needed) in PARTS.items()
    ]
    # Why one does not start stands below the tables, with what it needs.
    providers = [[p.name, p.status, "" if p.status == "does not start" else p.detail] for p in found.providers]
    return [
        ("", ["machine", ""], machine),
        ("", ["provider", "status", "how to get it"], providers),
        ("", ["to do", "installed", "missing"], packages),
    ]


def _problem_lines(found: "Diagnosis") -> list[str]:
    lines = []
    for problem in found.problems:
        lines.append(f"{'broken' if problem.broken else 'note'}: {problem.what}")
        lines += [f"    fix: {command}" for command in problem.fix]
    return lines
