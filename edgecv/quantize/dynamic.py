"""Dynamic int8 quantization: int8 weights, activations quantized afresh for every run; no calibration images.

A matrix product becomes DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul by both scales -> Add of the bias, which
ONNX Runtime fuses into one DynamicQuantizeMatMul. A convolution keeps int8 weights in the file and computes in float
(:mod:`edgecv.quantize.weight_storage`): ConvInteger was 3.4 times slower than float32 with uint8 weights and 12 times
with int8 ones (EfficientNet-Lite0, one thread, ONNX Runtime 1.31). ONNX Runtime's own ``quantize_dynamic`` uses
ConvInteger with one scale for the whole weight: 90 % agreement with float instead of 98.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.errors import UsageError
from edgecv.graph.opset import set_lowest_ir_version
from edgecv.graph.values import add_initializer, constant_array, make_node, unique_name
from edgecv.progress import Progress, no_progress
from edgecv.quantize.basis import prepare_float_model
from edgecv.quantize.coverage import measure_coverage
from edgecv.quantize.int8_nodes import weight_axis
from edgecv.quantize.layer_names import check_effect, resolve_excluded
from edgecv.quantize.pair_sums import limit_channels
from edgecv.quantize.placement import place_quantizers
from edgecv.quantize.static import QuantizedModel, tool_versions
from edgecv.quantize.weight_storage import store_int8
from edgecv.quantize.weights import quantize_weight

_GAINS_NO_SPEED = (
    "convolutions gain size, not speed, from dynamic quantization: their weights are int8 in the file and unpacked to "
    "float32 when it loads; with a folder of images, --int8 is faster"
)

_Measured = tuple[ir.Value, ir.Value, ir.Value]  # codes, scale, zero point of an activation


def quantize_dynamic(
    model: ir.Model, *, exclude: Collection[str] = (), progress: Progress = no_progress
) -> QuantizedModel:
    """Quantize the weights of a float model to int8, with activations quantized at run time.

    Args:
        model: A float32 model with one image input, at any opset; not changed.
        exclude: Nodes or layers (by their weight, ``conv_stem``) to keep in float.
        progress: See :mod:`edgecv.progress`.

    Returns:
        The model, loaded once in ONNX Runtime, and a summary with ``settings``, ``tools``, ``prepared``, ``layers``,
        ``kept_float``, ``coverage`` and ``notes`` (what the user should know).

    Raises:
        UsageError: As :func:`edgecv.quantize.static.quantize_static`.
    """
    prepared, lines = prepare_float_model(model)
    exclude = resolve_excluded(prepared, exclude)
    placement = place_quantizers(prepared, exclude)
    check_effect(prepared, exclude, {*placement.layers, *placement.kept_float})
    chosen = [node for node in prepared.graph if node.name in placement.layers]
    if not chosen:
        raise UsageError("the model has no layer to quantize: no Conv, Gemm or MatMul with float weights.")
    convolutions = [node for node in chosen if node.op_type == "Conv"]
    measured: dict[ir.Value, _Measured] = {}
    for done, node in enumerate(chosen, 1):
        if node.op_type == "Conv":
            weight = constant_array(node.inputs[1])
            assert weight is not None  # by placement
            store_int8(prepared.graph, node, quantize_weight(weight, weight_axis(node)))
        else:
            _rewrite_product(prepared.graph, node, measured)
        progress("weights", done, len(chosen))
    common.RemoveUnusedNodesPass()(prepared)
    set_lowest_ir_version(prepared)
    summary = {
        "settings": {"format": "dynamic", "weights": "int8 per channel", "exclude": list(exclude)},
        "tools": tool_versions(),
        "prepared": lines,
        "layers": len(chosen),
        "kept_float": dict(placement.kept_float),
        "coverage": measure_coverage(prepared).as_dict(),
        "notes": [_GAINS_NO_SPEED] if len(convolutions) * 2 > len(chosen) else [],
    }
    return QuantizedModel(prepared, summary)


def _rewrite_product(graph: ir.Graph, node: ir.Node, measured: dict[ir.Value, _Measured]) -> None:
    """Replace a Gemm or MatMul by its integer chain; the output keeps its name."""
    source, weight_value = node.inputs[0], node.inputs[1]
    weight, bias = constant_array(weight_value), constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    assert source is not None  # these three by placement
    assert weight_value is not None
    assert weight is not None
    if source not in measured:
        measured[source] = _measure(graph, node, source)
    codes_in, scale_in, zero_in = measured[source]
    quantized = limit_channels(weight, quantize_weight(weight, weight_axis(node)))  # the file may go to any CPU
    codes = quantized.codes if quantized.axis == 1 else np.ascontiguousarray(quantized.codes.T)
    stored = add_initializer(graph, f"{weight_value.name}_quantized", codes)
    scale_w = add_initializer(graph, f"{weight_value.name}_scale", quantized.scale)
    name = node.outputs[0].name
    product = _node(graph, "MatMulInteger", [codes_in, stored, zero_in], f"{name}_int32", ir.DataType.INT32)
    cast = _node(graph, "Cast", product.outputs, f"{name}_cast", to=ir.DataType.FLOAT.value)
    scales = _node(graph, "Mul", [scale_in, scale_w], f"{name}_scale")
    scaled = _node(graph, "Mul", [cast.outputs[0], scales.outputs[0]], f"{name}_scaled")
    chain = [product, cast, scales, scaled]
    if bias is not None:
        shift = add_initializer(graph, f"{node.inputs[2].name}_added", bias.reshape(-1))  # type: ignore[union-attr]
        chain.append(_node(graph, "Add", [scaled.outputs[0], shift], f"{name}_biased"))
    graph.insert_before(node, chain)
    old, new = node.outputs[0], chain[-1].outputs[0]
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name, new.type, new.shape = old.name, old.type, old.shape


def _measure(graph: ir.Graph, node: ir.Node, source: ir.Value) -> _Measured:
    """Quantize ``source`` with the range it turns out to have in each run."""
    codes, scale, zero_point = (
        ir.Value(name=unique_name(graph, f"{source.name}_{part}"))
        for part in ("quantized", "run_scale", "run_zero_point")
    )
    measure = ir.Node(
        "", "DynamicQuantizeLinear", [source], outputs=[codes, scale, zero_point], name=f"{source.name}_measured"
    )
    graph.insert_before(node, measure)
    return codes, scale, zero_point


def _node(
    graph: ir.Graph,
    op_type: str,
    inputs: Collection[ir.Value],
    name: str,
    dtype: ir.DataType = ir.DataType.FLOAT,
    **attributes: int,
) -> ir.Node:
    return make_node(op_type, list(inputs), unique_name(graph, name), dtype=dtype, shape=None, **attributes)
