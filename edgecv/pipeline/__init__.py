"""The stages joined: each takes an artifact and gives a new one, checked; heavy imports happen when a stage runs."""

from edgecv.pipeline.export import ExportRequest, export_model
from edgecv.pipeline.quantize import quantize_model
from edgecv.pipeline.quantize_request import QuantizeRequest

__all__ = ["ExportRequest", "QuantizeRequest", "export_model", "quantize_model"]
