"""What a conversion did to the network's answers, on images given or, without any, on what an image can be at most."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecv.errors import UsageError
from edgecv.graph.interface import only_image_input
from edgecv.graph.model_file import open_model
from edgecv.manifest import Manifest
from edgecv.quantize.activations import Batches
from edgecv.quantize.input_range import black_and_white

_LOOK_AT_BATCHES = 4


def images_to_compare(model: ir.Model, manifest: Manifest, batches: Batches | None) -> Batches:
    """Return the first four batches of ``batches``; without it a black, a white and two noise images."""
    if batches is not None:
        return lambda: islice(batches(), _LOOK_AT_BATCHES)
    ends = black_and_white(only_image_input(model), manifest.input)
    low, high = ends.min(axis=0), ends.max(axis=0)
    rng = np.random.default_rng(0)
    noise = (low + rng.random((2, *low.shape)) * (high.astype(np.float64) - low)).astype(ends.dtype)
    return lambda: iter([np.concatenate([ends, noise])])


def compare_answers(
    reference: ir.Model, candidate: ir.Model, images: Batches, *, provider: str = "cpu"
) -> dict[str, Any]:
    """Run both models, the candidate on ``provider``, and compare their first outputs.

    Returns:
        ``n`` images, ``agreement`` of the decisions (0..1), ``sqnr_db`` (None when equal) and ``max_abs_diff``.

    Raises:
        UsageError: The candidate's output is not finite; or a model or the images cannot be used.
        EnvironmentRefusedError: The provider does not run the candidate.
    """
    noise = signal = largest = 0.0
    same = total = 0
    for a, b in _both_outputs(reference, candidate, images, provider):
        if not np.isfinite(b).all():
            raise UsageError(
                "the converted model gives NaN or infinity where the float model does not; give images with --data, so "
                "that what overflows is found, or name layers with --keep-float."
            )
        difference = b.astype(np.float64) - a
        noise += float(np.square(difference).sum())
        signal += float(np.square(a.astype(np.float64)).sum())
        largest = max(largest, float(np.abs(difference).max()))
        same += int((a.argmax(axis=-1) == b.argmax(axis=-1)).sum())
        total += a[..., 0].size
    sqnr = 10 * np.log10(signal / noise) if noise > 0 and signal > 0 else None
    return {
        "n": total,
        "agreement": same / total,
        "sqnr_db": None if sqnr is None else round(float(sqnr), 2),
        "max_abs_diff": largest,
    }


def _both_outputs(
    reference: ir.Model, candidate: ir.Model, images: Batches, provider: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    feed = only_image_input(reference)
    fixed = feed.shape[0] if feed.shape is not None and isinstance(feed.shape[0], int) else 0
    sessions = open_model(reference).session, open_model(candidate, provider=provider).session
    for batch in images():
        step = fixed or len(batch)
        for part in (batch[i : i + step] for i in range(0, len(batch), step)):
            padded = np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)])
            a, b = (s.run([s.get_outputs()[0].name], {s.get_inputs()[0].name: padded})[0] for s in sessions)
            yield a[: len(part)], b[: len(part)]
