"""Learned rounding: codes chosen together, so that the errors of a layer's weights cancel on the inputs it really sees.

That rounding to the nearest code is not the best rounding, and that no labels are needed to find a better one: Nagel et
al., AdaRound, 2020. How the codes are found: :mod:`edgecv.quantize.rounding_solver`.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import constant_array
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.affine import Affine
from edgecv.quantize.bias_correction import bias_slot
from edgecv.quantize.int8_nodes import weight_axis
from edgecv.quantize.moments import Moments
from edgecv.quantize.pair_sums import adds_in_pairs, from_kernel_rows, limit_channels, pair_limit
from edgecv.quantize.placement import Placement
from edgecv.quantize.rounding_solver import UNLIMITED, largest_pair, round_rows, scale_span
from edgecv.quantize.rounding_statistics import (
    BUDGET_BYTES,
    collect_moments,
    group_count,
    moments_bytes,
    split_by_memory,
    weight_rows,
)
from edgecv.quantize.weights import QuantizedWeight, quantize_weight, smallest_scales


def learn_rounding(
    model: ir.Model,
    placement: Placement,
    affines: Mapping[str, Affine],
    batches: Batches,
    *,
    n_images: int = 0,
    seed: int = 0,
    portable: bool = True,
    progress: Progress = no_progress,
) -> dict[str, QuantizedWeight]:
    """Return int8 weights of every layer, rounded for the inputs that calibration images give it in the float model.

    Where a layer's bias can be corrected afterwards (:func:`edgecv.quantize.bias_correction.correct_biases`, the
    caller's work) the mean of its inputs is left out of account.

    Memory: the covariances of some layers at a time, at most :data:`BUDGET_BYTES`, and four times that of the largest
    layer in double precision. A layer whose own is over that (more than 5,792 inputs) is rounded to the nearest codes.

    Args:
        model: The float model, before quantizers are inserted; not changed.
        placement: What will be quantized.
        affines: Scale of every layer's input, for the smallest weight scale that its bias allows.
        batches: Starts a pass over the calibration images; called once for each group of layers.
        n_images: Images in one pass; 0 when not known.
        seed: Chooses the positions sampled.
        portable: Keep the sums of neighbouring codes within :func:`edgecv.quantize.pair_sums.pair_limit` where the
            kernel adds in pairs.
        progress: See :mod:`edgecv.progress`.

    Raises:
        UsageError: There are no images or they do not fit.
    """
    nodes = [node for node in model.graph if node.name in set(placement.layers)]
    small = [node for node in nodes if moments_bytes(node) <= BUDGET_BYTES]
    weights = {str(n.name): _nearest(n, placement, affines, portable) for n in nodes if n not in set(small)}
    for part in split_by_memory(small):
        moments = collect_moments(model, part, batches, n_images=n_images, seed=seed, progress=progress)
        for node in part:
            name = str(node.name)
            floor = _smallest_scales(node, placement, affines)
            weights[name] = _round_layer(node, moments.pop(name), floor, _pair_limit(node, portable))
            progress("round", len(weights), len(nodes))
    return {name: weights[name] for name in placement.layers}


def _round_layer(node: ir.Node, moments: Moments, floor: np.ndarray, limit: int) -> QuantizedWeight:
    rows = weight_rows(node)
    weight, axis = constant_array(node.inputs[1]), weight_axis(node)
    assert weight is not None  # by placement
    covariance = moments.shrunk_covariance(centred=bias_slot(node) is not None)
    bounds = floor.reshape(rows.shape[:2])
    codes, scale = round_rows(rows, covariance, bounds, limit)
    stored = from_kernel_rows(codes.reshape(-1, rows.shape[2]).astype(np.int8), weight.shape, axis)
    highest = scale_span(rows, UNLIMITED)[1]
    raised = int((bounds > highest).sum())
    limited = int((largest_pair(rows) > limit * highest).sum())
    return QuantizedWeight(stored, scale.reshape(-1).astype(np.float32), axis, raised, limited)


def _pair_limit(node: ir.Node, portable: bool) -> int:
    weight = constant_array(node.inputs[1])
    assert weight is not None  # by placement
    return pair_limit() if portable and adds_in_pairs(weight.shape, group_count(node)) else UNLIMITED


def _smallest_scales(node: ir.Node, placement: Placement, affines: Mapping[str, Affine]) -> np.ndarray:
    """Return the smallest scale of every output channel that the layer's bias allows, 0 without a bias."""
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        groups, rows, _ = weight_rows(node).shape
        return np.zeros(groups * rows, np.float32)
    return smallest_scales(bias, _input_scale(node, placement, affines))


def _input_scale(node: ir.Node, placement: Placement, affines: Mapping[str, Affine]) -> float:
    read = str(node.inputs[0].name)  # type: ignore[union-attr]
    return float(affines[placement.shared.get(read, read)].scale)


def _nearest(node: ir.Node, placement: Placement, affines: Mapping[str, Affine], portable: bool) -> QuantizedWeight:
    weight = constant_array(node.inputs[1])
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    assert weight is not None  # by placement
    found = quantize_weight(weight, weight_axis(node), bias=bias, input_scale=_input_scale(node, placement, affines))
    limit = _pair_limit(node, portable)
    return found if limit == UNLIMITED else limit_channels(weight, found, limit=limit)
