"""Decode → label, as an application pays for it: read the file, decode, preprocess, run, take the best label.

Runs inside the worker.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.benchmark.inputs import image_feeds
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.runtime.postprocess import softmax, top_k
from edgecv.runtime.preprocess import preprocess, to_model_input


def prepared_feeds(handle: Any, images: Sequence[Path], batch: int) -> list[dict[str, np.ndarray]]:
    """Return feeds made of real images, ready before the clock starts.

    Args:
        handle: The runtime's session, with its manifest.
        images: Image files.
        batch: Images per run.

    Raises:
        UsageError: The model has no manifest to preprocess by, or an image cannot be read.
    """
    spec = _input_spec(handle)
    return image_feeds(_pixels(images, spec), spec.name, batch)


def time_images(handle: Any, images: Sequence[Path], min_images: int, max_seconds: float) -> dict[str, Any]:
    """Classify images one at a time and return how long each part of each took.

    The first image is not counted. Files are read again each time round, from the page cache once they were read.

    Args:
        handle: The runtime's session, with its manifest.
        images: Image files; taken round and round.
        min_images: Images to time.
        max_seconds: Stop here at the latest.

    Returns:
        ``decode_ns`` (read, decode, preprocess), ``run_ns``, ``label_ns``: one number per image.
    """
    spec, manifest = _input_spec(handle), handle.manifest
    names = [o.name for o in handle.session.get_outputs()]
    parts: list[tuple[int, int, int]] = []
    clock = time.perf_counter_ns
    end = clock() + max_seconds * 1e9
    for i in range(min_images + 1):
        begin = clock()
        pixels = to_model_input(preprocess(images[i % len(images)], spec)[None], spec)
        decoded = clock()
        outputs = handle.session.run(names, {spec.name: pixels})
        ran = clock()
        scores = outputs[names.index(manifest.output.name)][0]
        best = top_k(scores if manifest.output.kind == "probabilities" else softmax(scores), 1)
        _ = manifest.output.labels[int(best[0])] if manifest.output.labels else best
        parts.append((decoded - begin, ran - decoded, clock() - ran))
        if clock() > end and len(parts) > 1:
            break
    timed = parts[1:]
    return {k: [p[i] for p in timed] for i, k in enumerate(("decode_ns", "run_ns", "label_ns"))}


def _pixels(images: Sequence[Path], spec: InputSpec) -> Iterator[np.ndarray]:
    for path in images:
        yield to_model_input(preprocess(path, spec)[None], spec)[0]


def _input_spec(handle: Any) -> InputSpec:
    if handle.manifest is None:
        raise UsageError(
            "--data needs to know the model's preprocessing and this file has no edgecv manifest; "
            "adopt it first: edgecv export MODEL.onnx --mean M --std S --labels FILE"
        )
    spec: InputSpec = handle.manifest.input
    return spec
