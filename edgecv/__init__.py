"""From a PyTorch checkpoint to a verified, fast, small ONNX model on a given device.

>>> import edgecv
>>> edgecv.export_model(edgecv.ExportRequest("tf_efficientnet_lite0"))  # doctest: +SKIP

Everything below loads when it is first used, so that ``import edgecv`` costs nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgecv.errors import EdgecvError

if TYPE_CHECKING:
    from edgecv.benchmark.latency import compare_latency
    from edgecv.data.folder import open_dataset
    from edgecv.evaluate.accuracy import evaluate_models
    from edgecv.evaluate.parity import verify_models
    from edgecv.pipeline.export import ExportRequest, export_model
    from edgecv.pipeline.quantize import quantize_model
    from edgecv.pipeline.quantize_request import QuantizeRequest
    from edgecv.runtime.model import Model

__version__ = "0.1.0"

# ONNX Runtime 1.31 writes a device id and a database of events into the user's home when it is imported, unless this
# is set. Nothing edgecv does leaves the machine; who wants the events sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "EdgecvError",
    "ExportRequest",
    "Model",
    "QuantizeRequest",
    "__version__",
    "compare_latency",
    "evaluate_models",
    "export_model",
    "open_dataset",
    "quantize_model",
    "verify_models",
]

_PLACES = {
    "ExportRequest": "edgecv.pipeline.export",
    "Model": "edgecv.runtime.model",
    "QuantizeRequest": "edgecv.pipeline.quantize_request",
    "compare_latency": "edgecv.benchmark.latency",
    "evaluate_models": "edgecv.evaluate.accuracy",
    "export_model": "edgecv.pipeline.export",
    "open_dataset": "edgecv.data.folder",
    "quantize_model": "edgecv.pipeline.quantize",
    "verify_models": "edgecv.evaluate.parity",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'edgecv' has no attribute {name!r}")
