"""Outlying channels behind a normalisation moved into the weights that read them: the same answers, an easier range.

In trained transformers a few channels of the tokens are ten times as large as the others, image after image, and one
scale for the whole tensor leaves the others few codes. Behind a LayerNormalization the factor of a channel can be taken
out of its scale and shift and put into the rows of the weights that read it, exactly. How much to move: the square root
of what a channel needs as an activation over what it needs as a weight, as in SmoothQuant (Xiao et al., ICML 2023,
equation 4, with strength 0.5). Weights have a scale for each output channel and are hurt less.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import add_initializer, constant_array
from edgecv.quantize.activations import stream_activations
from edgecv.quantize.int8_nodes import weight_axis

STRENGTH = 0.5
"""Share of the way from equal weights (0) to equal activations (1)."""

LARGEST_FACTOR = 16.0
"""No channel is scaled further: weights near zero would ask for any factor."""


def smooth_norms(model: ir.Model, images: np.ndarray) -> int:
    """Move channel factors from normalised tokens into the layers that read them, in place; return how many places.

    A place is a scale and a shift with one number for each of the last dimension's channels, in a LayerNormalization
    or as Mul and Add, whose result nothing but matrix products with constant weights reads.

    Args:
        model: A float model with one image input; constants are initializers.
        images: A few images of the graph's own input, to see how large each channel gets.
    """
    places = [(value, parts, readers) for value in _values(model.graph) if (parts := _affine_parts(value))
              and (readers := _readers(value, len(_array(parts[0][0], parts[0][1]))))]  # fmt: skip
    if not places:
        return 0
    peaks = _channel_peaks(model, [str(value.name) for value, _, _ in places], images)
    done = 0
    for value, parts, readers in places:
        rows = np.max([_row_peaks(node) for node in readers], axis=0)
        factor = _factors(peaks[str(value.name)], rows)
        if factor.max() == factor.min():
            continue
        for node, index in parts:
            _multiply(model.graph, node, index, 1 / factor)
        for node in readers:
            _multiply(model.graph, node, 1, factor[:, None] if weight_axis(node) else factor[None, :])
        done += 1
    return done


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [node.outputs[0] for node in graph if node.op_type in ("LayerNormalization", "Add") and not node.domain]


def _affine_parts(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return node and input index of the scale and of the shift that make ``value``; empty when they do not."""
    node = value.producer()
    assert node is not None  # by the caller
    if node.op_type == "LayerNormalization":
        axis = node.attributes.get("axis")
        parts = [(node, i) for i in range(1, len(node.inputs))] if axis is None or axis.as_int() == -1 else []
    else:
        shift = _constant_input(node)
        scaled = node.inputs[1 - shift].producer() if shift is not None else None  # type: ignore[union-attr]
        scale = _constant_input(scaled) if scaled is not None and scaled.op_type == "Mul" else None
        if shift is None or scaled is None or scale is None or len(list(scaled.outputs[0].uses())) != 1:
            return []
        parts = [(scaled, scale), (node, shift)]
    arrays = [constant_array(n.inputs[i]) for n, i in parts]
    fits = bool(arrays) and all(a is not None and a.ndim == 1 and a.dtype == np.float32 for a in arrays)
    return parts if fits and len({len(a) for a in arrays if a is not None}) == 1 else []


def _constant_input(node: ir.Node) -> int | None:
    found = [i for i, value in enumerate(node.inputs) if constant_array(value) is not None]
    return found[0] if len(found) == 1 and len(node.inputs) == 2 else None


def _readers(value: ir.Value, channels: int) -> list[ir.Node]:
    """Return the matrix products that read ``value``; empty when anything else does."""
    nodes = [use.node for use in value.uses() if use.idx == 0 and _is_product(use.node, channels)]
    return nodes if len(nodes) == len(list(value.uses())) and not value.is_graph_output() else []


def _is_product(node: ir.Node, channels: int) -> bool:
    weight = constant_array(node.inputs[1]) if node.op_type in ("MatMul", "Gemm") and len(node.inputs) > 1 else None
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or "transA" in node.attributes:
        return False
    return bool(weight.shape[0 if weight_axis(node) else 1] == channels)


def _channel_peaks(model: ir.Model, names: Sequence[str], images: np.ndarray) -> dict[str, np.ndarray]:
    peaks: dict[str, np.ndarray] = {}
    for seen in stream_activations(model, names, lambda: iter([images])):
        largest = np.abs(seen.values).reshape(-1, seen.values.shape[-1]).max(axis=0)
        peaks[seen.name] = np.maximum(peaks.get(seen.name, largest), largest)
    return peaks


def _row_peaks(node: ir.Node) -> np.ndarray:
    weight = _array(node, 1)
    return np.asarray(np.abs(weight).max(axis=weight_axis(node)))


def _factors(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what each channel is divided by, float32 around 1; 1 for channels that are empty."""
    alive = (activations > 0) & (weights > 0)
    factor = np.ones(len(activations), np.float64)
    if alive.any():
        factor[alive] = activations[alive] ** STRENGTH / weights[alive] ** (1 - STRENGTH)
        factor[alive] /= np.median(factor[alive])
    return np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)


def _array(node: ir.Node, index: int) -> np.ndarray:
    array = constant_array(node.inputs[index])
    assert array is not None  # by the choice of places
    return array


def _multiply(graph: ir.Graph, node: ir.Node, index: int, factor: np.ndarray) -> None:
    """Let ``node`` read a constant of its own, multiplied: another node may share the old one."""
    old = node.inputs[index]
    assert old is not None
    new = add_initializer(graph, str(old.name), (_array(node, index) * factor).astype(np.float32))
    node.replace_input_with(index, new)
