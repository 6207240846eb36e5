"""What this machine has for running models, what is wrong with it, and the command that mends it."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import cgroup_quota_cores, cpu_flags, cpu_model, package_versions, physical_cores, usable_cores
from edgecv.runtime.owners import INSTALL_HINT, MEND_HINT, Owner, mending_commands, onnxruntime_owners
from edgecv.runtime.probe import installed_providers, probe_provider
from edgecv.runtime.providers import PROVIDERS, install_line
from edgecv.runtime.session import DOCTOR_HINT

PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run, bench, predict": ("", ("numpy", "pillow", "rich", "typer")),
    "quantize, inspect, verify": ("pip install 'edgecv[tools]'", ("onnx", "onnx-ir")),
    "export, train, distill": (
        "pip install 'edgecv[train]'",
        ("torch", "torchvision", "timm", "onnxscript", "safetensors"),
    ),
}
"""What each part of edgecv needs: part -> (install line, distributions)."""

INT8_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Any of these adds four 8-bit products without saturating; AVX2 alone saturates at 16 bits."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong.

    Attributes:
        what: What, in one clause.
        fix: What to type or get, in order.
        broken: Nothing runs, or the wrong thing does, until it is mended.
    """

    what: str
    fix: tuple[str, ...]
    broken: bool


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """A provider and what was found: ``starts``, ``does not start`` or ``not installed``; detail says why or how."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores this process may use, and by which limit; None where there is no such limit or it cannot be read."""

    usable: int
    affinity: int | None
    cgroup_quota: float | None
    physical: int | None
    logical: int | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything ``edgecv doctor`` reports."""

    owners: tuple[Owner, ...]
    providers: tuple[ProviderStatus, ...]
    packages: dict[str, str]
    missing: dict[str, tuple[str, ...]]
    cpu: str
    machine: str
    cpu_flags: tuple[str, ...]
    int8_dot_product: bool
    cores: Cores
    problems: tuple[Problem, ...]

    @property
    def is_broken(self) -> bool:
        """Whether something must be mended before models run."""
        return any(p.broken for p in self.problems)


def diagnose(*, path: Sequence[str] | None = None, progress: Progress = no_progress) -> Diagnosis:
    """Look at ONNX Runtime, its providers, the CPU, the cores and the packages; import none of them here.

    Args:
        path: Folders to look for distributions in, instead of ``sys.path``.
        progress: Told about each provider tried.
    """
    owners = tuple(onnxruntime_owners(path))
    problems = owner_problems(owners)
    providers: tuple[ProviderStatus, ...] = ()
    if owners:
        providers, provider_problems = _try_providers(owners, progress)
        problems += provider_problems
    needed = [d for _, distributions in PARTS.values() for d in distributions]
    packages = package_versions(*needed)
    flags = tuple(cpu_flags())
    return Diagnosis(
        owners=owners,
        providers=providers,
        packages=packages | _plugin_versions(),
        missing={
            part: absent for part, (_, ds) in PARTS.items() if (absent := tuple(d for d in ds if d not in packages))
        },
        cpu=cpu_model(),
        machine=platform.machine(),
        cpu_flags=flags,
        int8_dot_product=any(f in INT8_DOT_PRODUCTS for f in flags),
        cores=_cores(),
        problems=tuple(problems),
    )


def owner_problems(owners: Sequence[Owner]) -> list[Problem]:
    """Return what is wrong with the set of distributions that own the module ``onnxruntime``: none or several."""
    if not owners:
        return [Problem("ONNX Runtime is not installed", (INSTALL_HINT,), broken=True)]
    if len(owners) > 1:
        names = " and ".join(f"{o.name} {o.version}" for o in owners)
        what = f"{names} install the same files: the last one installed hides the other, removing either breaks both"
        return [Problem(what, mending_commands(owners), broken=True)]
    return []


def _try_providers(owners: Sequence[Owner], progress: Progress) -> tuple[tuple[ProviderStatus, ...], list[Problem]]:
    installed, reason = installed_providers()
    if not installed:
        what = f"ONNX Runtime does not load: {reason.partition(MEND_HINT)[0]}"
        return (), [Problem(what, mending_commands(owners), broken=True)]
    statuses, problems = [], []
    for name in PROVIDERS:
        if name not in installed:
            statuses.append(ProviderStatus(name, "not installed", install_line(name, owners)))
            continue
        progress("providers tried", len([s for s in statuses if s.status != "not installed"]), len(installed))
        result = probe_provider(name)
        reason = result.reason.removesuffix(DOCTOR_HINT).rstrip("; ")
        statuses.append(ProviderStatus(name, "starts" if result.started else "does not start", reason))
        if not result.started:
            what, _, needs = reason.partition("; it needs ")
            problems.append(Problem(what, (f"it needs {needs}",) if needs else (), broken=name == "cpu"))
    progress("providers tried", len(installed), len(installed))
    return tuple(statuses), problems


def _plugin_versions() -> dict[str, str]:
    """Return the plugin packages installed, by the module that PROVIDERS names."""
    modules = {p.plugin for p in PROVIDERS.values() if p.plugin}
    owners = metadata.packages_distributions()
    return package_versions(*(name for module in sorted(modules) for name in owners.get(module, ())))


def _cores() -> Cores:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return Cores(usable_cores(), affinity, cgroup_quota_cores(), physical_cores(), os.cpu_count())
