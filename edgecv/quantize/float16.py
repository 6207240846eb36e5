"""Half precision: weights and activations in float16, input and output as they were, float32 where the range demands.

Beside :data:`edgecv.quantize.half_graph.FLOAT32_OPS`, nodes stay in float32 whose weights leave float16, or whose
activations come within a factor of four of its end on the images looked at.
"""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from edgecv.graph.opset import set_lowest_ir_version
from edgecv.graph.values import constant_array
from edgecv.manifest import Manifest
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches, stream_activations
from edgecv.quantize.basis import prepare_float_model
from edgecv.quantize.compared import compare_answers, images_to_compare
from edgecv.quantize.half_graph import rewrite_to_half, value_types
from edgecv.quantize.layer_names import resolve_excluded
from edgecv.quantize.static import QuantizedModel, tool_versions
from edgecv.quantize.weight_storage import HALF_LIMIT

_HEADROOM = 4.0  # other images may go this many times higher than the ones looked at


def convert_float16(
    model: ir.Model,
    manifest: Manifest,
    batches: Batches | None = None,
    *,
    exclude: Collection[str] = (),
    progress: Progress = no_progress,
) -> QuantizedModel:
    """Convert a float32 model to float16, but for what float16 cannot hold.

    Args:
        model: A float32 model with one image input, at any opset; not changed.
        manifest: Its manifest.
        batches: Images to look for overflow on and to compare with, as the graph takes them; the first four batches
            are used. Without it: a black, a white and two noise images.
        exclude: Nodes or layers (by their weight, ``conv_stem``) to keep in float32.
        progress: See :mod:`edgecv.progress`.

    Returns:
        The model and a summary with ``settings``, ``tools``, ``prepared``, ``kept_float`` (node to reason) and
        ``compared`` (``n`` images, ``agreement`` 0..1, ``sqnr_db``, ``max_abs_diff`` of the first output).

    Raises:
        UsageError: The model is quantized or half precision already; a name in ``exclude`` is unknown; ONNX Runtime
            refuses the result, or its output is not finite.
    """
    prepared, lines = prepare_float_model(model)
    exclude = resolve_excluded(prepared, exclude)
    images = images_to_compare(prepared, manifest, batches)
    kept = dict.fromkeys(exclude, "excluded by the user")
    floats = [name for name, kind in value_types(prepared).items() if kind == ir.DataType.FLOAT]
    kept |= _overflowing(prepared, floats, images, progress)
    converted = prepared.clone()
    rewrite_to_half(converted, ir.DataType.FLOAT16, set(floats), set(kept))
    set_lowest_ir_version(converted)
    compared = compare_answers(prepared, converted, images)
    settings = {"format": "float16", "exclude": list(exclude)}
    summary = {
        "settings": settings,
        "tools": tool_versions(),
        "prepared": lines,
        "kept_float": kept,
        "compared": compared,
        "notes": [
            "float16 halves the file; most CPUs run it slower than float32: there --weights-only 16 is as small and as "
            "fast as float32"
        ],
    }
    return QuantizedModel(converted, summary)


def _overflowing(model: ir.Model, floats: list[str], images: Batches, progress: Progress) -> dict[str, str]:
    """Return the nodes whose weights or activations leave float16, with the value seen."""
    found: dict[str, str] = {}
    makers: dict[str, ir.Node] = {}
    for node in model.graph:
        for value in node.inputs[1:]:
            array = constant_array(value)
            if array is not None and array.dtype == np.float32 and array.size and node.op_type != "Clip":
                largest = float(np.abs(array).max())
                if largest > HALF_LIMIT:
                    found[str(node.name)] = f"weight of {largest:.3g}"
        makers |= {str(o.name): node for o in node.outputs}
    for seen in stream_activations(model, floats, images, progress=progress, label="look for overflow"):
        largest = float(np.abs(seen.values).max(initial=0.0))
        if not largest * _HEADROOM <= HALF_LIMIT:
            for node in (makers[seen.name], *(u.node for o in makers[seen.name].outputs for u in o.uses())):
                found.setdefault(str(node.name), f"activation of {largest:.3g}")
    return found
