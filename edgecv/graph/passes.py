"""The passes every model goes through before it is written, quantized or timed."""

from collections.abc import Callable

import onnx_ir as ir

from edgecv.graph.clean import flush_denormals, remove_dead_nodes, strip_metadata
from edgecv.graph.fold_batch_norm import fold_batch_norm
from edgecv.graph.gelu import order_gelu
from edgecv.graph.global_pool import reduce_mean_to_global_pool

PASSES: tuple[tuple[str, Callable[[ir.Model], int]], ...] = (
    ("strip_metadata", strip_metadata),
    ("remove_dead_nodes", remove_dead_nodes),
    ("fold_batch_norm", fold_batch_norm),
    ("reduce_mean_to_global_pool", reduce_mean_to_global_pool),
    ("order_gelu", order_gelu),
    ("flush_denormals", flush_denormals),
    ("remove_dead_nodes", remove_dead_nodes),
)
"""Name and function, in order. Each returns how many places it changed."""


def prepare_for_inference(model: ir.Model) -> list[str]:
    """Run every pass in place and return one line for each that changed something (``"fold_batch_norm: 12"``)."""
    lines = []
    for name, run in PASSES:
        if count := run(model):
            lines.append(f"{name}: {count}")
    return lines
