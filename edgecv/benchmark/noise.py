"""What else the machine was doing while a benchmark ran: other work, stolen time, clock and heat."""

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CPUS = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_CGROUP = Path("/sys/fs/cgroup")

OTHER_WORK_CORES = 0.1
STEAL_SHARE = 0.01
CLOCK_SPREAD = 0.1
"""What counts as a reason for an unsteady figure: a tenth of a core of other work, 1 % of the time taken by other
guests of the host, clocks 10 % apart."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What was seen; None where this machine does not tell.

    Attributes:
        seconds: Time watched.
        load_average: One-minute load before and after.
        other_work_cores: Cores kept busy by processes that are not the benchmark.
        steal_share: Share of all cores' time that the hypervisor gave to other guests (0..1).
        clock_mhz: Slowest and fastest core clock seen.
        throttle_events: Times a core was slowed down for heat.
        quota_throttled: Scheduler periods in which this container's CPU quota ran out.
        temperature_c: Hottest sensor reading.
    """

    seconds: float
    load_average: tuple[float, float] | None
    other_work_cores: float | None
    steal_share: float | None
    clock_mhz: tuple[float, float] | None
    throttle_events: int | None
    quota_throttled: int | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True)
class _Counters:
    at_s: float
    busy_s: float | None
    steal_s: float | None
    total_s: float | None
    ours_s: float
    throttle: int | None
    quota: int | None
    load: float | None


class NoiseWatch:
    """Counters read at the start and end, clocks and temperatures sampled in between."""

    def __init__(self, pids: Sequence[int] = ()) -> None:
        """Start watching; ``pids`` and this process are the benchmark, everything else is noise."""
        self._pids = (os.getpid(), *pids)
        self._clocks: list[float] = []
        self._temperatures: list[float] = []
        self._start = _read_counters(self._pids)

    def sample(self) -> None:
        """Note the clocks and temperatures of this moment."""
        self._clocks += _clocks_mhz()
        self._temperatures += _temperatures_c()

    def finish(self) -> Noise:
        """Return what was seen since the start."""
        self.sample()
        a, b = self._start, _read_counters(self._pids)
        seconds = max(b.at_s - a.at_s, 1e-9)
        busy, total, steal = (_difference(getattr(a, k), getattr(b, k)) for k in ("busy_s", "total_s", "steal_s"))
        ours = b.ours_s - a.ours_s
        return Noise(
            seconds=seconds,
            load_average=(a.load, b.load) if a.load is not None and b.load is not None else None,
            other_work_cores=None if busy is None else max(0.0, busy - ours) / seconds,
            steal_share=None if steal is None or not total else steal / total,
            clock_mhz=(min(self._clocks), max(self._clocks)) if self._clocks else None,
            throttle_events=_whole(_difference(a.throttle, b.throttle)),
            quota_throttled=_whole(_difference(a.quota, b.quota)),
            temperature_c=max(self._temperatures, default=None),
        )


def reasons(noise: Noise) -> list[str]:
    """Return what in ``noise`` can explain an unsteady figure, in words; empty when nothing was seen."""
    found = []
    if (noise.other_work_cores or 0) > OTHER_WORK_CORES:
        found.append(f"other processes kept {noise.other_work_cores:.1f} cores busy")
    if (noise.steal_share or 0) > STEAL_SHARE:
        found.append(f"the host gave {noise.steal_share:.0%} of the CPU time to other guests")
    if noise.clock_mhz and noise.clock_mhz[1] > noise.clock_mhz[0] * (1 + CLOCK_SPREAD):
        found.append(f"core clocks moved between {noise.clock_mhz[0]:.0f} and {noise.clock_mhz[1]:.0f} MHz")
    if noise.throttle_events:
        found.append(f"cores were slowed down for heat {noise.throttle_events} times")
    if noise.quota_throttled:
        found.append(f"the container's CPU quota ran out in {noise.quota_throttled} periods")
    return found


def _read_counters(pids: Iterable[int]) -> _Counters:
    busy, steal, total = _machine_seconds()
    try:
        load: float | None = os.getloadavg()[0]
    except OSError:
        load = None
    ours = sum(_process_seconds(pid) for pid in pids)
    return _Counters(time.monotonic(), busy, steal, total, ours, _throttle_count(), _quota_count(), load)


def _machine_seconds() -> tuple[float | None, float | None, float | None]:
    """Return (busy, steal, total) CPU seconds of the whole machine since boot (proc_stat(5))."""
    try:
        fields = [int(x) for x in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None, None, None
    if len(fields) < 8 or not sum(fields):
        return None, None, None
    idle, iowait, steal = fields[3], fields[4], fields[7]
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - idle - iowait - steal) / tick, steal / tick, sum(fields) / tick


def _process_seconds(pid: int) -> float:
    """Return user + system CPU seconds of one process, 0 when it is gone or there is no /proc (proc_pid_stat(5))."""
    try:
        after_name = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _clocks_mhz() -> list[float]:
    clocks = [n / 1000 for n in _numbers(_CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    if clocks:
        return clocks
    with contextlib.suppress(OSError, ValueError):
        lines = (_PROC / "cpuinfo").read_text().splitlines()
        return [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return []


def _temperatures_c() -> list[float]:
    return [n / 1000 for n in _numbers(_THERMAL.glob("thermal_zone*/temp")) if 0 < n < 200_000]


def _throttle_count() -> int | None:
    counts = _numbers(_CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return int(sum(counts)) if counts else None


def _quota_count() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in (_CGROUP / "cpu.stat").read_text().splitlines():
            if line.startswith("nr_throttled "):
                return int(line.split()[1])
    return None


def _numbers(paths: Iterable[Path]) -> list[float]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found.append(float(path.read_text()))
    return found


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
