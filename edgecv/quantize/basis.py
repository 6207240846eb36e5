"""What every quantization of a network stands on: the prepared float network, its statistics, a draft made of both."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgecv.config.device import PORTABLE, Int8Scheme
from edgecv.errors import UsageError
from edgecv.graph.opset import MIN_QUANTIZE_OPSET, upgrade_opset
from edgecv.graph.passes import prepare_for_inference
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.affine import LEVELS, Range, affine_of
from edgecv.quantize.bias_correction import correct_biases, layer_inputs
from edgecv.quantize.calibrate import Observations, observe
from edgecv.quantize.checks import check_float_model, check_weights_finite, name_nodes
from edgecv.quantize.draft import Draft
from edgecv.quantize.heads import HEAD_REASON, detection_head
from edgecv.quantize.input_range import input_ranges
from edgecv.quantize.layer_names import check_effect, resolve_excluded
from edgecv.quantize.layer_weights import quantize_weights
from edgecv.quantize.placement import Placement, place_quantizers
from edgecv.quantize.rewrites import (
    ORDER_CHANNELS,
    Rewrite,
    check_rewrites,
    images_to_check,
    rewrite_float,
)
from edgecv.quantize.scheme import symmetric_ranges
from edgecv.quantize.weights import QuantizedWeight


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
    if exclude:
        able = place_quantizers(prepared, {*heads, *floats})
        check_effect(prepared, exclude, {*able.layers, *able.others, *able.kept_float})
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
