"""Where the time goes: by operator, by layer and by provider, from ONNX Runtime's own profile."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgecv.errors import UsageError

COPY_OPERATORS = ("MemcpyToHost", "MemcpyFromHost")
"""Nodes ONNX Runtime inserts where a tensor changes device (core/optimizer/transformer_memcpy.cc)."""

_SUFFIX = "_kernel_time"
_MAX_PROFILE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Slice:
    """One row of a profile.

    Attributes:
        name: The operator, layer or provider.
        nodes: How many nodes it stands for.
        ms_per_run: Time inside its kernels, in milliseconds per run.
        share: Of all kernels' time (0..1).
        operator: The operator of a layer; empty in the other tables.
        provider: The provider of a layer; empty in the other tables.
        median_ms: Median over the runs, in milliseconds: an interruption does not move it. Of a layer; 0 in the other
            tables.
        moved_bytes: Activations a layer reads and writes in one run, as ONNX Runtime tells; 0 in the other tables.
    """

    name: str
    nodes: int
    ms_per_run: float
    share: float
    operator: str = ""
    provider: str = ""
    median_ms: float = 0.0
    moved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """Time of one run, cut three ways; each tuple is sorted by time, longest first.

    Attributes:
        runs: Runs averaged over; the first run of the session is left out.
        kernel_ms_per_run: Sum over all kernels, in milliseconds.
        run_ms: Mean duration of a whole run while profiling (slower than without).
        by_operator: ``Conv``, ``Gemm``, …
        by_layer: Node names as ONNX Runtime has them after its fusions.
        by_provider: ``CPUExecutionProvider``, …; ``nodes`` and ``share`` are what the provider really got.
        copy_nodes: Nodes that move tensors between devices.
        copy_ms_per_run: Their time.
    """

    runs: int
    kernel_ms_per_run: float
    run_ms: float
    by_operator: tuple[Slice, ...]
    by_layer: tuple[Slice, ...]
    by_provider: tuple[Slice, ...]
    copy_nodes: int
    copy_ms_per_run: float


def read_profile(path: Path) -> Profile:
    """Sum up a profile file of ONNX Runtime.

    Raises:
        UsageError: The file is not such a profile, or holds fewer than two runs.
    """
    try:
        if path.stat().st_size > _MAX_PROFILE_BYTES:
            raise UsageError(f"the profile has over {_MAX_PROFILE_BYTES} bytes; profile a smaller batch or model.")
        events = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise UsageError(f"ONNX Runtime's profile cannot be read: {e}.") from e
    return summarise(events)


def summarise(events: Iterable[Mapping[str, Any]]) -> Profile:
    """Sum up the events of a profile; see :func:`read_profile`."""
    events = list(events)
    whole = sorted((e["ts"], e["dur"]) for e in events if e.get("name") == "model_run")
    if len(whole) < 2:
        raise UsageError(f"ONNX Runtime's profile holds {len(whole)} runs, at least 2 are needed; profile again.")
    first_end = whole[0][0] + whole[0][1]
    kernels = [
        (e["name"].removesuffix(_SUFFIX), e["args"], e["dur"] / 1000)
        for e in events
        if e.get("cat") == "Node" and e["name"].endswith(_SUFFIX) and e["ts"] >= first_end
    ]
    runs = len(whole) - 1
    total = sum(ms for _, _, ms in kernels) / runs
    layers = _layers(kernels, runs, total)
    copies = [s for s in layers if s.operator in COPY_OPERATORS]
    return Profile(
        runs=runs,
        kernel_ms_per_run=total,
        run_ms=sum(duration for _, duration in whole[1:]) / 1000 / runs,
        by_operator=_grouped(layers, "operator"),
        by_layer=layers,
        by_provider=_grouped(layers, "provider"),
        copy_nodes=len(copies),
        copy_ms_per_run=sum(s.ms_per_run for s in copies),
    )


def _layers(kernels: Iterable[tuple[str, Mapping[str, Any], float]], runs: int, total: float) -> tuple[Slice, ...]:
    spent: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    moved: dict[tuple[str, str, str], int] = {}
    for name, args, ms in kernels:
        # Nameless nodes are told apart by their place in the graph.
        shown = name or f"{args.get('op_name', '?')}#{args.get('node_index', '?')}"
        key = (shown, str(args.get("op_name", "?")), str(args.get("provider", "?")))
        spent[key].append(ms)
        moved[key] = int(args.get("activation_size", 0)) + int(args.get("output_size", 0))
    rows = []
    for key, times in spent.items():
        mean = sum(times) / runs
        share = mean / total if total else 0.0
        rows.append(Slice(key[0], 1, mean, share, key[1], key[2], median(times), moved[key]))
    return tuple(sorted(rows, key=lambda s: (-s.ms_per_run, s.name)))


def _grouped(layers: Iterable[Slice], key: str) -> tuple[Slice, ...]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for layer in layers:
        groups[getattr(layer, key)].append(layer)
    rows = [
        Slice(name, len(group), sum(s.ms_per_run for s in group), sum(s.share for s in group))
        for name, group in groups.items()
    ]
    return tuple(sorted(rows, key=lambda s: (-s.ms_per_run, s.name)))
