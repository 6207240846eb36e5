"""A quantization that is decided but not written: the float network, what runs in int8, ranges and weights.

The rungs of the ladder and the measurements between them work on drafts; one function writes quantizers into a graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgecv.graph.interface import only_image_input
from edgecv.quantize.affine import LEVELS, Affine, Range, affine_of
from edgecv.quantize.insert import insert_quantizers
from edgecv.quantize.placement import Placement
from edgecv.quantize.sessions import open_graph
from edgecv.quantize.weights import QuantizedWeight

ROWS_AT_ONCE = 8
"""Images run together where a graph takes any number: enough to use all cores, few enough to stay small."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A float network and the decisions about its quantization. Nothing in it is changed in place: make a new one.

    Attributes:
        model: float32, prepared (:func:`edgecv.quantize.basis.prepare_float_model`); its biases are those to store.
        placement: What runs in int8.
        ranges: Range of every tensor of ``placement.tensors`` that has a scale of its own, the input included.
        weights: Stored weights by node name, for every node of ``placement.layers``.
        levels: Highest code of an activation: 255, or 65535 in 16 bits.
    """

    model: ir.Model
    placement: Placement
    ranges: Mapping[str, Range]
    weights: Mapping[str, QuantizedWeight]
    levels: int = LEVELS

    @property
    def affines(self) -> dict[str, Affine]:
        """Scale and zero point of every tensor in ``ranges``."""
        return {name: affine_of(span, self.levels) for name, span in self.ranges.items()}


def write_quantizers(draft: Draft) -> tuple[ir.Model, int]:
    """Return a new graph with the draft's quantizers, and how many float layers were shielded (``insert_quantizers``).

    This is the file as it will be, before the rewrites of codes that only make it faster.
    """
    model = draft.model.clone()
    shielded = insert_quantizers(model, draft.placement, draft.affines, draft.weights)
    common.RemoveUnusedNodesPass()(model)
    return model, shielded


def run_outputs(model: ir.Model, images: np.ndarray) -> list[np.ndarray]:
    """Return every output of ``model`` over ``images`` (the graph's own input), a few images at a time.

    A graph with a fixed batch gets the last image repeated, and the extra rows are cut off again.

    Raises:
        UsageError: ONNX Runtime refuses the model.
    """
    feed = only_image_input(model)
    session = open_graph(model)
    fixed = feed.shape[0] if feed.shape is not None and isinstance(feed.shape[0], int) else 0
    rows = fixed or ROWS_AT_ONCE
    parts: list[list[np.ndarray]] = []
    for start in range(0, len(images), rows):
        part = images[start : start + rows]
        fed = part if not fixed else np.concatenate([part, np.repeat(part[-1:], fixed - len(part), axis=0)])
        outputs = session.run(None, {feed.name: fed})
        parts.append([o if not fixed else o[: len(o) // fixed * len(part)] for o in outputs])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def output_error(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """Return the squared error of a graph's outputs relative to their squares: 1 / SQNR, summed over the outputs.

    Outputs that are zero everywhere in ``reference`` do not count. Infinite when a value is not finite.
    """
    total = 0.0
    for expected, found in zip(reference, outputs, strict=True):
        if expected.dtype.kind != "f" or not (power := float(np.square(expected, dtype=np.float64).sum())):
            continue
        error = float(np.square(expected.astype(np.float64) - found).sum()) / power
        total += error if np.isfinite(error) else np.inf
    return total


def error_db(error: float) -> float:
    """Return an :func:`output_error` as a signal-to-noise ratio in dB; infinite for no error."""
    return float(-10 * np.log10(error)) if error > 0 else float("inf")
