"""From whatever the user named (network, checkpoint, foreign ``.onnx``) to a checked ``.onnx`` with a manifest."""

import importlib.util
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecv import workspace
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.files import MAX_MODEL_BYTES, check_output, check_regular_file
from edgecv.manifest import INTERPOLATIONS
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import host_facts, usable_cores
from edgecv.text import megabytes

if TYPE_CHECKING:
    from edgecv.nn.network import Network

MAX_CHECK_IMAGES = 32
"""Photographs an export is checked on, spread evenly over the data: enough to see a wrong graph, seconds to run."""

NO_LABELS = "no labels: predictions and folders go by class number; export again with --labels FILE to name them"

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What ``edgecv export`` was asked; field for field its options, see ``edgecv export --help``."""

    model: str
    weights: Path | None = None
    random_init: bool = False
    arch: str = ""
    output: Path | None = None
    data: Path | None = None
    input_kind: str = "uint8"
    softmax: bool = False
    dynamic_size: bool = False
    opset: int | None = None
    device: str = ""
    labels: Path | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    input_size: tuple[int, int] | None = None
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    force: bool = False
    seed: int = 0


def export_model(request: ExportRequest, progress: Progress = no_progress) -> dict[str, Any]:
    """Export or adopt, write the file, make it the folder's current model, and return the report.

    Raises:
        UsageError: Options that contradict each other, unknown names, unreadable files.
        EnvironmentRefusedError: An extra is not installed, or weights cannot be had.
        GateFailedError: The ONNX model does not answer like the original; no file is written.
    """
    _check_options(request)
    report = _adopt(request) if request.model.endswith(".onnx") else _export(request, progress)
    if forgotten := workspace.set_current_model(Path(report["artifact"])):
        report["notes"].append(forgotten)
    return report


def require_extra(extra: str, *modules: str) -> None:
    """Raise EnvironmentRefusedError with the install line unless every module of an extra can be imported."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        raise EnvironmentRefusedError(f"this needs {', '.join(missing)}; install with: pip install 'edgecv[{extra}]'")


def check_images(data: Path | None) -> list[Path]:
    """Return the photographs to check on: spread over ``data``, or the sample photographs when it is None."""
    from edgecv.data.folder import open_dataset
    from edgecv.data.samples import sample_photographs

    if data is None:
        return sample_photographs()
    return [path for path, _ in open_dataset(data).limited(MAX_CHECK_IMAGES).samples]


def _check_options(request: ExportRequest) -> None:
    if request.weights is not None and request.random_init:
        raise UsageError("--weights and --random-init contradict each other; give one.")
    if request.input_kind not in ("uint8", "float"):
        raise UsageError(f"--input '{request.input_kind}' is neither uint8 nor float.")
    if request.interpolation not in INTERPOLATIONS:
        raise UsageError(f"--interpolation '{request.interpolation}' is not one of {', '.join(INTERPOLATIONS)}.")
    if not 0 < request.crop_pct <= 1:
        raise UsageError(f"--crop-pct {request.crop_pct} is not in (0, 1].")
    adopting = request.model.endswith(".onnx")
    for option, value in (
        ("--mean", request.mean),
        ("--std", request.std),
        ("--input-size", request.input_size),
    ):
        if value is not None and not adopting:
            raise UsageError(f"{option} is for adopting an .onnx file; a network brings its own.")
    if adopting and (request.weights or request.random_init or request.arch or request.opset or request.dynamic_size):
        raise UsageError(
            "an .onnx file is adopted as it is; leave out --weights, --random-init, --arch, --opset, --dynamic-size."
        )


def _export(request: ExportRequest, progress: Progress) -> dict[str, Any]:
    require_extra("train", "torch", "timm", "onnx", "onnx_ir", "onnxscript")
    name, weights = _name_and_weights(request)
    output = request.output or Path(f"{_file_stem(request.model)}.onnx")
    check_output(output, force=request.force, inputs=(weights or Path(name),))
    opset, ir_limit = _target_limits(request)
    images = check_images(request.data)
    progress("load PyTorch and the network", 0, 1)
    from edgecv.nn.export import ExportSettings, export_network
    from edgecv.nn.models import build_network
    from edgecv.nn.names import check_name

    check_name(name)
    network = build_network(name, weights=weights, random_init=request.random_init, seed=request.seed)
    network = _with_labels(network, request.labels)
    progress("load PyTorch and the network", 1, 1)
    settings = ExportSettings(request.input_kind, request.softmax, request.dynamic_size, opset, ir_limit)
    report = export_network(network, output, images, settings, progress)
    notes = [f"weights: {network.source['weights']}" + _license(network.source)]
    if not network.labels:
        notes.append(NO_LABELS)
    if request.random_init:
        notes.append("random weights: this model tests the chain, its answers mean nothing")
    size = megabytes(report.model_bytes, digits=1)
    notes.append(f"exporter: {report.exporter}, opset {report.opset}, IR {report.ir_version}, {size}")
    notes += [f"  {rung} was tried before and failed: {why}" for rung, why in report.failures]
    notes.append(f"rewrites: {', '.join(report.passes) or 'none needed'}")
    return {
        "artifact": str(report.path),
        "against": "PyTorch",
        "source": dict(network.source),
        "exporter": report.exporter,
        "failures": [list(f) for f in report.failures],
        "opset": report.opset,
        "ir_version": report.ir_version,
        "model_bytes": report.model_bytes,
        "passes": list(report.passes),
        "checks": [asdict(c) for c in report.checks],
        "notes": notes,
        "host": host_facts(threads=usable_cores(), seed=request.seed, n=len(images)),
    }


def _name_and_weights(request: ExportRequest) -> tuple[str, Path | None]:
    if not request.model.endswith(CHECKPOINT_SUFFIXES):
        if request.arch:
            raise UsageError(f"--arch goes with a checkpoint; '{request.model}' is a network's name already.")
        return request.model, request.weights
    path = Path(request.model)
    check_regular_file(path, "checkpoint", MAX_MODEL_BYTES)
    if request.weights or request.random_init:
        raise UsageError(f"'{path}' holds the weights already; leave out --weights and --random-init.")
    if request.arch:
        return request.arch, path
    if not _says_its_network(path):
        raise UsageError(f"'{path}' does not say which network it belongs to; add --arch NAME.")
    return str(path), None


def _says_its_network(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return False
    require_extra("train", "safetensors", "torch", "timm")
    from edgecv.nn.checkpoint import read_manifest

    return read_manifest(path) is not None


def _target_limits(request: ExportRequest) -> tuple[int, int | None]:
    from edgecv.config.device import load_device
    from edgecv.graph.opset import DEFAULT_OPSET, limits_of

    if not request.device:
        return request.opset or DEFAULT_OPSET, None
    profile = load_device(request.device)
    max_opset, max_ir = limits_of(profile.onnxruntime)
    if request.opset and request.opset > max_opset:
        raise UsageError(
            f"--opset {request.opset} is above what '{profile.name}' reads: ONNX Runtime {profile.onnxruntime}, "
            f"opset {max_opset}."
        )
    return request.opset or min(DEFAULT_OPSET, max_opset), max_ir


def _with_labels(network: "Network", path: Path | None) -> "Network":
    from edgecv.data.labels import read_labels

    if path is None:
        return network
    labels = read_labels(path)
    classes = network.arguments.get("num_classes", getattr(network.module, "num_classes", None))
    if isinstance(classes, int) and classes != len(labels):
        raise UsageError(f"label file '{path}' has {len(labels)} names, the network {classes} classes.")
    return replace(network, labels=labels, label_ids=())


def _adopt(request: ExportRequest) -> dict[str, Any]:
    require_extra("tools", "onnx", "onnx_ir")
    from edgecv.data.labels import read_labels
    from edgecv.graph.adopt import AdoptSettings, adopt_model

    source = Path(request.model)
    output = request.output or source.with_name(f"{source.stem}.edgecv.onnx")
    check_output(output, force=request.force, inputs=(source,))
    images = check_images(request.data)
    settings = AdoptSettings(
        mean=request.mean,
        std=request.std,
        labels=read_labels(request.labels) if request.labels else (),
        input_size=request.input_size,
        interpolation=request.interpolation,
        crop_pct=request.crop_pct,
        input_kind=request.input_kind,
        softmax=request.softmax,
    )
    checks, manifest = adopt_model(source, output, images, settings)
    notes = [] if settings.labels else [NO_LABELS]
    notes.append(f"resize: {request.interpolation}, crop {request.crop_pct:g} (--interpolation, --crop-pct)")
    if manifest.input.batch:
        notes.append(f"the graph is fixed to batches of {manifest.input.batch}")
    return {
        "artifact": str(output),
        "against": f"the original {source.name}",
        "source": dict(manifest.source),
        "checks": [asdict(c) for c in checks],
        "model_bytes": output.stat().st_size,
        "notes": notes,
        "quantized": manifest.stages[-1]["settings"]["quantized"],
        "host": host_facts(threads=usable_cores(), seed=request.seed, n=len(images)),
    }


def _file_stem(model: str) -> str:
    if model.endswith(CHECKPOINT_SUFFIXES):
        return str(Path(model).with_suffix(""))
    return model.replace(":", "_").replace("/", "_")


def _license(source: dict[str, str]) -> str:
    return f" ({source['license']})" if source.get("license") else ""
