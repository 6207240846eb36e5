from pathlib import Path
from typing import Any

import pytest

from edgecv.benchmark.child import Child
from edgecv.benchmark.plan import Candidate
from edgecv.benchmark.profile import read_profile, summarise
from edgecv.errors import UsageError


def kernel(name: str, operator: str, ts: int, dur: int, provider: str = "CPUExecutionProvider") -> dict[str, Any]:
    args = {"op_name": operator, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def whole_run(ts: int, dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


EVENTS = [
    whole_run(0, 900),
    kernel("conv1", "Conv", 10, 800),  # the first run is not counted
    whole_run(1000, 100),
    kernel("conv1", "Conv", 1000, 40, "CUDAExecutionProvider"),
    kernel("conv2", "Conv", 1040, 20, "CUDAExecutionProvider"),
    kernel("Memcpy", "MemcpyToHost", 1060, 10, "CUDAExecutionProvider"),
    kernel("relu", "Relu", 1070, 10),
    whole_run(2000, 140),
    kernel("conv1", "Conv", 2000, 60, "CUDAExecutionProvider"),
    kernel("conv2", "Conv", 2060, 40, "CUDAExecutionProvider"),
    kernel("Memcpy", "MemcpyToHost", 2100, 10, "CUDAExecutionProvider"),
    kernel("relu", "Relu", 2110, 10),
    {"cat": "Node", "name": "conv1_fence_before", "ts": 2000, "dur": 5, "args": {"op_name": "Conv"}},
]


def test_time_is_summed_by_operator_layer_and_provider_without_the_first_run() -> None:
    p = summarise(EVENTS)
    assert p.runs == 2
    assert p.kernel_ms_per_run == pytest.approx(0.1)
    assert p.run_ms == pytest.approx(0.12)
    assert [(s.name, s.nodes) for s in p.by_operator] == [("Conv", 2), ("MemcpyToHost", 1), ("Relu", 1)]
    assert p.by_operator[0].ms_per_run == pytest.approx(0.08)
    assert p.by_operator[0].share == pytest.approx(0.8)
    assert [(s.name, s.operator) for s in p.by_layer[:2]] == [("conv1", "Conv"), ("conv2", "Conv")]
    assert {s.name: (s.nodes, round(s.share, 3)) for s in p.by_provider} == {
        "CUDAExecutionProvider": (3, 0.9), "CPUExecutionProvider": (1, 0.1)
    }  # fmt: skip


def test_memory_copies_are_counted() -> None:
    p = summarise(EVENTS)
    assert p.copy_nodes == 1
    assert p.copy_ms_per_run == pytest.approx(0.01)


def test_shares_sum_to_one() -> None:
    for slices in (summarise(EVENTS).by_layer, summarise(EVENTS).by_operator, summarise(EVENTS).by_provider):
        assert sum(s.share for s in slices) == pytest.approx(1.0)


def test_profile_of_one_run_is_refused() -> None:
    with pytest.raises(UsageError, match="holds 1 runs"):
        summarise(EVENTS[:2])


@pytest.mark.parametrize("content", [b"", b"[{", b"\xff\xfe"])
def test_damaged_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        read_profile(path)


def test_profile_of_onnx_runtime_is_understood(tiny_model: Path, tmp_path: Path) -> None:
    candidate = Candidate(tiny_model, threads="1")
    prefix = str(tmp_path / "ort")
    job = {"model": str(tiny_model), "provider": "cpu", "batch": 1, "threads": "1", "seed": 0, "profile_prefix": prefix}
    with Child(candidate, job) as child:
        file = Path(child.ask("profile", runs=5)["profile"])
    assert file.parent == tmp_path
    p = read_profile(file)
    assert p.runs == 5
    assert {"Conv", "Gemm", "GlobalAveragePool"} <= {s.name.removeprefix("Fused") for s in p.by_operator}
    assert [s.name for s in p.by_provider] == ["CPUExecutionProvider"]
    assert p.copy_nodes == 0
    assert 0 < p.kernel_ms_per_run <= p.run_ms
