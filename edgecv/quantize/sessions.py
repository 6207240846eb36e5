"""Opening a graph that is still in memory in ONNX Runtime's CPU provider."""

from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgecv.errors import UsageError
from edgecv.runtime.host import usable_cores
from edgecv.runtime.native_log import plain_message
from edgecv.runtime.owners import load_onnxruntime

_FATAL_ONLY = 4


def open_graph(model: ir.Model, *, save_optimized: Path | None = None) -> Any:
    """Return an ``InferenceSession`` of ``model`` on the cores this process may use.

    Args:
        model: Weights in memory.
        save_optimized: Write the graph here as ONNX Runtime has rewritten it, up to its extended optimizations: the
            layout changes after those cannot be saved.

    Raises:
        UsageError: ONNX Runtime refuses the model, or it is over the 2 GiB that a model in memory may have.
        EnvironmentRefusedError: ONNX Runtime is not installed.
    """
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # numpy works between two runs
    options.enable_cpu_mem_arena = False  # an arena keeps what the largest batch took, for good
    if save_optimized is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(save_optimized)
    try:
        data = ir.to_proto(model).SerializeToString()
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except MemoryError:
        raise
    except Exception as e:  # onnxruntime's and protobuf's exceptions have no common base but this
        raise UsageError(f"ONNX Runtime {ort.__version__} refuses the model: {plain_message(str(e))}.") from e
    if getattr(session, "_model_bytes", None) is data:
        session._model_bytes = None  # kept only for a retry on other providers; a large model is large twice
    return session
