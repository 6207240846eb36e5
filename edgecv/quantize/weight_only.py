"""Weights stored in 16, 8 or 4 bits and computed with in float32: for the size of the file, not for speed.

Which layers stand four bits is measured, for it differs from network to network by orders of magnitude: rounded to four
bits everywhere, EfficientNet-Lite0 answers at random. Each layer alone is rounded and the network run on a few images;
the errors of single layers add up, so layers are taken by the bytes they save for the error they cause until the sum
reaches a limit. The others keep eight bits.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.errors import UsageError
from edgecv.graph.opset import set_lowest_ir_version, upgrade_opset
from edgecv.graph.values import constant_array
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.basis import prepare_float_model
from edgecv.quantize.compared import compare_answers, images_to_compare
from edgecv.quantize.coverage import measure_coverage
from edgecv.quantize.draft import output_error, run_outputs
from edgecv.quantize.int8_nodes import WEIGHT_OPS, weight_axis
from edgecv.quantize.layer_names import check_effect, resolve_excluded
from edgecv.quantize.static import QuantizedModel, tool_versions
from edgecv.quantize.weight_storage import (
    HALF_LIMIT,
    decode_int4,
    int4_block,
    store_float16,
    store_int4,
    store_int8,
)
from edgecv.quantize.weights import quantize_weight

WEIGHT_BITS = (16, 8, 4)
"""float16; int8, one scale a channel; int4, one scale for up to 32 weights, where the network stands it."""

INT4_OPSET = 21
"""The first with four-bit tensors (ONNX operator changelog, Cast)."""

INT4_ERROR = 10**-1.5
"""What four-bit layers together may add to the outputs' relative squared error: 15 dB."""

NO_SPEED = (
    "the weights are unpacked to float32 when the model loads: the file is smaller, but the network takes the time and "
    "memory of the float32 one; for speed use --int8"
)

_FEWEST_WEIGHTS = 256  # below, the operators that unpack take more room than is saved


@dataclass(frozen=True, slots=True)
class _Layer:
    node: ir.Node
    weight: np.ndarray
    axis: int


def store_weights(
    model: ir.Model,
    manifest: Manifest,
    batches: Batches | None = None,
    *,
    bits: int,
    exclude: Collection[str] = (),
    progress: Progress = no_progress,
) -> QuantizedModel:
    """Store the weights of a float32 model in fewer bits; activations and arithmetic stay float32.

    Args:
        model: A float32 model with one image input, at any opset; not changed.
        manifest: Its manifest.
        batches: Images to compare with and, for four bits, to choose layers on; the first four batches are used.
        bits: One of :data:`WEIGHT_BITS`.
        exclude: Nodes or layers (by their weight, ``conv_stem``) to leave as they are.
        progress: See :mod:`edgecv.progress`.

    Returns:
        The model, loaded once in ONNX Runtime, and a summary with ``settings``, ``tools``, ``prepared``, ``layers``,
        ``kept_float``, ``kept_int8`` (for four bits: layer to reason), ``coverage``, ``compared`` (see
        :func:`~edgecv.quantize.compared.compare_answers`) and ``notes``.

    Raises:
        UsageError: ``bits`` is none of the three, four bits without images, or as
            :func:`edgecv.quantize.static.quantize_static`.
    """
    if bits not in WEIGHT_BITS:
        raise UsageError(f"weights are stored in 16, 8 or 4 bits, not {bits}.")
    if bits == 4 and batches is None:
        raise UsageError(
            "four-bit weights need images, to see which layers stand them; add --data DIR, or use --weights-only 8."
        )
    prepared, lines = prepare_float_model(model)
    if bits == 4:
        prepared = upgrade_opset(prepared, INT4_OPSET)
    exclude = resolve_excluded(prepared, exclude)
    images = images_to_compare(prepared, manifest, batches)
    stored = prepared.clone()
    layers, kept = _layers(stored.graph, exclude, bits)
    check_effect(prepared, exclude, {*kept, *(str(layer.node.name) for layer in layers)})
    if not layers:
        raise UsageError("the model has no weights to store: no Conv, Gemm or MatMul with float weights.")
    chosen, kept_int8 = _stand_four_bits(prepared, layers, images, progress) if bits == 4 else (set(), {})
    for done, layer in enumerate(layers, 1):
        if bits == 16:
            store_float16(stored.graph, layer.node)
        elif layer.node.name in chosen:
            store_int4(stored.graph, layer.node, layer.axis)
        else:
            store_int8(stored.graph, layer.node, quantize_weight(layer.weight, layer.axis))
        progress("weights", done, len(layers))
    common.RemoveUnusedNodesPass()(stored)
    set_lowest_ir_version(stored)
    names = {16: "float16", 8: "int8 per channel", 4: "int4 per block, int8 per channel"}
    summary: Mapping[str, Any] = {
        "settings": {"format": "weights", "weights": names[bits], "exclude": list(exclude)},
        "tools": tool_versions(),
        "prepared": lines,
        "layers": len(layers),
        "kept_float": kept,
        "kept_int8": kept_int8,
        "coverage": measure_coverage(stored).as_dict(),
        "compared": compare_answers(prepared, stored, images),
        "notes": [NO_SPEED, *([_four_bit_note(layers, chosen)] if bits == 4 else [])],
    }
    return QuantizedModel(stored, summary)


def _layers(graph: ir.Graph, exclude: Collection[str], bits: int) -> tuple[list[_Layer], dict[str, str]]:
    """Return the layers with weights worth storing, and those left as they are with the reason."""
    layers: list[_Layer] = []
    kept: dict[str, str] = {}
    for node in graph:
        weight = constant_array(node.inputs[1]) if node.op_type in WEIGHT_OPS and not node.domain else None
        if weight is None or weight.dtype != np.float32 or weight.size < _FEWEST_WEIGHTS:
            continue
        if node.name in exclude:
            kept[str(node.name)] = "excluded by the user"
        elif weight.ndim < 2 or (node.op_type == "MatMul" and weight.ndim != 2):
            kept[str(node.name)] = f"its weight has {weight.ndim} dimensions"
        elif bits == 16 and (largest := float(np.abs(weight).max())) > HALF_LIMIT:
            kept[str(node.name)] = f"weight of {largest:.3g}"
        else:
            layers.append(_Layer(node, weight, weight_axis(node)))
    return layers, kept


def _stand_four_bits(
    model: ir.Model, layers: Sequence[_Layer], images: Batches, progress: Progress
) -> tuple[set[str], dict[str, str]]:
    """Return the layers to store in four bits, and the others with the reason."""
    looked_at = next(iter(images()))
    reference = run_outputs(model, looked_at)
    trial = model.clone()
    nodes = {node.name: node for node in trial.graph}
    gains: list[tuple[float, float, str]] = []
    kept: dict[str, str] = {}
    for done, layer in enumerate(layers, 1):
        name = str(layer.node.name)
        if int4_block(layer.weight, layer.axis):
            value = nodes[name].inputs[1]
            assert value is not None  # a layer has a weight
            original, value.const_value = value.const_value, ir.tensor(decode_int4(layer.weight, layer.axis))
            error = output_error(reference, run_outputs(trial, looked_at))
            value.const_value = original
            gains.append((error / layer.weight.size, error, name))
        else:
            kept[name] = "too few weights a channel"
        progress("four bits", done, len(layers))
    chosen: set[str] = set()
    total = 0.0
    for _, error, name in sorted(gains):
        if total + error <= INT4_ERROR:
            total += error
            chosen.add(name)
        else:
            kept[name] = f"four bits alone would leave {-10 * np.log10(error):.1f} dB"
    return chosen, kept


def _four_bit_note(layers: Sequence[_Layer], chosen: Collection[str]) -> str:
    share = sum(x.weight.size for x in layers if x.node.name in chosen) / sum(x.weight.size for x in layers)
    return (
        f"{share:.0%} of the weights are stored in four bits ({len(chosen)} of {len(layers)} layers), the rest in eight"
    )
