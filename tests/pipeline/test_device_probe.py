"""A profile read off this machine, and others held against it."""

import platform
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.config.device import DeviceProfile, load_device
from edgecv.pipeline.device_probe import check_profile, clock_mhz, core_kinds, probe_machine
from edgecv.runtime.host import cpu_flags, usable_cores


@pytest.fixture(scope="module")
def machine() -> DeviceProfile:
    return probe_machine("mine")


def test_this_machine_is_described_by_what_it_has(machine: DeviceProfile) -> None:
    assert (machine.name, machine.threads) == ("mine", usable_cores())
    assert machine.isa == tuple(cpu_flags())
    assert "cpu" in machine.providers
    assert machine.memory_mib > 0
    if platform.machine() == "x86_64":
        assert machine.arch == "x86_64"
        assert machine.simd_channels in (8, 16)


def test_a_machine_agrees_with_its_own_profile(machine: DeviceProfile) -> None:
    checks = {c.fact: c.agrees for c in check_profile(machine, machine)}
    assert not [fact for fact, agrees in checks.items() if agrees is False]
    assert checks["arch"] is checks["memory_mib"] is True


@pytest.mark.parametrize(
    ("fact", "changes"),
    [
        ("arch", {"arch": "wasm32"}),
        ("isa", {"isa": ("simd128",)}),
        ("cores", {"cores": 999}),
        ("memory_mib", {"memory_mib": 1 << 30}),
        ("providers", {"providers": ("dml", "cpu")}),
        ("threads", {"threads": 999}),
        ("onnxruntime", {"onnxruntime": "99.0"}),
        ("onnxruntime", {"onnxruntime": "1.14", "onnxruntime_newest": "1.15"}),
        ("simd_channels", {"simd_channels": 64}),
    ],
)
def test_each_contradiction_is_named_alone(machine: DeviceProfile, fact: str, changes: dict[str, object]) -> None:
    machine = replace(machine, cores=machine.cores or 1)
    wrong = [c.fact for c in check_profile(replace(machine, **changes), machine) if c.agrees is False]
    assert wrong == [fact]


def test_full_range_weights_need_dot_products(machine: DeviceProfile) -> None:
    plain, vnni = load_device("x86-avx2"), load_device("x86-vnni")
    found = {c.fact: c.agrees for c in check_profile(vnni, plain)}
    assert found["int8.weights_range"] is False
    assert {c.fact: c.agrees for c in check_profile(plain, vnni)}["int8.weights_range"] is True


def test_kinds_of_cores_and_clocks_are_read_as_the_kernel_tells_them(tmp_path: Path) -> None:
    assert (core_kinds(tmp_path), clock_mhz(tmp_path)) == ((0, 0), 0)
    for number, (capacity, khz) in enumerate([(1024, 2_400_000), (1024, 2_400_000), (446, 1_800_000)]):
        folder = tmp_path / f"cpu{number}"
        (folder / "cpufreq").mkdir(parents=True)
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
        (folder / "cpufreq" / "cpuinfo_max_freq").write_text(f"{khz}\n")
    (tmp_path / "cpuidle").mkdir()
    assert (core_kinds(tmp_path), clock_mhz(tmp_path)) == ((2, 1), 2400)
