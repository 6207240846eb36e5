"""Drafts of small networks, for tests of what works on drafts."""

import numpy as np
import onnx_ir as ir
from small_graphs import MANIFEST, images

from edgecv.quantize.basis import draft_network, observe_network, prepare_basis
from edgecv.quantize.calibrate import ranges_of
from edgecv.quantize.draft import Draft


def small_draft(
    model: ir.Model, data: np.ndarray | None = None, *, ranges: str = "minmax", bias_correction: bool = True
) -> tuple[ir.Model, Draft]:
    """Return the prepared float network and a draft of it, calibrated on ``data``."""
    batch = images(12) if data is None else data
    basis = prepare_basis(model, MANIFEST, lambda: iter([batch]))
    seen = observe_network(basis.model, basis.placement, lambda: iter([batch]))
    spans = {**basis.pixels, **ranges_of(seen, ranges)}
    return basis.model, draft_network(basis.model, basis.placement, spans, seen, bias_correction=bias_correction)
