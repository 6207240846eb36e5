"""Export a network to ONNX; finished only when PyTorch and ONNX Runtime agree on real images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from timm.utils.model import reparameterize_model

import edgecv
from edgecv.errors import UsageError
from edgecv.graph.agreement import CHECK_BATCHES, BatchCheck, check_agreement
from edgecv.graph.interface import append_softmax, name_interface, set_uint8_input
from edgecv.graph.model_file import open_model, save_model
from edgecv.graph.opset import DEFAULT_OPSET, set_lowest_ir_version
from edgecv.graph.passes import prepare_for_inference
from edgecv.manifest import InputSpec, Manifest, OutputSpec, created_now
from edgecv.nn.exporters import Attempt, export_graph
from edgecv.nn.network import Network
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import package_versions
from edgecv.runtime.postprocess import softmax
from edgecv.runtime.preprocess import preprocess, to_model_input


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How to export: see ``edgecv export --help`` for each."""

    input_kind: str = "uint8"
    softmax: bool = False
    dynamic_size: bool = False
    opset: int = DEFAULT_OPSET
    ir_limit: int | None = None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What ``export_network`` did: the file, the rung that won and why others lost, passes, checks."""

    path: Path
    manifest: Manifest
    exporter: str
    failures: tuple[tuple[str, str], ...]
    passes: tuple[str, ...]
    checks: tuple[BatchCheck, ...]
    opset: int
    ir_version: int
    model_bytes: int


def export_network(
    network: Network,
    output: Path,
    images: Sequence[Path],
    settings: ExportSettings,
    progress: Progress = no_progress,
) -> ExportReport:
    """Export ``network`` to ``output`` and prove it.

    Args:
        network: From :func:`edgecv.nn.models.build_network`.
        output: The ``.onnx`` to write; nothing is written unless the check passes.
        images: Photographs to compare PyTorch and ONNX Runtime on; at least one.
        settings: Input kind, softmax, dynamic size, opset and the target's IR limit.
        progress: Called after each step.

    Raises:
        GateFailedError: No exporter gave a graph that agrees with PyTorch.
        UsageError: The settings do not fit the network.
    """
    module = reparameterize_model(network.module, inplace=False).eval()
    manifest = _manifest(network, settings)
    sizes = _check_sizes(network.input, settings.dynamic_size)
    pixels = {size: _pixels(images, network.input, size) for size in sizes}
    done: dict[str, Any] = {}

    def finish(raw: ir.Model, attempt: Attempt) -> ir.Model:
        progress(f"export ({attempt.name})", 1, 2)
        batch = 0 if attempt.dynamic_batch else 1
        done["manifest"] = replace(manifest, input=replace(manifest.input, batch=batch))
        done["passes"] = finish_graph(raw, network.input, settings)
        done["checks"] = tuple(
            _compare(module, raw, network.input, manifest, pixels[size], b)
            for size in sizes
            for b in (CHECK_BATCHES if attempt.dynamic_batch else (1,))
        )
        progress(f"export ({attempt.name})", 2, 2)
        return raw

    exported = export_graph(
        module,
        network.input.input_size,
        opset=settings.opset,
        dynamic_size=settings.dynamic_size,
        finish=finish,
    )
    final = _record(done["manifest"], done["checks"], exported.attempt, settings)
    save_model(exported.model, output, final)
    return ExportReport(
        path=output,
        manifest=final,
        exporter=exported.attempt.name,
        failures=exported.failures,
        passes=tuple(done["passes"]),
        checks=done["checks"],
        opset=settings.opset,
        ir_version=int(exported.model.ir_version),
        model_bytes=output.stat().st_size,
    )


def finish_graph(model: ir.Model, spec: InputSpec, settings: ExportSettings) -> list[str]:
    """Clean the raw graph in place and give it the wanted input and output; return what the passes did."""
    lines = prepare_for_inference(model)
    name_interface(model)
    if settings.input_kind == "uint8":
        set_uint8_input(model, spec)
    if settings.softmax:
        append_softmax(model)
    set_lowest_ir_version(model, limit=settings.ir_limit)
    return lines


def _manifest(network: Network, settings: ExportSettings) -> Manifest:
    uint8 = settings.input_kind == "uint8"
    spec = replace(
        network.input,
        layout="NHWC" if uint8 else "NCHW",
        dtype="uint8" if uint8 else "float32",
        dynamic_size=settings.dynamic_size,
    )
    kind = "probabilities" if settings.softmax else "logits"
    return Manifest(
        architecture=network.name,
        input=spec,
        output=OutputSpec(kind, kind, network.labels, network.label_ids),
        source=network.source,
        stages=tuple(network.stages),
        stride=network.stride,
        arguments=network.arguments,
        structure=tuple(network.structure),
        created=created_now(),
    )


def _record(manifest: Manifest, checks: tuple[BatchCheck, ...], attempt: Attempt, settings: ExportSettings) -> Manifest:
    tools = {"edgecv": edgecv.__version__} | package_versions("torch", "timm", "torchvision", "onnxscript", "onnx-ir")
    versions = package_versions("onnxruntime", "onnxruntime-gpu")
    parity = {
        "against": "pytorch",
        "n": checks[0].n,
        "batches": [c.batch for c in checks],
        "sizes": [list(s) for s in sorted({c.size for c in checks})],
        "top1_agreement": min(c.top1_agreement for c in checks),
        "max_abs_diff": float(f"{max(c.max_abs_diff for c in checks):.3g}"),
    }
    recorded = replace(manifest, parity=(parity,), ort_verified=tuple(versions.values()))
    return recorded.with_stage("export", {**asdict(settings), "exporter": attempt.name}, tools)


def _check_sizes(spec: InputSpec, dynamic: bool) -> list[tuple[int, int]]:
    _, height, width = spec.input_size
    if not dynamic:
        return [(height, width)]
    return [(height, width), (height + 64, width + 64), (height + 96, width + 32)]


def _pixels(images: Sequence[Path], spec: InputSpec, size: tuple[int, int]) -> np.ndarray:
    if not images:
        raise UsageError("no image to check the export on; name a folder with --data.")
    shaped = replace(spec, input_size=(3, *size))
    return np.stack([preprocess(path, shaped) for path in images])


def _compare(
    module: torch.nn.Module,
    model: ir.Model,
    spec: InputSpec,
    manifest: Manifest,
    pixels: np.ndarray,
    batch: int,
) -> BatchCheck:
    session = open_model(model).session
    name = session.get_inputs()[0].name

    def original(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = module(torch.from_numpy(to_model_input(images, spec))).numpy()
        return softmax(logits) if manifest.output.kind == "probabilities" else logits

    def exported(images: np.ndarray) -> np.ndarray:
        output: np.ndarray = session.run(None, {name: to_model_input(images, manifest.input)})[0]
        return output

    return check_agreement(original, exported, pixels, batch)
