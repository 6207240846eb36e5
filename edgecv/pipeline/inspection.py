"""What is in a model file: operators, weights, the arithmetic ONNX Runtime runs it in, sums that may saturate."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecv.runtime.host import host_facts


@dataclass(frozen=True, slots=True)
class Inspection:
    """One model file.

    Attributes:
        model: Its path.
        bytes: Size of the file.
        opset: Version of the default operator set.
        inputs: Name to ``type[shape]``.
        outputs: As ``inputs``.
        operators: Operator to how often it occurs, most frequent first; ``domain::name`` outside the default domain.
        weights: Element type to the number of arrays, elements and bytes stored in it.
        stages: Steps of edgecv that made the file, by its manifest; None without one.
        coverage: Nodes by arithmetic in the graph ONNX Runtime runs (``edgecv.quantize.coverage``).
        saturation: See ``edgecv.quantize.saturation.SaturationAudit.as_dict``; None when not asked for.
        saturation_line: The same for people.
        host: Versions and machine.
    """

    model: str
    bytes: int
    opset: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    weights: dict[str, dict[str, int]]
    stages: tuple[str, ...] | None
    coverage: dict[str, int]
    saturation: dict[str, Any] | None
    saturation_line: str
    host: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return asdict(self)


def inspect_model(path: Path, *, saturation: bool = False, seed: int = 0) -> Inspection:
    """Read a model and describe it.

    Args:
        path: An ONNX file, with a manifest or without.
        saturation: Add the audit of sums on x86 without VNNI.
        seed: For the record; nothing here is random.

    Raises:
        UsageError: Not a readable ONNX file, or ONNX Runtime refuses it.
        EnvironmentRefusedError: The ``tools`` extra is not installed.
    """
    from edgecv.pipeline.export import require_extra

    require_extra("tools", "onnx", "onnx_ir")
    from edgecv.graph.model_file import load_model, read_manifest
    from edgecv.quantize.coverage import measure_coverage
    from edgecv.quantize.saturation import audit_saturation, describe_audit

    model = load_model(path)
    manifest = read_manifest(model, path)
    audit = audit_saturation(model) if saturation else None
    return Inspection(
        model=str(path),
        bytes=path.stat().st_size,
        opset=model.opset_imports.get("", 0),
        inputs={str(v.name): _described(v) for v in model.graph.inputs},
        outputs={str(v.name): _described(v) for v in model.graph.outputs},
        operators=dict(_operators(model).most_common()),
        weights=_weights(model),
        stages=None if manifest is None else tuple(str(stage["name"]) for stage in manifest.stages),
        coverage=measure_coverage(model).as_dict(),
        saturation=None if audit is None else audit.as_dict(),
        saturation_line="" if audit is None else describe_audit(audit),
        host=host_facts(threads=1, seed=seed, n=1),
    )


def _described(value: Any) -> str:
    shape = "?" if value.shape is None else ", ".join(str(d) for d in value.shape)
    return f"{'?' if value.dtype is None else str(value.dtype).lower()}[{shape}]"


def _operators(model: Any) -> Counter[str]:
    return Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph.all_nodes())


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
