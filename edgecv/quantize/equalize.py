"""Cross-layer equalization: the channels of a tensor brought to like ranges, so that they can share one uint8 scale.

A channel is scaled by s in the layer that writes it and by 1/s in the layers that read it. Through a Relu, a pooling or
a residual Add nothing else changes. Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
Correction, 2019, section 4.1; differences: ranges are measured on calibration images instead of read off the weights,
residual streams are scaled as one group, and the bound c of a Clip(0, c) stays one number, so that ONNX Runtime still
fuses it: a channel behind it is only ever scaled up, and as far as its maximum stays under c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgecv.graph.agreement import MAX_RELATIVE_DIFF
from edgecv.graph.values import add_initializer, constant_array
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.channel_peaks import Peaks, channel_peaks
from edgecv.quantize.draft import run_outputs
from edgecv.quantize.equalize_groups import ChannelGroup, find_groups, output_axis
from edgecv.quantize.rewrites import images_to_check, relative_diff

MARGIN = 1.5
"""Least headroom left under a Clip's bound above the largest value of the calibration images."""

LIMIT = 8.0
"""Largest factor. A channel that calibration shows as nearly empty may be needed by another image."""

DENSE_POWER = 0.75
"""Power of a factor where a dense layer reads the group: what its input gains its weights lose, since one weight scale
spans all its input channels. Xiao et al., SmoothQuant, 2022: 0.5 to 0.75. On calibration photographs 0, 0.5
and 0.75 give MobileNetV2 18.0, 20.6 and 20.8 dB, EfficientNet-Lite0 24.9, 25.1 and 25.2."""

CLIPPED_DENSE_POWER = 0.5
"""The same behind a Clip. On calibration photographs 0, 0.5 and 1 give MobileNetV2's activations 21.3, 22.2 and 21.9 dB
and its weights, before they are rounded with care, 28.1, 26.8 and 22.8."""

_CLIPPED = 0.999
"""A maximum over this share of the bound has met the bound: the channel cannot be scaled."""


@dataclass(frozen=True, slots=True)
class Equalized:
    """An equalized network.

    Attributes:
        model: A changed clone.
        groups: Number of groups that were scaled.
        lines: One line for each of them, and one for what was undone, for the report.
        relative_diff: Largest change of an output on the checked images, in standard deviations of the outputs.
    """

    model: ir.Model
    groups: int
    lines: tuple[str, ...]
    relative_diff: float


def equalize(model: ir.Model, batches: Batches, *, n_images: int = 0, progress: Progress = no_progress) -> Equalized:
    """Return a clone of ``model`` whose channels have likelier ranges and whose answers are the same.

    Exact up to float32 rounding except at a Clip(0, c): that channels stay under c is shown on the calibration images
    and for them alone. Another image may reach further; :data:`MARGIN`, :data:`LIMIT` and the extrapolation of
    :mod:`edgecv.quantize.channel_peaks` keep that rare.
    A group is left as it was when the outputs for a few of the images change by more than
    :data:`edgecv.graph.agreement.MAX_RELATIVE_DIFF`.

    Args:
        model: A float model whose nodes have names; not changed.
        batches: Starts a pass over the calibration images.
        n_images: Images in one pass, for the progress report; 0 when not known.
        progress: See :mod:`edgecv.progress`.

    Raises:
        UsageError: There are no images or they do not fit.
    """
    groups = find_groups(model)
    if not groups:
        return Equalized(model.clone(), 0, ("no group of channels can be scaled",), 0.0)
    tensors = list(dict.fromkeys(name for group in groups for name in group.tensors))
    peaks = channel_peaks(model, tensors, batches, n_images=n_images, progress=progress)
    chosen = [(group, factors) for group in groups if (factors := choose_factors(group, peaks)).max() > 1]
    images = images_to_check(batches)
    before = run_outputs(model, images)
    whole = _scaled(model, chosen)
    diff = _change(before, run_outputs(whole, images))
    if diff <= MAX_RELATIVE_DIFF:
        return Equalized(whole, len(chosen), tuple(_line(g, f) for g, f in chosen), diff)
    return _one_by_one(model, chosen, images, before)


def choose_factors(group: ChannelGroup, peaks: Mapping[str, Peaks]) -> np.ndarray:
    """Return the factor of every channel of ``group``: float64 (channels,), 1..:data:`LIMIT`.

    Empty channels (those added by padding, or that no image excites) keep factor 1.

    Args:
        group: Tensors tied together.
        peaks: From :func:`edgecv.quantize.channel_peaks.channel_peaks`.
    """
    if group.bounds:
        room = np.clip(np.min([_room(peaks[name], bound) for name, bound in group.bounds.items()], axis=0), 1, LIMIT)
        return np.asarray(room if group.only_depthwise else room**CLIPPED_DENSE_POWER)
    largest = [peaks[name].largest for name in group.tensors]
    share = np.max([m / max(float(m.max()), 1e-30) for m in largest], axis=0)
    wanted = np.divide(1, share, out=np.ones(group.channels), where=share > 0)
    return np.asarray(np.clip(wanted ** (1.0 if group.only_depthwise else DENSE_POWER), 1, LIMIT))


def _room(peaks: Peaks, bound: float) -> np.ndarray:
    free = (peaks.largest > 0) & (peaks.largest < _CLIPPED * bound)
    needed = np.maximum(MARGIN * peaks.largest, peaks.rare)
    return np.asarray(np.divide(bound, needed, out=np.ones(len(needed)), where=free))


def _scaled(model: ir.Model, chosen: Sequence[tuple[ChannelGroup, np.ndarray]]) -> ir.Model:
    copy = model.clone()
    nodes = {node.name: node for node in copy.graph}
    for group, factors in chosen:
        for name in group.producers:
            _scale_outputs(copy.graph, nodes[name], factors)
        for name in group.consumers:
            _scale_inputs(copy.graph, nodes[name], 1 / factors)
    return copy


def _scale_outputs(graph: ir.Graph, node: ir.Node, factors: np.ndarray) -> None:
    weight = constant_array(node.inputs[1])
    assert weight is not None  # by is_scalable_layer
    shape = [1] * weight.ndim
    shape[output_axis(node)] = -1
    _set_constant(graph, node, 1, weight * factors.reshape(shape))
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        _set_constant(graph, node, 2, (bias.reshape(-1) * factors).reshape(bias.shape))


def _scale_inputs(graph: ir.Graph, node: ir.Node, factors: np.ndarray) -> None:
    weight = constant_array(node.inputs[1])
    assert weight is not None  # by is_scalable_layer
    if node.op_type == "Gemm":
        _set_constant(graph, node, 1, weight * (factors if output_axis(node) == 0 else factors[:, None]))
        return
    attribute = node.attributes.get("group")
    count = 1 if attribute is None else attribute.as_int()
    rows = weight.reshape(count, weight.shape[0] // count, weight.shape[1], -1)
    _set_constant(graph, node, 1, (rows * factors.reshape(count, 1, -1, 1)).reshape(weight.shape))


def _set_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give input ``index`` new values under its old name, or under a new one when another node reads it too."""
    value = node.inputs[index]
    assert value is not None
    array = np.ascontiguousarray(array, np.float32)
    if value.is_initializer() and len(list(value.uses())) == 1:
        value.const_value = ir.tensor(array, name=value.name)
    else:
        node.replace_input_with(index, add_initializer(graph, f"{value.name}_equalized", array))


def _one_by_one(
    model: ir.Model, chosen: Sequence[tuple[ChannelGroup, np.ndarray]], images: np.ndarray, before: list[np.ndarray]
) -> Equalized:
    """Scale group after group and undo those that change the outputs beyond the bound."""
    result = Equalized(model.clone(), 0, (), 0.0)
    for group, factors in chosen:
        changed = _scaled(result.model, [(group, factors)])
        diff = _change(before, run_outputs(changed, images))
        if diff <= MAX_RELATIVE_DIFF:
            line = _line(group, factors)
            result = Equalized(changed, result.groups + 1, (*result.lines, line), diff)
        else:
            line = f"{group.producers[0]}: left alone, the outputs would change by {diff:.1g} standard deviations"
            result = replace(result, lines=(*result.lines, line))
    return result


def _change(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    return max(relative_diff(b, a) for b, a in zip(before, after, strict=True))


def _line(group: ChannelGroup, factors: np.ndarray) -> str:
    scaled = int((factors > 1).sum())
    kind = "up to its Clip" if group.bounds else "in full" if group.only_depthwise else f"power {DENSE_POWER}"
    layers = f"{', '.join(group.producers)} -> {', '.join(group.consumers)}"
    return (
        f"{layers}: {scaled} of {len(factors)} channels, {kind}, factor {np.median(factors):.2f}..{factors.max():.2f}"
    )
