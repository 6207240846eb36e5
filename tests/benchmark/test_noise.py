import os
from pathlib import Path

import pytest

from edgecv.benchmark import noise
from edgecv.benchmark.noise import Noise, NoiseWatch, reasons

QUIET = Noise(10.0, (0.1, 0.1), 0.0, 0.0, (2000.0, 2000.0), 0, 0, 50.0)
TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc, /sys and cgroup tree of our own."""
    for name in ("_PROC", "_CPUS", "_THERMAL", "_CGROUP"):
        monkeypatch.setattr(noise, name, tmp_path)
    return tmp_path


def write_machine(root: Path, busy_s: float, steal_s: float, total_s: float, ours_s: float = 0.0) -> None:
    idle = total_s - busy_s - steal_s
    ticks = [int(x * TICK) for x in (busy_s, 0, 0, idle, 0, 0, 0, steal_s)]
    (root / "stat").write_text(f"cpu  {' '.join(map(str, ticks))} 0 0\ncpu0 1 2 3\n")
    (root / str(os.getpid())).mkdir(exist_ok=True)
    fields = ["S", *["0"] * 10, str(int(ours_s * TICK)), "0", *["0"] * 20]
    (root / str(os.getpid()) / "stat").write_text(f"{os.getpid()} (a (b) c) {' '.join(fields)}\n")


def test_work_of_others_is_what_is_busy_and_not_ours(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 110.0])
    monkeypatch.setattr(noise.time, "monotonic", lambda: next(now))
    write_machine(machine, busy_s=50, steal_s=1, total_s=200, ours_s=5)
    watch = NoiseWatch()
    write_machine(machine, busy_s=65, steal_s=3, total_s=220, ours_s=15)
    seen = watch.finish()
    assert seen.seconds == 10.0
    assert seen.other_work_cores == pytest.approx(0.5)  # 15 s busy, 10 s of them ours, in 10 s
    assert seen.steal_share == pytest.approx(0.1)  # 2 s of 20


def test_clocks_heat_and_quota_are_read_where_they_are(machine: Path) -> None:
    write_machine(machine, 1, 0, 10)
    for folder in ("cpu0/cpufreq", "cpu0/thermal_throttle", "thermal_zone0"):
        (machine / folder).mkdir(parents=True)
    clock, heat = machine / "cpu0/cpufreq/scaling_cur_freq", machine / "thermal_zone0/temp"
    throttled, quota = machine / "cpu0/thermal_throttle/core_throttle_count", machine / "cpu.stat"
    clock.write_text("2400000\n")
    heat.write_text("61000\n")
    throttled.write_text("3\n")
    quota.write_text("nr_periods 9\nnr_throttled 1\n")
    watch = NoiseWatch()
    watch.sample()
    clock.write_text("1200000\n")
    throttled.write_text("5\n")
    quota.write_text("nr_periods 99\nnr_throttled 8\n")
    seen = watch.finish()
    assert seen.clock_mhz == (1200.0, 2400.0)
    assert (seen.temperature_c, seen.throttle_events, seen.quota_throttled) == (61.0, 2, 7)


def test_machine_that_tells_nothing_gives_nothing_rather_than_zero(machine: Path) -> None:
    seen = NoiseWatch().finish()
    told = (seen.other_work_cores, seen.steal_share, seen.clock_mhz, seen.throttle_events, seen.quota_throttled)
    assert told == (None,) * 5
    assert seen.temperature_c is None
    assert reasons(seen) == []


def test_this_machine_can_be_watched() -> None:
    seen = NoiseWatch().finish()
    assert seen.seconds > 0
    assert seen.other_work_cores is None or seen.other_work_cores >= 0


def test_quiet_machine_gives_no_reason() -> None:
    assert reasons(QUIET) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"other_work_cores": 1.25}, "1.2 cores busy"),
        ({"steal_share": 0.05}, "5% of the CPU time"),
        ({"clock_mhz": (1200.0, 2400.0)}, "between 1200 and 2400 MHz"),
        ({"throttle_events": 4}, "heat 4 times"),
        ({"quota_throttled": 7}, "quota ran out in 7"),
    ],
)
def test_each_disturbance_is_a_reason_in_words(change: dict[str, object], words: str) -> None:
    from dataclasses import replace

    (reason,) = reasons(replace(QUIET, **change))  # type: ignore[arg-type]
    assert words in reason
