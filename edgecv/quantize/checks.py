"""What a model must be before it can be quantized; one sentence for each way it is not."""

import numpy as np
import onnx_ir as ir

from edgecv.errors import UsageError
from edgecv.graph.precision import find_quantized
from edgecv.graph.values import constant_array

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def check_float_model(model: ir.Model, verb: str = "quantize") -> None:
    """Refuse a model that is not plain float32.

    Raises:
        UsageError: It is quantized already, holds float16 or bfloat16, or has NaN or infinite weights.
    """
    if found := find_quantized(model):
        raise UsageError(f"the model is quantized already ({found}); {verb} the float model it was made from.")
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in _HALF:
            raise UsageError(
                f"the model holds {tensor.dtype.name.lower()} weights ('{value.name}'); "
                f"{verb} the float32 model it was made from."
            )
    for value in model.graph.inputs:
        if value.dtype in _HALF:
            raise UsageError(f"graph input '{value.name}' is {value.dtype.name.lower()}; {verb} the float32 model.")


def check_weights_finite(model: ir.Model) -> None:
    """Raise UsageError naming the first weight with a NaN or an infinity."""
    for node in model.graph:
        for value in node.inputs[1:]:
            array = constant_array(value)
            bounds = node.op_type == "Clip"  # an infinite bound means no bound
            if array is not None and array.dtype == np.float32 and not bounds and not np.isfinite(array).all():
                raise UsageError(
                    f"weight '{value.name}' of node '{node.name}' holds NaN or infinity; "  # type: ignore[union-attr]
                    "train or fetch the model again."
                )


def name_nodes(model: ir.Model) -> int:
    """Give every node without a name, or with one that is taken, a name made from its output; return how many."""
    taken: set[str] = set()
    renamed = 0
    for node in model.graph:
        if not node.name or node.name in taken:
            base = name = f"{node.op_type}_{node.outputs[0].name}"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            node.name = name
            renamed += 1
        taken.add(node.name)
    return renamed
