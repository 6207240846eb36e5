"""Inputs for a benchmark, made outside the clock: random ones of the right shape, or real photographs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec

Feed = Mapping[str, np.ndarray]  # graph input name -> array, first axis = batch

MAX_VARIANTS = 8
"""Different inputs that are taken in turn, so that no run profits from the very values of the one before."""

_MAX_BYTES = 64 << 20

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def input_shape(node: Any, batch: int, spec: InputSpec | None, where: str) -> tuple[int, ...]:
    """Return the shape of one graph input for ``batch`` images.

    Args:
        node: An ONNX Runtime ``NodeArg``: ``name``, ``type``, ``shape`` (numbers, names, or None).
        batch: Images per run.
        spec: The manifest's description of the image input; gives height and width where the graph leaves them free.
        where: The model's file name, for messages.

    Raises:
        UsageError: The graph is fixed to another batch, or leaves an axis free that nothing describes.
    """
    shape = list(node.shape)
    if not shape:
        return ()
    if isinstance(shape[0], int) and shape[0] > 0:
        if shape[0] != batch:
            raise UsageError(
                f"'{where}' is fixed to batch {shape[0]} and cannot run batch {batch}; "
                f"use --batch {shape[0]}, or export it with a dynamic batch."
            )
    else:
        shape[0] = batch
    if spec is not None and node.name == spec.name and len(shape) == 4:
        channels, height, width = spec.input_size
        known = (height, width, channels) if spec.layout == "NHWC" else (channels, height, width)
        shape[1:] = [d if isinstance(d, int) and d > 0 else k for d, k in zip(shape[1:], known, strict=True)]
    free = [str(d) for d in shape if not isinstance(d, int) or d <= 0]
    if free:
        raise UsageError(
            f"input '{node.name}' of '{where}' leaves {', '.join(free)} free and the file has no manifest that "
            f"fills them in; adopt it first: edgecv export {where} --mean M --std S --labels FILE"
        )
    return tuple(shape)


def random_feeds(
    nodes: Sequence[Any], batch: int, spec: InputSpec | None, where: str, seed: int
) -> list[dict[str, np.ndarray]]:
    """Return up to :data:`MAX_VARIANTS` seeded random feeds, together at most 64 MiB (but at least one feed).

    Float inputs are standard normal (what normalised pixels look like), uint8 covers 0..255, other integers 0..1
    (a valid index or mask anywhere).
    """
    rng = np.random.default_rng(seed)
    shapes = {n.name: (input_shape(n, batch, spec, where), _dtype(n, where)) for n in nodes}
    size = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes.values())
    count = max(1, min(MAX_VARIANTS, _MAX_BYTES // max(size, 1)))
    return [{name: _random(rng, *kind) for name, kind in shapes.items()} for _ in range(count)]


def image_feeds(images: Iterator[np.ndarray], name: str, batch: int) -> list[dict[str, np.ndarray]]:
    """Stack preprocessed images into up to :data:`MAX_VARIANTS` feeds of ``batch`` images.

    Args:
        images: Model-ready arrays without the batch axis; only as many as are needed are taken.
        name: The graph input's name.
        batch: Images per run; images are repeated when there are fewer.
    """
    feeds: list[dict[str, np.ndarray]] = []
    rows: list[np.ndarray] = []
    limit = MAX_VARIANTS
    for image in images:
        limit = max(1, min(MAX_VARIANTS, _MAX_BYTES // max(1, batch * image.nbytes)))
        rows.append(image)
        if len(rows) == batch:
            feeds.append({name: np.stack(rows)})
            rows = []
        if len(feeds) == limit:
            return feeds
    if rows and not feeds:
        feeds.append({name: np.stack([rows[i % len(rows)] for i in range(batch)])})
    return feeds


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    if dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(dtype)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.integers(0, 2, shape).astype(dtype)


def _dtype(node: Any, where: str) -> np.dtype[Any]:
    if node.type not in _DTYPES:
        raise UsageError(f"input '{node.name}' of '{where}' is {node.type}, which no benchmark input is made for.")
    return np.dtype(_DTYPES[node.type])
