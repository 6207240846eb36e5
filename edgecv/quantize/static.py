"""Static int8 quantization: per-channel int8 weights, uint8 activations, quantizers where ONNX Runtime fuses them.

Written on onnx_ir rather than on ``onnxruntime.quantization.quantize_static``: that keeps every activation of every
image for its percentile and entropy methods (62 MB an image on a mobile network), leaves quantizers where nothing
fuses, lets an int32 bias overflow in channels emptied by a folded BatchNormalization, and reports success for files
that ONNX Runtime refuses.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgecv.config.device import PORTABLE, Int8Scheme
from edgecv.graph.opset import set_lowest_ir_version
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.basis import Basis, draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import check_method, ranges_of
from edgecv.quantize.coverage import measure_coverage
from edgecv.quantize.draft import Draft, write_quantizers
from edgecv.quantize.layer_weights import limit_draft
from edgecv.quantize.placement import token_tensors
from edgecv.quantize.rewrites import (
    ORDER_CHANNELS,
    rewrite_codes,
)
from edgecv.quantize.saturation import audit_saturation, describe_audit
from edgecv.quantize.scheme import write_scheme
from edgecv.runtime.host import package_versions


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A quantized model and what was done to get it.

    Attributes:
        model: The new model; the input model is not changed.
        summary: ``settings`` and ``tools`` for the manifest's stage, ``coverage``, ``layers``, ``notes``; see the
            function that made it.
    """

    model: ir.Model
    summary: Mapping[str, Any]


def quantize_static(
    model: ir.Model,
    manifest: Manifest,
    batches: Batches,
    *,
    ranges: str = "mse",
    exclude: Collection[str] = (),
    bias_correction: bool = True,
    rewrites: Collection[str] | None = None,
    scheme: Int8Scheme = PORTABLE,
    int8_heads: bool = False,
    n_images: int = 0,
    progress: Progress = no_progress,
) -> QuantizedModel:
    """Quantize a float model to int8 with ranges taken from calibration images.

    Args:
        model: A float32 model with one image input, at any opset; not changed.
        manifest: Its manifest; the range of the input comes from its preprocessing.
        batches: Starts a pass over the calibration images, as the graph takes them: uint8 (N, H, W, 3) or float32
            (N, 3, H, W). The last batch may be smaller.
        ranges: How ranges are chosen: ``mse``, ``percentile`` or ``minmax``.
        exclude: Nodes or layers (by their weight, ``conv_stem``) to keep in float.
        bias_correction: Shift biases by the mean error of the rounded weights.
        rewrites: Which rewrites for speed to apply (:mod:`edgecv.quantize.rewrites`); None for all.
        scheme: Types and limits of codes, and operators to leave in float (``DeviceProfile.int8``); the default is what
            runs with the same bits on every CPU.
        int8_heads: Quantize the head of a detector too (:func:`edgecv.quantize.heads.detection_head`).
        n_images: Images in one pass, for the progress report; 0 when not known.
        progress: See :mod:`edgecv.progress`.

    Returns:
        The model, loaded once in ONNX Runtime, and a summary with ``settings``, ``tools``, ``prepared`` (what was
        rewritten first), ``layers`` (int8 layers), ``kept_float`` (layer to reason), ``raised_channels`` (channels
        whose weight scale was raised for the bias), ``shielded`` (float layers kept from ONNX Runtime's own
        quantization), ``limited_channels`` (channels given smaller codes to be portable), ``saturation``
        (:mod:`edgecv.quantize.saturation`), ``notes`` (lines for the user), ``rewrites`` (with what each changed) and
        ``coverage`` (counts in the graph ONNX Runtime really runs).

    Raises:
        UsageError: The model is quantized already, is float16, holds nothing to quantize or damaged weights, or is
            refused by ONNX Runtime; a name in ``exclude`` is unknown; there are no images or they do not fit.
    """
    check_method(ranges)
    basis = prepare_basis(
        model, manifest, batches, exclude=exclude, rewrites=rewrites, scheme=scheme, int8_heads=int8_heads
    )
    seen = observe_network(basis.model, basis.placement, batches, n_images=n_images, progress=progress)
    spans = {**basis.pixels, **ranges_of(seen, ranges, token_tensors(basis.model, basis.placement))}
    draft = draft_network(
        basis.model,
        basis.placement,
        spans,
        seen,
        bias_correction=bias_correction,
        scheme=scheme,
        progress=progress,
    )
    settings = {"ranges": ranges, "exclude": list(exclude), "bias_correction": bias_correction, "images": seen.images}
    return finish(draft, basis, settings)


def tool_versions() -> dict[str, str]:
    """Return the versions of everything that has a say in a quantized file, for the manifest's stage."""
    return package_versions("edgecv", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")


def finish(draft: Draft, basis: Basis, settings: Mapping[str, Any]) -> QuantizedModel:
    """Write the quantizers, shorten the codes' path, load the model in ONNX Runtime and sum up."""
    if basis.portable:
        draft = limit_draft(draft)
    model, shielded = write_quantizers(draft)
    model, shortened = rewrite_codes(model, basis.sample, basis.rewrites)
    write_scheme(model, basis.scheme)
    set_lowest_ir_version(model)
    coverage = measure_coverage(model)
    audit = audit_saturation(model)
    return QuantizedModel(
        model,
        {
            "settings": {
                "format": "qdq",
                "weights": "int8 per channel",
                "activations": basis.scheme.activations,
                "bias": basis.scheme.bias,
                "portable": basis.portable,
                **settings,
            },
            "tools": tool_versions(),
            "prepared": list(basis.lines),
            "layers": len(draft.placement.layers),
            "kept_float": dict(draft.placement.kept_float),
            "raised_channels": sum(w.raised_channels for w in draft.weights.values()),
            "shielded": shielded,
            "limited_channels": sum(w.limited_channels for w in draft.weights.values()),
            "saturation": audit.as_dict(),
            "notes": [describe_audit(audit), *_portable_note(draft, basis)],
            "rewrites": [r.as_dict() for r in (*basis.rewritten, *shortened)],
            "coverage": coverage.as_dict(),
        },
    )


def _portable_note(draft: Draft, basis: Basis) -> list[str]:
    limited = sum(w.limited_channels for w in draft.weights.values())
    groups = sum(r.places for r in basis.rewritten if r.name == ORDER_CHANNELS and r.kept)
    if not limited and not groups:
        return []
    return [f"for that, {limited} channels have smaller codes and {groups} groups of channels another order"]
