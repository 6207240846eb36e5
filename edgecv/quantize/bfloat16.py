"""bfloat16: the range of float32 in half the bits, for providers that have kernels for it.

ONNX Runtime's CPU provider has no bfloat16 arithmetic at all, only operators that move bytes, and unlike float16 there
is no fallback to float32: a graph in bfloat16 does not load (https://github.com/microsoft/onnxruntime/issues/28768,
seen with 1.31). The CUDA provider has kernels for some operators and not for others, by release, so each operator of
the network is tried by itself on the provider, and those without a kernel stay in float32.

Storing bfloat16 weights for a float32 network is no use: 8 significant bits leave 30 dB on EfficientNet-Lite0, float16
of the same size 48 dB.
"""

from collections.abc import Collection

import onnx_ir as ir

from edgecv.errors import EdgecvError, EnvironmentRefusedError
from edgecv.graph.model_file import open_model
from edgecv.graph.opset import set_lowest_ir_version, upgrade_opset
from edgecv.graph.values import constant_array
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.basis import prepare_float_model
from edgecv.quantize.compared import compare_answers, images_to_compare
from edgecv.quantize.half_graph import FLOAT32_OPS, rewrite_to_half, value_types
from edgecv.quantize.int8_nodes import WEIGHT_OPS
from edgecv.quantize.layer_names import resolve_excluded
from edgecv.quantize.static import QuantizedModel, tool_versions

BFLOAT16_OPSET = 22
"""The first whose convolutions and pools may be bfloat16 (ONNX operator changelog, Conv)."""

_INSTEAD = "try one that has (--provider cuda), or for half the size at float32's speed --weights-only 16"


def convert_bfloat16(
    model: ir.Model,
    manifest: Manifest,
    batches: Batches | None = None,
    *,
    provider: str = "cuda",
    exclude: Collection[str] = (),
    progress: Progress = no_progress,
) -> QuantizedModel:
    """Convert a float32 model to bfloat16, but for operators that ``provider`` has no bfloat16 kernel for.

    Args:
        model: A float32 model with one image input, at any opset; not changed.
        manifest: Its manifest.
        batches: Images to compare with; the first four batches are used. Without it: a black, a white and two noise
            images.
        provider: Where it is to run; the result is loaded and run there.
        exclude: Nodes or layers (by their weight, ``conv_stem``) to keep in float32.
        progress: See :mod:`edgecv.progress`.

    Returns:
        The model and a summary as :func:`edgecv.quantize.float16.convert_float16`, with ``layers``, the number of
        layers in bfloat16.

    Raises:
        UsageError: As :func:`edgecv.quantize.float16.convert_float16`.
        EnvironmentRefusedError: The provider does not start here, or has no bfloat16 kernel for any operator that
            holds the network's weights.
    """
    prepared, lines = prepare_float_model(model)
    open_model(prepared, provider=provider)  # a provider that is not here says so itself
    prepared = upgrade_opset(prepared, BFLOAT16_OPSET)
    exclude = resolve_excluded(prepared, exclude)
    types = value_types(prepared)
    lacking = operators_without_kernel(prepared, types, provider, progress)
    layers = [n for n in prepared.graph if n.op_type in WEIGHT_OPS and constant_array(n.inputs[1]) is not None]
    running = [n for n in layers if n.op_type not in lacking and n.name not in exclude]
    if not running:
        raise EnvironmentRefusedError(
            f"provider '{provider}' has no bfloat16 kernel for {', '.join(sorted(lacking))}, so no layer of the "
            f"network can run in bfloat16 there; {_INSTEAD}."
        )
    kept = {str(n.name): f"no bfloat16 kernel for {n.op_type}" for n in prepared.graph if n.op_type in lacking}
    kept |= dict.fromkeys(exclude, "excluded by the user")
    converted = prepared.clone()
    floats = {name for name, kind in types.items() if kind == ir.DataType.FLOAT}
    rewrite_to_half(converted, ir.DataType.BFLOAT16, floats, set(kept))
    set_lowest_ir_version(converted)
    summary = {
        "settings": {"format": "bfloat16", "provider": provider, "exclude": list(exclude)},
        "tools": tool_versions(),
        "prepared": lines,
        "layers": len(running),
        "kept_float": kept,
        "compared": compare_answers(
            prepared, converted, images_to_compare(prepared, manifest, batches), provider=provider
        ),
        "notes": [f"bfloat16 runs where the provider has kernels for it; this file was loaded on '{provider}'"],
    }
    return QuantizedModel(converted, summary)


def operators_without_kernel(
    model: ir.Model, types: dict[str, ir.DataType], provider: str, progress: Progress = no_progress
) -> set[str]:
    """Return the operators of ``model`` that ``provider``, or the CPU behind it, has no bfloat16 kernel for.

    Args:
        model: A float32 model at :data:`BFLOAT16_OPSET` or above.
        types: Of every computed value, see :func:`edgecv.quantize.half_graph.value_types`.
        provider: Short name of a provider that starts here.
        progress: See :mod:`edgecv.progress`.
    """
    tried: dict[str, ir.Node] = {}
    for node in model.graph:
        if node.op_type not in FLOAT32_OPS and any(types.get(str(o.name)) == ir.DataType.FLOAT for o in node.outputs):
            tried.setdefault(node.op_type, node)
    lacking = set()
    for done, (op_type, node) in enumerate(tried.items(), 1):
        alone = _alone(model, node, types)
        try:
            open_model(alone, provider=provider)
        except EdgecvError:  # whatever the reason, it cannot be in the file
            lacking.add(op_type)
        progress("operators", done, len(tried))
    return lacking


def _alone(model: ir.Model, node: ir.Node, types: dict[str, ir.DataType]) -> ir.Model:
    """Return a model of one node, its float32 inputs and outputs in bfloat16."""
    half = ir.DataType.BFLOAT16
    inputs: dict[ir.Value, ir.Value] = {}
    constants: list[ir.Value] = []
    for value in (v for v in node.inputs if v is not None and v not in inputs):
        array = constant_array(value)
        if array is None:
            kind = value.dtype if value.is_graph_input() else types[str(value.name)]
            assert kind is not None  # a graph input has a type
            kind = half if kind == ir.DataType.FLOAT else kind
            inputs[value] = ir.Value(name=f"x{len(inputs)}", type=ir.TensorType(kind), shape=value.shape)
            continue
        if array.dtype.name == "float32":
            array = array.astype(half.numpy())
        name = f"c{len(inputs)}"
        inputs[value] = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        constants.append(inputs[value])
    outputs = []
    for i, value in enumerate(node.outputs):
        kind = types[str(value.name)]
        outputs.append(ir.Value(name=f"y{i}", type=ir.TensorType(half if kind == ir.DataType.FLOAT else kind)))
    attributes = dict(node.attributes)
    if node.op_type == "Cast" and types[str(node.outputs[0].name)] == ir.DataType.FLOAT:
        attributes["to"] = ir.AttrInt64("to", half.value)
    read = [None if v is None else inputs[v] for v in node.inputs]
    copy = ir.Node(node.domain, node.op_type, read, attributes.values(), outputs=outputs, name=node.name)
    feeds = [v for v in inputs.values() if v not in constants]
    imports = dict(model.opset_imports)
    graph = ir.Graph(feeds, outputs, nodes=[copy], initializers=constants, opset_imports=imports, name="one")
    alone = ir.Model(graph, ir_version=model.ir_version)
    set_lowest_ir_version(alone)
    return alone
