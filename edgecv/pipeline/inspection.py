"""What is in a model file: layers and what they cost, operators and where they run, sums that may saturate."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv.runtime.host import host_facts
from edgecv.runtime.providers import PROVIDERS
from edgecv.runtime.session import open_session

if TYPE_CHECKING:
    from edgecv.graph.portability import Obstacle
    from edgecv.graph.summary import Summary


@dataclass(frozen=True, slots=True)
class Inspection:
    """One model file.

    Attributes:
        model: Its path.
        bytes: Size of the file.
        opset: Version of the default operator set.
        ir_version: Version of the file format.
        inputs: Name to ``type[shape]``.
        outputs: As ``inputs``.
        operators: Operator to how often it occurs, most frequent first; ``domain::name`` outside the default domain.
        weights: Element type to the number of arrays, elements and bytes stored in it.
        summary: Parameters, MACs, memory and receptive field by layer and in total.
        placed: Operator to provider to the number of nodes ONNX Runtime gives it, before its fusions.
        obstacles: Where the file will not run, see :mod:`edgecv.graph.portability`.
        stages: Steps of edgecv that made the file, by its manifest; None without one.
        coverage: Nodes by arithmetic in the graph ONNX Runtime runs (``edgecv.quantize.coverage``).
        saturation: See ``edgecv.quantize.saturation.SaturationAudit.as_dict``; None when not asked for.
        saturation_line: The same for people.
        host: Versions and machine.
    """

    model: str
    bytes: int
    opset: int
    ir_version: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    weights: dict[str, dict[str, int]]
    summary: "Summary"
    placed: dict[str, dict[str, int]]
    obstacles: "tuple[Obstacle, ...]"
    stages: tuple[str, ...] | None
    coverage: dict[str, int]
    saturation: dict[str, Any] | None
    saturation_line: str
    host: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return asdict(self)


def inspect_model(
    path: Path, *, saturation: bool = False, provider: str = "cpu", batch: int = 1, seed: int = 0
) -> Inspection:
    """Read a model and describe it.

    Args:
        path: An ONNX file, with a manifest or without.
        saturation: Add the audit of sums on x86 without VNNI.
        provider: Which to ask for what it takes, see :mod:`edgecv.runtime.providers`.
        batch: Images that costs are counted for.
        seed: For the record; nothing here is random.

    Raises:
        UsageError: Not a readable ONNX file, or ONNX Runtime refuses it.
        EnvironmentRefusedError: The ``tools`` extra is not installed, or the provider cannot be had here.
    """
    from edgecv.pipeline.export import require_extra

    require_extra("tools", "onnx", "onnx_ir")
    from edgecv.config.device import known_devices
    from edgecv.graph.model_file import load_model, read_manifest
    from edgecv.graph.portability import find_obstacles
    from edgecv.graph.summary import summarise
    from edgecv.quantize.coverage import measure_coverage
    from edgecv.quantize.saturation import audit_saturation, describe_audit

    model = load_model(path)
    manifest = read_manifest(model, path)
    audit = audit_saturation(model) if saturation else None
    return Inspection(
        model=str(path),
        bytes=path.stat().st_size,
        opset=model.opset_imports.get("", 0),
        ir_version=model.ir_version or 0,
        inputs={str(v.name): _described(v) for v in model.graph.inputs},
        outputs={str(v.name): _described(v) for v in model.graph.outputs},
        operators=dict(_operators(model).most_common()),
        weights=_weights(model),
        summary=summarise(model, batch),
        placed=_placed(path, provider, model),
        obstacles=find_obstacles(model, known_devices()),
        stages=None if manifest is None else tuple(str(stage["name"]) for stage in manifest.stages),
        coverage=measure_coverage(model).as_dict(),
        saturation=None if audit is None else audit.as_dict(),
        saturation_line="" if audit is None else describe_audit(audit),
        host=host_facts(threads=1, seed=seed, n=batch),
    )


def _described(value: Any) -> str:
    shape = "?" if value.shape is None else ", ".join(str(d) for d in value.shape)
    return f"{'?' if value.dtype is None else str(value.dtype).lower()}[{shape}]"


def _operators(model: Any) -> Counter[str]:
    from edgecv.graph.summary import operator_name

    return Counter(operator_name(n) for n in model.graph.all_nodes())


def _placed(path: Path, policy: str, model: Any) -> dict[str, dict[str, int]]:
    """Return operator to provider to nodes; on the CPU alone without asking, for it runs all there is."""
    session = open_session(path, provider=policy, threads=1)
    if session.providers == ("cpu",):
        return {name: {"cpu": count} for name, count in _operators(model).most_common()}
    try:
        assigned = session.session.get_provider_graph_assignment_info()
    except Exception:  # absent from older versions of ONNX Runtime
        return {}
    short = {p.ort_name: name for name, p in PROVIDERS.items()}
    counts: dict[str, Counter[str]] = {}
    for group in assigned:
        for node in group.get_nodes():
            counts.setdefault(node.op_type, Counter())[short.get(group.ep_name, group.ep_name)] += 1
    return {name: dict(row.most_common()) for name, row in sorted(counts.items(), key=lambda i: -i[1].total())}


def _weights(model: Any) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        row = found.setdefault(str(tensor.dtype).lower(), {"arrays": 0, "elements": 0, "bytes": 0})
        row["arrays"] += 1
        row["elements"] += tensor.size
        row["bytes"] += tensor.nbytes
    return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))
