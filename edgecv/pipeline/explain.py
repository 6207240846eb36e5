"""``edgecv quantize --explain``: where an int8 network's error comes from, by layer, and what float would cost."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from edgecv.pipeline.layer_cost import layer_costs, open_cost_meter
from edgecv.pipeline.mixed_precision import Machine
from edgecv.progress import Progress, no_progress
from edgecv.quantize.affine import affine_of
from edgecv.quantize.draft import Draft, error_db, output_error, run_outputs, write_quantizers
from edgecv.quantize.int8_nodes import PASSING_OPS, output_tensor
from edgecv.quantize.layer_names import layer_names
from edgecv.quantize.restrict import keep_float
from edgecv.quantize.sensitivity import Sensitivity, measure_sensitivity

WORST_LAYERS = 24
"""So many layers are also tried and timed in float one by one; about a second each."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One node that runs in int8, or the image; None where a figure does not apply or was not measured.

    Attributes:
        layer: What ``--keep-float`` takes; the tensor's name for the image.
        operator: ``Conv``, ``Add``, …, or ``input``.
        weight_shape: Shape of the weights.
        low: Smallest number its output's codes reach.
        high: Largest such number.
        clipped: Share of its output's values beyond them (0..1).
        weights_db: Signal to noise of the network's outputs with its weights alone quantized.
        output_db: The same with its output alone quantized.
        alone_db: The same with its weights, input and output quantized.
        share_weights: Share of its weights in the sum of all single errors (0..1).
        share_output: The same of its output.
        gain: Share of the network's error that goes when this layer alone stays float (0..1; chance may make it
            negative).
        cost_ms: Milliseconds a run takes longer then; negative when it is faster.
    """

    layer: str
    operator: str
    weight_shape: tuple[int, ...] | None
    low: float | None
    high: float | None
    clipped: float | None
    weights_db: float | None
    output_db: float | None
    alone_db: float | None
    share_weights: float
    share_output: float
    gain: float | None = None
    cost_ms: float | None = None

    @property
    def share(self) -> float:
        """Share of the sum of all single errors (0..1)."""
        return self.share_weights + self.share_output


@dataclass(frozen=True, slots=True)
class Explanation:
    """All rows, in the order of the graph.

    Attributes:
        rows: See :class:`LayerRow`.
        sqnr_db: Signal to noise of the whole quantized network's outputs; None when they are equal.
        predicted_db: What it would be if single errors added up: how far the shares can be trusted.
        int8_ms: Time of all kernels of the quantized network, in milliseconds a run.
        n: Images.
        threads: What it was timed with.
    """

    rows: tuple[LayerRow, ...]
    sqnr_db: float | None
    predicted_db: float | None
    int8_ms: float
    n: int
    threads: str

    @property
    def worst(self) -> list[LayerRow]:
        """The rows by their share of the error, largest first."""
        return sorted(self.rows, key=lambda row: -row.share)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable data; every row has ``share`` too."""
        return asdict(self) | {"rows": [asdict(row) | {"share": row.share} for row in self.rows]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what :meth:`to_dict` gave; further keys are left out."""
        known = {f.name for f in fields(LayerRow)}
        rows = tuple(LayerRow(**{k: v for k, v in row.items() if k in known}) for row in data["rows"])
        return cls(rows=rows, **{f.name: data[f.name] for f in fields(cls) if f.name != "rows"})


def explain_draft(
    draft: Draft,
    own: ir.Model,
    images: np.ndarray,
    rewrites: Collection[str],
    *,
    machine: Machine | None = None,
    progress: Progress = no_progress,
) -> Explanation:
    """Measure every layer of a quantization by itself, and the worst also in float.

    Args:
        draft: The quantization.
        own: The same float network with its own biases, before any correction.
        images: A few calibration images (:data:`edgecv.quantize.sensitivity.SENSITIVITY_IMAGES`).
        rewrites: Names of the rewrites of codes the file gets.
        machine: Where to time.
        progress: See :mod:`edgecv.progress`.
    """
    place = machine or Machine()
    parts = measure_sensitivity(draft, own, images, progress=progress)
    reference = run_outputs(own, images)
    whole = output_error(reference, run_outputs(write_quantizers(draft)[0], images))
    worst = sorted(draft.placement.layers, key=lambda n: -parts.alone[n])[:WORST_LAYERS]
    gains = {}
    for name in worst if whole else ():
        kept = write_quantizers(keep_float(draft, own, [name], "to be judged"))[0]
        gains[name] = 1 - output_error(reference, run_outputs(kept, images)) / whole
    meter = open_cost_meter(draft, rewrites, provider=place.provider, threads=place.threads, seed=place.seed)
    costs = layer_costs(meter, draft, own, worst, progress)
    predicted = parts.predict(draft.placement)
    rows = _rows(draft, parts, predicted or 1.0, gains, costs)
    return Explanation(tuple(rows), _db(whole), _db(predicted), meter.int8_ms, len(images), place.threads)


def _rows(
    draft: Draft, parts: Sensitivity, total: float, gains: dict[str, float], costs: dict[str, float]
) -> list[LayerRow]:
    labels = layer_names(draft.model.graph)
    rows = [_row(name, "input", None, name, draft, parts, total) for name in draft.placement.from_input]
    int8 = {*draft.placement.layers, *draft.placement.others}
    for node in draft.model.graph:
        name = str(node.name)
        if name not in int8 or node.op_type in PASSING_OPS:
            continue
        tensor = str(output_tensor(node).name)
        layer = name if name in draft.weights else None
        shown = labels.get(node, name)
        rows.append(_row(shown, node.op_type, layer, tensor, draft, parts, total, gains.get(name), costs.get(name)))
    return rows


def _row(
    label: str,
    operator: str,
    layer: str | None,
    tensor: str,
    draft: Draft,
    parts: Sensitivity,
    total: float,
    gain: float | None = None,
    cost_ms: float | None = None,
) -> LayerRow:
    span = draft.ranges.get(tensor)
    affine = None if span is None else affine_of(span, draft.levels)
    weights, output = parts.weights.get(layer or "", 0.0), parts.tensors.get(tensor, 0.0)
    return LayerRow(
        layer=label,
        operator=operator,
        weight_shape=None if layer is None else tuple(draft.weights[layer].codes.shape),
        low=None if affine is None else float(-affine.zero_point * affine.scale),
        high=None if affine is None else float((affine.levels - affine.zero_point) * affine.scale),
        clipped=parts.clipped.get(tensor),
        weights_db=None if layer is None else _db(weights),
        output_db=None if affine is None else _db(output),
        alone_db=_db(parts.alone[layer]) if layer is not None else _db(output),
        share_weights=weights / total,
        share_output=output / total,
        gain=gain,
        cost_ms=cost_ms,
    )


def _db(error: float) -> float | None:
    """Return decibels; None when there is no error at all, which JSON has no number for."""
    level = error_db(error)
    return level if math.isfinite(level) else None
