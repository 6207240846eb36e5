"""Facts about the machine a figure was measured on, and how many cores this process may really use."""

import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import edgecv

_INT8_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimdhp", "asimddp", "i8mm", "bf16",
    "sve", "sme",
)  # fmt: skip


def usable_cores() -> int:
    """Return min(affinity, cgroup CPU quota, physical cores), at least 1.

    ONNX Runtime's own default counts the host's cores even inside a container with a smaller quota
    (github.com/microsoft/onnxruntime/issues/29510).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota_cores()
    limits = [allowed, physical_cores() or allowed]
    if quota is not None:
        limits.append(max(1, math.ceil(quota)))
    return max(1, min(limits))


def cgroup_quota_cores(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the CPU quota of this process's cgroup in cores, or None (kernel docs: cgroup-v2)."""
    try:
        quota, period = (root / "cpu.max").read_text().split()[:2]
        if quota != "max":
            return int(quota) / int(period)
        return None
    except (OSError, ValueError):
        pass
    try:
        v1 = root / "cpu"
        micros = int((v1 / "cpu.cfs_quota_us").read_text())
        return micros / int((v1 / "cpu.cfs_period_us").read_text()) if micros > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def physical_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """Return the number of distinct (package, core) pairs among the CPUs this process may use, or None."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    pairs = set()
    for cpu in os.sched_getaffinity(0):
        folder = topology / f"cpu{cpu}" / "topology"
        try:
            pairs.add(((folder / "physical_package_id").read_text(), (folder / "core_id").read_text()))
        except OSError:
            return None
    return len(pairs) or None


def cpu_model() -> str:
    """Return the processor's own name, or the architecture where the system does not tell."""
    for key in ("model name", "Model", "Hardware"):
        if name := _cpuinfo().get(key):
            return name
    return platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Return which instruction sets that matter to our kernels this CPU has, in /proc/cpuinfo's names."""
    present = set((_cpuinfo().get("flags") or _cpuinfo().get("Features") or "").split())
    return [f for f in _INT8_FLAGS if f in present]


def package_versions(*names: str) -> dict[str, str]:
    """Return the installed versions of the distributions among ``names``; absent ones are left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def host_facts(**extra: Any) -> dict[str, Any]:
    """Return what every report carries: versions, host, cores; ``extra`` adds threads, seed, sample size."""
    versions = package_versions("numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "onnx", "torch", "timm")
    return {
        "edgecv": edgecv.__version__,
        "python": platform.python_version(),
        "versions": versions,
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cpu_flags": cpu_flags(),
        "cores_usable": usable_cores(),
        "emulated": bool(os.environ.get("EDGECV_EMULATED")),
        **extra,
    }


def _cpuinfo() -> dict[str, str]:
    if sys.platform != "linux":
        return {}
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {k.strip(): v.strip() for k, v in pairs}
