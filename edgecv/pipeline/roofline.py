"""Roofline: how much of what the machine can do each layer reaches, and which layer to attack first.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
Communications of the ACM 52(4), 2009: a layer takes at least as long as its arithmetic at the highest rate, and at
least as long as its bytes at the highest bandwidth.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgecv.benchmark.latency import profile_candidate
from edgecv.benchmark.plan import Candidate
from edgecv.benchmark.profile import Profile
from edgecv.errors import UsageError
from edgecv.graph.cost import count_macs
from edgecv.graph.fused import behind
from edgecv.graph.model_file import load_model
from edgecv.graph.parameters import count_parameters
from edgecv.graph.shapes import fixed_shapes
from edgecv.graph.summary import node_name
from edgecv.pipeline.machine_peak import MachinePeak, measure_peak
from edgecv.progress import Progress, no_progress

_INT8 = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")


@dataclass(frozen=True, slots=True)
class RoofRow:
    """One node as ONNX Runtime runs it.

    Attributes:
        name: As in its profile.
        layer: The layer of the file behind it; empty for what does not multiply and sum.
        operator: After fusion.
        arithmetic: ``int8`` or ``float32``, whose peak it is held against.
        latency_ms: Median over the runs.
        macs: Multiply-accumulates in one run.
        moved_bytes: Activations read and written, and weights read, in one run.
        bound_ms: The least it can take: the longer of arithmetic and memory traffic at their peaks.
        bound_by: ``arithmetic`` or ``memory``.
        reached: ``bound_ms / latency_ms``; over 1 when caches give more than the memory does.
        gain_ms: What is to be won at most.
    """

    name: str
    layer: str
    operator: str
    arithmetic: str
    latency_ms: float
    macs: int
    moved_bytes: int
    bound_ms: float
    bound_by: str
    reached: float
    gain_ms: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """Every node, the one with most to win first.

    Attributes:
        peak: What it is held against.
        rows: By ``gain_ms``, largest first.
        kernel_ms: Time of all nodes, in milliseconds a run.
        bound_ms: What all would take at the roof.
        matched: Share of the file's MACs whose time was found (0..1).
        runs: Profiled runs.
    """

    peak: MachinePeak
    rows: tuple[RoofRow, ...]
    kernel_ms: float
    bound_ms: float
    matched: float
    runs: int


def measure_roofline(
    path: Path,
    *,
    provider: str = "cpu",
    threads: str = "auto",
    batch: int = 1,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Roofline:
    """Measure the machine's peaks and a model's profile, and set one against the other.

    Raises:
        UsageError: The model cannot be read or run, or the provider is not the CPU, whose peak alone is measured.
    """
    if provider != "cpu":
        raise UsageError(f"--roofline measures the CPU's peak and cannot judge '{provider}'; leave --provider out.")
    graph = fixed_shapes(load_model(path), batch)
    peak = measure_peak(threads if threads == "auto" else int(threads), seed=seed, progress=progress)
    profile = profile_candidate(Candidate(path, provider, batch, threads), seed)
    return place_under_roof(graph, profile, peak)


def place_under_roof(graph: ir.Model, profile: Profile, peak: MachinePeak) -> Roofline:
    """Set every node of a profile against the peaks; ``graph`` has shapes of the profiled batch."""
    macs, parameters = count_macs(graph), count_parameters(graph)
    behind_node = behind(graph, [(row.name, row.operator) for row in profile.by_layer])
    rows = []
    for row in profile.by_layer:
        layer = behind_node.get(row.name)
        count = macs.get(layer, 0) if layer is not None else 0
        weights = parameters[layer].bytes if layer is not None and layer in parameters else 0
        arithmetic = "int8" if row.operator.startswith(_INT8) else "float32"
        rate = peak.int8_gmacs if arithmetic == "int8" else peak.float32_gmacs
        moved = row.moved_bytes + weights
        computing, moving = count / rate / 1e6, moved / peak.memory_gb_s / 1e6
        bound = max(computing, moving)
        rows.append(
            RoofRow(
                name=row.name,
                layer="" if layer is None else node_name(layer),
                operator=row.operator,
                arithmetic=arithmetic,
                latency_ms=row.median_ms,
                macs=count,
                moved_bytes=moved,
                bound_ms=bound,
                bound_by="arithmetic" if computing >= moving else "memory",
                reached=bound / row.median_ms if row.median_ms else 0.0,
                gain_ms=max(0.0, row.median_ms - bound),
            )
        )
    total = sum(macs.values())
    return Roofline(
        peak=peak,
        rows=tuple(sorted(rows, key=lambda r: (-r.gain_ms, r.name))),
        kernel_ms=sum(r.latency_ms for r in rows),
        bound_ms=sum(r.bound_ms for r in rows),
        matched=sum(r.macs for r in rows) / total if total else 1.0,
        runs=profile.runs,
    )


def gain_by_operator(rows: Iterable[RoofRow]) -> list[tuple[str, float, float]]:
    """Return ``(operator, time, gain)`` in milliseconds, largest gain first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        sums[row.operator][0] += row.latency_ms
        sums[row.operator][1] += row.gain_ms
    return sorted(((name, t, g) for name, (t, g) in sums.items()), key=lambda item: -item[2])
