"""A device profile read off the machine this runs on, and a profile held against it."""

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecv.config.device import DeviceProfile, Int8Scheme
from edgecv.config.pruning import simd_lanes
from edgecv.errors import EnvironmentRefusedError
from edgecv.progress import Progress, no_progress
from edgecv.runtime.diagnosis import INT8_DOT_PRODUCTS, diagnose
from edgecv.runtime.host import cpu_flags, cpu_model, physical_cores, usable_cores

_CPUS = Path("/sys/devices/system/cpu")
_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}
_CLOCK_SLACK = 0.1  # a data sheet's boost clock and the kernel's differ by less
_MEMORY_SLACK = 0.15  # firmware and kernel keep some of what is sold


@dataclass(frozen=True, slots=True)
class FactCheck:
    """One fact of a profile beside the machine's.

    Attributes:
        fact: The profile's key.
        stated: What the profile says.
        found: What the machine says; empty where it does not tell.
        agrees: None where one of them says nothing.
    """

    fact: str
    stated: str
    found: str
    agrees: bool | None


def probe_machine(name: str, *, progress: Progress = no_progress) -> DeviceProfile:
    """Return a profile of this machine: what the kernel tells, and the providers that really start.

    Raises:
        EnvironmentRefusedError: There is no ONNX Runtime here that runs anything.
    """
    found = diagnose(progress=progress)
    providers = tuple(p.name for p in found.providers if p.status == "starts")
    if not providers or not found.owners:
        raise EnvironmentRefusedError("no provider starts on this machine, so it has no profile; see: edgecv doctor")
    version = ".".join(found.owners[0].version.split(".")[:2])
    opset, ir_version = _limits(version)
    isa = tuple(cpu_flags())
    big, little = core_kinds()
    dot = machine_arch() == "aarch64" or bool(set(INT8_DOT_PRODUCTS) & set(isa))
    return DeviceProfile(
        schema=1,
        name=name,
        title=cpu_model(),
        arch=machine_arch(),
        isa=isa,
        providers=providers,
        threads=usable_cores(),
        onnxruntime=version,
        sources=(
            "isa, cores, clock_mhz, memory_mib: read off the machine by edgecv devices probe",
            "onnxruntime, providers: installed and started by edgecv devices probe",
            "simd_channels: width of the widest register among isa",
        ),
        cores=physical_cores() or 0,
        big_cores=big if little else 0,
        little_cores=little,
        clock_mhz=clock_mhz(),
        memory_mib=memory_mib(),
        simd_channels=simd_lanes(isa),
        opset_max=opset,
        ir_max=ir_version,
        int8=Int8Scheme(
            weights_range="full" if dot else "pairs",
            sources=("by isa: int8 dot products add in 32 bits, AVX2 alone in 16",),
            unmeasured=("activations", "weights_range"),
        ),
    )


def check_profile(profile: DeviceProfile, machine: DeviceProfile) -> list[FactCheck]:
    """Hold a profile against what :func:`probe_machine` found."""
    return [
        _check("arch", profile.arch, machine.arch, lambda: profile.arch == machine.arch),
        _check("isa", ", ".join(profile.isa), ", ".join(machine.isa), lambda: set(profile.isa) <= set(machine.isa)),
        _check("cores", profile.cores, machine.cores, lambda: profile.cores == machine.cores),
        _check("big_cores", profile.big_cores, machine.big_cores, lambda: profile.big_cores == machine.big_cores),
        _check(
            "clock_mhz",
            profile.clock_mhz,
            machine.clock_mhz,
            lambda: abs(profile.clock_mhz - machine.clock_mhz) <= _CLOCK_SLACK * profile.clock_mhz,
        ),
        _check(
            "memory_mib",
            profile.memory_mib,
            machine.memory_mib,
            lambda: machine.memory_mib >= (1 - _MEMORY_SLACK) * profile.memory_mib,
        ),
        _check(
            "providers",
            ", ".join(profile.providers),
            ", ".join(machine.providers),
            lambda: profile.providers[:1] == () or profile.providers[0] in machine.providers,
        ),
        _check("threads", profile.threads, machine.threads, lambda: profile.threads <= machine.threads),
        _check(
            "onnxruntime",
            "–".join(filter(None, (profile.onnxruntime, profile.onnxruntime_newest))),
            machine.onnxruntime,
            lambda: _in_range(profile, machine.onnxruntime),
        ),
        _check("simd_channels", profile.simd_channels, machine.simd_channels,
               lambda: profile.simd_channels <= machine.simd_channels),
        _check(
            "int8.weights_range",
            profile.int8.weights_range,
            machine.int8.weights_range,
            lambda: profile.int8.weights_range == "pairs" or machine.int8.weights_range == "full",
        ),
    ]  # fmt: skip


def machine_arch() -> str:
    """Return this machine's architecture in the profiles' words."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def memory_mib() -> int:
    """Return the main memory in MiB; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (OSError, ValueError):
        return 0


def clock_mhz(root: Path = _CPUS) -> int:
    """Return the highest clock of any CPU in MHz; 0 where the kernel does not tell, as in most virtual machines."""
    return max((khz // 1000 for khz in _numbers(root, "cpufreq/cpuinfo_max_freq")), default=0)


def core_kinds(root: Path = _CPUS) -> tuple[int, int]:
    """Return how many cores are of the fastest kind and how many are not, by the kernel's ``cpu_capacity``.

    Where the kernel tells none (cores all alike, or not ARM) both are 0.
    """
    capacities = _numbers(root, "cpu_capacity")
    fastest = sum(c == max(capacities) for c in capacities)
    return fastest, len(capacities) - fastest


def _limits(version: str) -> tuple[int, int]:
    """Return the opset and IR limits, or zeros on a device without the onnx package, which their table imports."""
    if importlib.util.find_spec("onnx") is None:
        return 0, 0
    from edgecv.graph.opset import limits_of

    return limits_of(version)


def _numbers(root: Path, name: str) -> list[int]:
    found = []
    for folder in root.glob("cpu[0-9]*"):
        try:
            found.append(int((folder / name).read_text()))
        except (OSError, ValueError):
            continue
    return found


def _check(fact: str, stated: object, found: object, agree: Callable[[], bool]) -> FactCheck:
    known = bool(stated) and bool(found)
    return FactCheck(fact, str(stated or ""), str(found or ""), agree() if known else None)


def _in_range(profile: DeviceProfile, version: str) -> bool:
    low, high, own = (_release(v) for v in (profile.onnxruntime, profile.onnxruntime_newest or "9999.0", version))
    return low <= own <= high


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
