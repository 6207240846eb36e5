"""A benchmark that runs elsewhere: here in a child process with a runtime pushed to a folder of its own."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import build_tiny_model

from edgecv.benchmark.job import run_job
from edgecv.config.device import ConnectionConfig, DeviceProfile, load_device
from edgecv.devices.connection import Connection
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.pipeline.remote_bench import RemotePlan, bench_on_device


@pytest.fixture
def profile(tmp_path: Path) -> DeviceProfile:
    return replace(load_device("rpi5"), connection=ConnectionConfig("local", folder=str(tmp_path / "device")))


def _plan(*models: Path, **changes: object) -> RemotePlan:
    fields: dict[str, object] = {
        "models": models, "providers": ("cpu",), "batches": (1,), "threads": ("1",), "preset": "rapid",
    }  # fmt: skip
    return RemotePlan(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_report_comes_back_with_this_machines_names(profile: DeviceProfile, tmp_path: Path) -> None:
    models = [build_tiny_model(tmp_path / "a.onnx"), build_tiny_model(tmp_path / "b.onnx", size=64)]
    report, notes = bench_on_device(profile, _plan(*models))
    assert [r.model for r in report.results] == [str(m) for m in models]
    assert all(r.latency_p50_ms > 0 and r.n >= 64 for r in report.results)
    assert report.results[1].speedup is not None
    assert report.host["machine"]
    assert "MB sent" in notes[0]
    assert not list((tmp_path / "device" / "jobs").iterdir())


def test_refusals_of_the_device_are_told_as_its_own(profile: DeviceProfile, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(UsageError, match=r"^on device 'rpi5': .*broken\.onnx"):
        bench_on_device(profile, _plan(broken))
    with pytest.raises(EnvironmentRefusedError, match="on device 'rpi5': provider 'acl'"):
        bench_on_device(profile, _plan(build_tiny_model(tmp_path / "a.onnx"), providers=("acl",)))
    assert not list((tmp_path / "device" / "jobs").iterdir())


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"missing": ("numpy", "PIL")}, "lacks numpy, PIL; install there with: python3 -m pip install numpy pillow"),
        ({"python": "3.9.2"}, r"has Python 3\.9\.2, at least 3\.11 is needed"),
    ],
)
def test_a_python_that_cannot_run_it_says_what_to_install(
    profile: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, object], message: str
) -> None:
    reach = Connection.__init__

    def lacking(self: Connection, line: object) -> None:
        reach(self, line)  # type: ignore[arg-type]
        self.facts = replace(self.facts, **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "__init__", lacking)
    with pytest.raises(EnvironmentRefusedError, match=message):
        bench_on_device(profile, _plan(build_tiny_model(tmp_path / "a.onnx")))


def test_weights_in_another_file_are_not_half_sent(profile: DeviceProfile, tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "a.onnx")
    model.with_name("a.onnx.data").write_bytes(b"weights")
    with pytest.raises(UsageError, match="only models of one file"):
        bench_on_device(profile, _plan(model))


def test_a_job_tells_its_error_as_data() -> None:
    job = {"models": [], "providers": ["cpu"], "batches": [1], "threads": ["1"], "preset": "rapid", "profile": False,
           "seed": 0}  # fmt: skip
    assert run_job(job)["error"] == "UsageError"
    assert "unknown preset" in run_job({**job, "models": ["x.onnx"], "preset": "no"})["message"]
