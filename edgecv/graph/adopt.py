"""A foreign ``.onnx`` made one of ours: same answers, uint8 images in, manifest inside."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

import edgecv
from edgecv.errors import UsageError
from edgecv.files import sha256_file
from edgecv.graph.agreement import CHECK_BATCHES, BatchCheck, check_agreement
from edgecv.graph.interface import append_softmax, name_interface, only_image_input, set_uint8_input
from edgecv.graph.model_file import load_model, open_model, read_manifest, save_model
from edgecv.graph.opset import default_opset, set_lowest_ir_version
from edgecv.graph.passes import prepare_for_inference
from edgecv.graph.precision import find_quantized
from edgecv.manifest import InputSpec, Manifest, OutputSpec, check_input_spec, created_now
from edgecv.runtime.host import package_versions
from edgecv.runtime.postprocess import softmax
from edgecv.runtime.preprocess import preprocess, to_model_input
from edgecv.runtime.session import open_session


@dataclass(frozen=True, slots=True)
class AdoptSettings:
    """What a foreign file does not say; None means not given.

    Attributes:
        mean: Per channel, of pixels scaled to 0..1.
        std: As ``mean``.
        labels: Class names by index; empty when not given.
        input_size: ``(height, width)``, needed when the graph leaves them open.
        interpolation: Pillow's filter by name.
        crop_pct: Share of the resized image kept by the centre crop.
        input_kind: ``uint8`` or ``float``.
        softmax: Put probabilities in.
    """

    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    labels: tuple[str, ...]
    input_size: tuple[int, int] | None
    interpolation: str
    crop_pct: float
    input_kind: str
    softmax: bool


def adopt_model(
    source: Path, output: Path, images: Sequence[Path], settings: AdoptSettings
) -> tuple[tuple[BatchCheck, ...], Manifest]:
    """Write ``source`` with edgecv's input, passes and manifest to ``output``, checked on ``images``.

    Raises:
        UsageError: Mean or std is missing, the labels do not fit, the input is no batch of images, or the file is an
            edgecv model already.
        GateFailedError: The rewritten graph answers differently.
    """
    model = load_model(source)
    if read_manifest(model, source) is not None:
        raise UsageError(f"'{source}' is an edgecv model already; use it as it is.")
    spec = _spec_of(model, source, settings)
    passes = prepare_for_inference(model)
    name_interface(model)
    uint8 = settings.input_kind == "uint8"
    final_spec = replace(spec, name=str(only_image_input(model).name))
    if uint8 and spec.dtype != "uint8":
        set_uint8_input(model, spec)
        final_spec = replace(spec, name=str(model.graph.inputs[0].name), layout="NHWC", dtype="uint8")
    if settings.softmax:
        append_softmax(model)
    set_lowest_ir_version(model)
    kind = "probabilities" if settings.softmax else "logits"
    labels = settings.labels
    manifest = Manifest(
        architecture=source.stem,
        input=final_spec,
        output=OutputSpec(str(model.graph.outputs[0].name), kind, labels),
        source={"weights": f"onnx:{source.name}", "sha256": sha256_file(source)},
        created=created_now(),
    )
    checks = _compare(source, model, spec, manifest, images)
    versions = package_versions("onnxruntime", "onnxruntime-gpu")
    manifest = replace(
        manifest,
        parity=(
            {
                "against": source.name,
                "n": checks[0].n,
                "batches": [c.batch for c in checks],
                "max_abs_diff": float(f"{max(c.max_abs_diff for c in checks):.3g}"),
            },
        ),
        ort_verified=tuple(versions.values()),
    ).with_stage(
        "adopt",
        {"passes": passes, "opset": default_opset(model), "quantized": bool(find_quantized(model))},
        {"edgecv": edgecv.__version__} | package_versions("onnx-ir"),
    )
    save_model(model, output, manifest)
    return checks, manifest


def _spec_of(model: ir.Model, source: Path, settings: AdoptSettings) -> InputSpec:
    value = only_image_input(model, f"'{source}'")
    assert value.shape is not None  # checked by only_image_input
    dims = [d if isinstance(d, int) else None for d in value.shape]
    nchw = dims[1] == 3
    is_uint8 = value.dtype == ir.DataType.UINT8
    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8) or (is_uint8 and nchw):
        raise UsageError(f"'{source}' takes {value.dtype} {value.shape}; edgecv adopts float32, or uint8 (N, H, W, 3).")
    if not is_uint8 and (settings.mean is None or settings.std is None):
        raise UsageError(
            f"'{source}' does not say how its images are normalised; add --mean M --std S (of 0..1 pixels)."
        )
    height, width = dims[2:] if nchw else dims[1:3]
    size = (height, width) if height and width else settings.input_size
    if size is None:
        raise UsageError(f"'{source}' leaves height and width open; add --input-size HEIGHT,WIDTH.")
    spec = InputSpec(
        name=str(value.name),
        input_size=(3, *size),
        mean=settings.mean or (0.0, 0.0, 0.0),
        std=settings.std or (1.0, 1.0, 1.0),
        interpolation=settings.interpolation,
        crop_pct=settings.crop_pct,
        layout="NCHW" if nchw else "NHWC",
        dtype="uint8" if is_uint8 else "float32",
        dynamic_size=not (height and width),
        batch=dims[0] or 0,
    )
    try:
        check_input_spec(spec)
    except ValueError as e:
        raise UsageError(f"cannot adopt '{source}': {e}.") from e
    _check_labels(model, source, settings.labels)
    return spec


def _check_labels(model: ir.Model, source: Path, labels: tuple[str, ...]) -> None:
    shape = model.graph.outputs[0].shape
    classes = shape[-1] if shape is not None and len(shape) else None
    if labels and isinstance(classes, int) and classes != len(labels):
        raise UsageError(f"'{source}' has {classes} classes, the label file {len(labels)} names; they must match.")


def _compare(
    source: Path, model: ir.Model, spec: InputSpec, manifest: Manifest, images: Sequence[Path]
) -> tuple[BatchCheck, ...]:
    before, after = open_session(source).session, open_model(model).session
    names = before.get_inputs()[0].name, after.get_inputs()[0].name

    def original(pixels: np.ndarray) -> np.ndarray:
        logits: np.ndarray = before.run(None, {names[0]: to_model_input(pixels, spec)})[0]
        return softmax(logits) if manifest.output.kind == "probabilities" else logits

    def adopted(pixels: np.ndarray) -> np.ndarray:
        output: np.ndarray = after.run(None, {names[1]: to_model_input(pixels, manifest.input)})[0]
        return output

    pixels = np.stack([preprocess(path, spec) for path in images])
    batches = (spec.batch,) if spec.batch else CHECK_BATCHES
    return tuple(check_agreement(original, adopted, pixels, batch) for batch in batches)
