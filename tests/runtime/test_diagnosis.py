"""What the doctor finds, on fabricated installations and on this machine."""

from pathlib import Path

import pytest

from edgecv.runtime import diagnosis
from edgecv.runtime.diagnosis import diagnose, owner_problems
from edgecv.runtime.owners import Owner
from edgecv.runtime.probe import ProbeResult


def install(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text("onnxruntime/__init__.py,sha256=abc,1\n")


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "installed_providers", lambda: (("cpu", "cuda"), ""))
    monkeypatch.setattr(
        diagnosis,
        "probe_provider",
        lambda name: ProbeResult(name, name == "cpu", "" if name == "cpu" else "libcublasLt.so.13 is missing", 0.1),
    )


def test_this_machine_is_healthy_and_its_providers_were_tried() -> None:
    told: list[tuple[int, int]] = []
    found = diagnose(progress=lambda label, done, total: told.append((done, total)))
    assert not found.is_broken
    assert {p.name: p.status for p in found.providers}["cpu"] == "starts"
    assert found.cores.usable >= 1
    assert found.packages["numpy"]
    assert told[-1][0] == told[-1][1]


@pytest.mark.usefixtures("no_children")
def test_clash_gives_the_two_commands_that_mend_it(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1")
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    found = diagnose(path=[str(tmp_path)])
    assert found.is_broken
    clash = found.problems[0]
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 install the same files" in clash.what
    assert clash.fix[0] == "pip uninstall -y onnxruntime onnxruntime-gpu"
    assert clash.fix[1].startswith("pip install 'edgecv[")


def test_no_owner_is_broken_and_no_provider_is_tried(tmp_path: Path) -> None:
    found = diagnose(path=[str(tmp_path)])
    assert found.is_broken
    assert found.providers == ()
    assert "pip install 'edgecv[cpu]'" in found.problems[0].fix[0]


@pytest.mark.usefixtures("no_children")
def test_accelerator_that_does_not_start_is_a_note_not_a_break(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    found = diagnose(path=[str(tmp_path)])
    assert not found.is_broken
    assert [(p.what, p.broken) for p in found.problems] == [("libcublasLt.so.13 is missing", False)]


def test_damaged_onnxruntime_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "onnxruntime", "1.31.1")
    monkeypatch.setattr(diagnosis, "installed_providers", lambda: ((), "its files are gone"))
    found = diagnose(path=[str(tmp_path)])
    assert found.is_broken
    assert "does not load: its files are gone" in found.problems[0].what


def test_one_owner_is_no_problem() -> None:
    assert owner_problems([Owner("onnxruntime", "1.31.1")]) == []


def test_missing_parts_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(diagnosis, "package_versions", lambda *names: {"numpy": "2.0", "torch": "2.9"})
    found = diagnose(path=[str(tmp_path)])
    assert found.missing["quantize, inspect, verify"] == ("onnx", "onnx-ir")
    assert "torch" not in found.missing["export, train, distill"]


def test_every_install_line_names_an_extra_that_holds_what_is_needed() -> None:
    import tomllib

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    optional = extras["optional-dependencies"]
    for line, needed in diagnosis.PARTS.values():
        listed = optional[line.partition("[")[2].partition("]")[0]] if line else extras["dependencies"]
        names = {requirement.partition(">")[0].partition("=")[0] for requirement in listed}
        assert set(needed) <= names
