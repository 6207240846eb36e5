"""Static int8 quantization: per-channel int8 weights, uint8 activations, quantizers where ONNX Runtime fuses them.

Written on onnx_ir rather than on ``onnxruntime.quantization.quantize_static``: that keeps every activation of every
image for its percentile and entropy methods (62 MB an image on a mobile network), leaves quantizers where nothing
fuses, lets an int32 bias overflow in channels emptied by a folded BatchNormalization, and reports success for files
that ONNX Runtime refuses.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecv.config.device import PORTABLE, Int8Scheme
from edgecv.errors import UsageError
from edgecv.graph.opset import MIN_QUANTIZE_OPSET, set_lowest_ir_version, upgrade_opset
from edgecv.graph.passes import prepare_for_inference
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.affine import LEVELS, Range, affine_of
from edgecv.quantize.bias_correction import correct_biases, layer_inputs
from edgecv.quantize.calibrate import Observations, check_method, observe, ranges_of
from edgecv.quantize.checks import check_float_model, check_weights_finite, name_nodes, resolve_excluded
from edgecv.quantize.coverage import measure_coverage
from edgecv.quantize.draft import Draft, write_quantizers
from edgecv.quantize.heads import HEAD_REASON, detection_head
from edgecv.quantize.input_range import input_ranges
from edgecv.quantize.layer_weights import limit_draft, quantize_weights
from edgecv.quantize.placement import Placement, place_quantizers, token_tensors
from edgecv.quantize.rewrites import (
    ORDER_CHANNELS,
    Rewrite,
    check_rewrites,
    images_to_check,
    rewrite_codes,
    rewrite_float,
)
from edgecv.quantize.saturation import audit_saturation, describe_audit
from edgecv.quantize.scheme import symmetric_ranges, write_scheme
from edgecv.quantize.weights import QuantizedWeight
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


@dataclass(frozen=True, slots=True)
class Basis:
    """The float network every draft starts from, and what is needed to finish one.

    Attributes:
        model: Prepared and rewritten for speed; not changed.
        placement: What runs in int8.
        pixels: Ranges of the tensors that are the image itself.
        lines: What was done to prepare the model, one line each.
        sample: A few images, to check rewrites on.
        rewrites: Names of the rewrites wanted.
        rewritten: What came of those of the float model.
        scheme: How the file is written.
    """

    model: ir.Model
    placement: Placement
    pixels: Mapping[str, Range]
    lines: Sequence[str]
    sample: np.ndarray
    rewrites: Collection[str]
    rewritten: Sequence[Rewrite]
    scheme: Int8Scheme = PORTABLE

    @property
    def portable(self) -> bool:
        """No sum of two products may leave 16 bits (:mod:`edgecv.quantize.pair_sums`)."""
        return self.scheme.portable


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


def prepare_basis(
    model: ir.Model,
    manifest: Manifest,
    batches: Batches,
    *,
    exclude: Collection[str] = (),
    rewrites: Collection[str] | None = None,
    scheme: Int8Scheme = PORTABLE,
    int8_heads: bool = False,
) -> Basis:
    """Prepare a float model and choose what runs in int8; arguments and errors as :func:`quantize_static`."""
    prepared, lines = prepare_float_model(model)
    exclude = resolve_excluded(prepared, exclude)
    sample, wanted = images_to_check(batches), check_rewrites(rewrites)
    ordered = wanted if scheme.portable else tuple(n for n in wanted if n != ORDER_CHANNELS)
    prepared, rewritten = rewrite_float(prepared, sample, ordered, exclude)
    heads = () if int8_heads else detection_head(prepared)
    floats = {str(node.name) for node in prepared.graph if node.op_type in scheme.float_operators}
    placement = place_quantizers(prepared, {*exclude, *heads, *floats})
    reasons_kept = {n: HEAD_REASON if n in heads and n not in exclude else r for n, r in placement.kept_float.items()}
    placement = replace(placement, kept_float=reasons_kept)
    if not placement.layers:
        reasons = "; ".join(f"'{n}': {r}" for n, r in list(placement.kept_float.items())[:3])
        raise UsageError(f"the model has no layer to quantize ({reasons or 'no Conv, Gemm or MatMul with weights'}).")
    pixels = input_ranges(prepared, placement.from_input, manifest.input)
    return Basis(prepared, placement, pixels, lines, sample, wanted, rewritten, scheme)


def observe_network(
    model: ir.Model, placement: Placement, batches: Batches, *, n_images: int = 0, progress: Progress = no_progress
) -> Observations:
    """Return what ranges and bias correction need: histograms and mean inputs, from one pass over the images."""
    averaged = layer_inputs(model, placement)
    return observe(model, placement.observed, batches, mean_of=averaged, n_images=n_images, progress=progress)


def draft_network(
    model: ir.Model,
    placement: Placement,
    ranges: Mapping[str, Range],
    seen: Observations,
    *,
    weights: Mapping[str, QuantizedWeight] | None = None,
    bias_correction: bool = True,
    scheme: Int8Scheme = PORTABLE,
    levels: int = LEVELS,
    progress: Progress = no_progress,
) -> Draft:
    """Return a draft with the given ranges; weights are rounded to the nearest code unless they are given.

    Args:
        model: The float network with its own biases; not changed.
        placement: What runs in int8.
        ranges: See :class:`Draft`.
        seen: From :func:`observe_network` of the same network.
        weights: Codes of every layer.
        bias_correction: Shift biases by the mean error of the rounded weights.
        scheme: See :func:`quantize_static`.
        levels: Highest code of an activation.
        progress: See :mod:`edgecv.progress`.
    """
    if scheme.activations == "int8":
        ranges = symmetric_ranges(ranges)
    affines = {name: affine_of(span, levels) for name, span in ranges.items()}
    chosen = weights
    if chosen is None:
        chosen = quantize_weights(model, placement, affines, portable=scheme.portable, progress=progress)
    if bias_correction:
        model = model.clone()
        correct_biases(model, placement, chosen, seen.means)
    return Draft(model, placement, ranges, chosen, levels)


def tool_versions() -> dict[str, str]:
    """Return the versions of everything that has a say in a quantized file, for the manifest's stage."""
    return package_versions("edgecv", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")


def prepare_float_model(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """Return a copy ready to be quantized, and one line for each rewrite: checked, upgraded, simplified, named.

    Raises:
        UsageError: See :func:`edgecv.quantize.checks.check_float_model`; or the opset cannot be upgraded.
    """
    check_float_model(model)
    copy = upgrade_opset(model.clone(), MIN_QUANTIZE_OPSET)
    lines = prepare_for_inference(copy)
    name_nodes(copy)
    check_weights_finite(copy)
    return copy, lines


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
