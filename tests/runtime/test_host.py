"""How many cores this process may really use, from fabricated system folders."""

import os
from pathlib import Path

import pytest

from edgecv.runtime import host
from edgecv.runtime.host import cgroup_quota_cores, host_facts, package_versions, physical_cores, usable_cores


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("garbage\n", None)])
def test_quota_of_cgroup_v2(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cgroup_quota_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("50000", 0.5), ("-1", None)])
def test_quota_of_cgroup_v1(tmp_path: Path, quota: str, cores: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cgroup_quota_cores(tmp_path) == cores


def test_no_cgroup_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota_cores(tmp_path) is None


def test_two_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    for cpu in range(4):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0")
        (folder / "core_id").write_text(str(cpu // 2))
    assert physical_cores(tmp_path) == 2
    assert physical_cores(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("affinity", "quota", "physical", "usable"),
    [(8, None, 4, 4), (8, 1.5, 4, 2), (8, 0.2, 4, 1), (2, None, None, 2), (3, 100.0, 64, 3)],
)
def test_the_smallest_limit_counts(
    affinity: int, quota: float | None, physical: int | None, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
    monkeypatch.setattr(host, "cgroup_quota_cores", lambda: quota)
    monkeypatch.setattr(host, "physical_cores", lambda: physical)
    assert usable_cores() == usable


def test_facts_carry_versions_host_and_what_is_added() -> None:
    facts = host_facts(threads=2, seed=0, n=5)
    assert facts["versions"]["numpy"]
    assert (facts["threads"], facts["seed"], facts["n"]) == (2, 0, 5)
    assert facts["cores_usable"] >= 1


def test_absent_packages_are_left_out() -> None:
    assert package_versions("numpy", "no-such-package").keys() == {"numpy"}
