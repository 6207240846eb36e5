"""Activations in 16 bits: for providers that have kernels for them. ONNX Runtime's CPU provider runs them in float."""

from collections.abc import Collection

import onnx_ir as ir

from edgecv.config.device import FULL_RANGE
from edgecv.graph.opset import upgrade_opset
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.affine import WIDE_LEVELS
from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.checks import check_float_model
from edgecv.quantize.static import QuantizedModel, finish

MIN_WIDE_OPSET = 21
"""QuantizeLinear takes uint16 since 21 (ONNX operator changelog)."""


def quantize_wide(
    model: ir.Model,
    manifest: Manifest,
    batches: Batches,
    *,
    exclude: Collection[str] = (),
    int8_heads: bool = False,
    n_images: int = 0,
    progress: Progress = no_progress,
) -> QuantizedModel:
    """Quantize a float model to int8 weights and uint16 activations; arguments and errors as ``quantize_static``.

    Ranges are the extremes over the images: with 65,536 codes cutting costs more than it gains. Nothing is rewritten
    for speed, for those rewrites serve int8 kernels. The summary's ``notes`` say what runs in float here.
    """
    check_float_model(model)
    newer = upgrade_opset(model, MIN_WIDE_OPSET)
    basis = prepare_basis(
        newer, manifest, batches, exclude=exclude, rewrites=(), scheme=FULL_RANGE, int8_heads=int8_heads
    )
    seen = observe_network(basis.model, basis.placement, batches, n_images=n_images, progress=progress)
    spans = {**basis.pixels, **ranges_of(seen, "minmax")}
    draft = draft_network(
        basis.model, basis.placement, spans, seen, scheme=FULL_RANGE, levels=WIDE_LEVELS, progress=progress
    )
    settings = {"ranges": "minmax", "exclude": list(exclude), "activations": "uint16", "images": seen.images}
    quantized = finish(draft, basis, settings)
    return QuantizedModel(quantized.model, {**quantized.summary, "notes": [_note(quantized.summary["coverage"])]})


def _note(coverage: dict[str, int]) -> str:
    floats = coverage["conv_float"] + coverage["matmul_float"]
    return (
        f"16-bit activations: {floats} layers run in float on ONNX Runtime's CPU provider, between "
        f"{coverage['quantize'] + coverage['dequantize']} conversions; they are for providers with 16-bit kernels"
    )
