"""What exporters leave behind: stack traces, identities, dead nodes, denormal weights."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.graph.values import constant_array

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def strip_metadata(model: ir.Model) -> int:
    """Remove per-node metadata, doc strings and stack traces; return how many nodes carried some.

    The dynamo exporter writes the source path and line of every operation into the file, which makes it depend on
    where Python was installed and grows small models.
    """
    carried = sum(bool(node.metadata_props or node.doc_string) for node in model.graph.all_nodes())
    keep = dict(model.metadata_props)
    common.ClearMetadataAndDocStringPass()(model)
    for value in _all_values(model):
        value.metadata_props.clear()
        value.doc_string = None
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update(keep)
    model.producer_name, model.producer_version, model.doc_string = "edgecv", None, None
    return carried


def remove_dead_nodes(model: ir.Model) -> int:
    """Inline functions, lift Constant nodes to initializers, drop identities and what nothing uses; return how many."""
    before = len(model.graph)
    for step in (
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
    ):
        step(model)
    return before - len(model.graph)


def flush_denormals(model: ir.Model) -> int:
    """Set float32 weights below the smallest normal number (1.18e-38) to zero; return how many there were.

    A CPU computes with denormals up to 100 times slower, and a trained network can be full of them
    (github.com/microsoft/onnxruntime/issues/12959, github.com/lukemelas/EfficientNet-PyTorch/issues/39).
    """
    flushed = 0
    for value in model.graph.initializers.values():
        array = constant_array(value)
        if array is None or array.dtype != np.float32:
            continue
        tiny = (array != 0) & (np.abs(array) < SMALLEST_NORMAL)
        if count := int(tiny.sum()):
            value.const_value = ir.tensor(np.where(tiny, np.float32(0), array), name=value.name)
            flushed += count
    return flushed


def _all_values(model: ir.Model) -> list[ir.Value]:
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [o for node in model.graph.all_nodes() for o in node.outputs]
    return values
