"""How the inputs of a layer vary together: covariances streamed over calibration images, for rounding its weights.

Only sums are kept, of a sample of positions: a convolution sees the same weights everywhere, and neighbouring
positions tell little more than one of them.
"""

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from edgecv.graph.values import constant_array
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches, stream_activations
from edgecv.quantize.int8_nodes import weight_axis
from edgecv.quantize.moments import Moments
from edgecv.quantize.pair_sums import kernel_rows

SAMPLES = 10_000
"""Positions sampled for a layer over all images, or more where it has many inputs; see :func:`samples_wanted`."""

SAMPLES_PER_INPUT = 8
"""Samples for each of a layer's inputs: a covariance from fewer follows the sample's noise."""

BUDGET_BYTES = 256 << 20
"""Covariances held at once; a network with more takes more passes over the images."""

_USUAL_IMAGES = 100  # to spread the samples over when the number of images is not known


def weight_rows(node: ir.Node) -> np.ndarray:
    """Return the weight of a Conv, Gemm or MatMul as float64 (groups, outputs of a group, fan_in).

    Inputs are in the order of :func:`edgecv.quantize.pair_sums.kernel_rows`.
    """
    weight = constant_array(node.inputs[1])
    assert weight is not None  # by placement
    rows = kernel_rows(weight, weight_axis(node))
    groups = group_count(node)
    return rows.reshape(groups, len(rows) // groups, -1).astype(np.float64)


def group_count(node: ir.Node) -> int:
    """Return the number of groups of a Conv; 1 for any other layer."""
    attribute = node.attributes.get("group")
    return 1 if attribute is None or node.op_type != "Conv" else attribute.as_int()


def moments_bytes(node: ir.Node) -> int:
    """Return the memory of a layer's :class:`Moments`."""
    groups, _, fan_in = weight_rows(node).shape
    return int(2 * groups * fan_in * fan_in * 4)


def split_by_memory(nodes: Sequence[ir.Node], budget_bytes: int = BUDGET_BYTES) -> Iterator[list[ir.Node]]:
    """Cut layers, in order, into runs whose moments fit the budget; a layer larger than that is alone."""
    part: list[ir.Node] = []
    held = 0
    for node in nodes:
        if part and held + moments_bytes(node) > budget_bytes:
            yield part
            part, held = [], 0
        part.append(node)
        held += moments_bytes(node)
    if part:
        yield part


def collect_moments(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    batches: Batches,
    *,
    n_images: int = 0,
    seed: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Moments]:
    """Return the moments of the inputs of ``nodes``, by node name, from one pass over the images.

    Layers that see the same tensor through the same window share one object. The sample depends on the seed and on the
    images' order, not on how they are cut into batches.

    Args:
        model: The float model; its activations are taken as they are.
        nodes: Conv, Gemm and MatMul nodes of ``model`` with constant weights.
        batches: Starts a pass over the calibration images.
        n_images: Images in one pass; 0 when not known.
        seed: Chooses the positions.
        progress: See :mod:`edgecv.progress`.
    """
    seen: dict[Hashable, Moments] = {}
    found: dict[str, Moments] = {}
    windows: dict[str, list[tuple[ir.Node, Moments]]] = {}
    for node in nodes:
        key = _window(node)
        if key not in seen:
            groups, _, fan_in = weight_rows(node).shape
            seen[key] = Moments(groups, fan_in)
            windows.setdefault(_source(node), []).append((node, seen[key]))
        found[str(node.name)] = seen[key]
    stream = stream_activations(model, list(windows), batches, n_images=n_images, progress=progress, label="round")
    for activation in stream:
        for node, moments in windows[activation.name]:
            wanted = math.ceil(samples_wanted(moments.totals.shape[2]) / (n_images or _USUAL_IMAGES))
            for number, image in enumerate(activation.values, activation.first_image):
                moments.add(sample_inputs(node, image, wanted, np.random.default_rng((seed, number))), number)
    return found


def samples_wanted(fan_in: int) -> int:
    """Return the number of samples for a layer with ``fan_in`` inputs."""
    return max(SAMPLES, SAMPLES_PER_INPUT * fan_in)


def sample_inputs(node: ir.Node, image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return what ``node`` multiplies its weights with at ``count`` positions of one image, or at all when fewer.

    Args:
        node: A Conv, Gemm or MatMul.
        image: Its input without the batch dimension: (channels, …) for a Conv, (…, channels) else.
        count: Number of positions.
        rng: Chooses them.

    Returns:
        float32 (groups, positions, fan_in), inputs in the order of :func:`weight_rows`.
    """
    if node.op_type != "Conv":
        rows = image.reshape(-1, image.shape[-1])
        return np.asarray(rows[_choose(len(rows), count, rng)][None])
    kernel = constant_array(node.inputs[1]).shape[2:]  # type: ignore[union-attr]
    strides, dilations = _ints(node, "strides", kernel), _ints(node, "dilations", kernel)
    before, sizes = _positions(node, image.shape[1:], kernel, strides, dilations)
    corners = np.unravel_index(_choose(math.prod(sizes), count, rng), sizes)
    taps = list(np.ndindex(*kernel))
    columns = np.empty((len(image), len(corners[0]), len(taps)), np.float32)
    for column, tap in enumerate(taps):
        places = [c * s + t * d - b for c, s, t, d, b in zip(corners, strides, tap, dilations, before, strict=True)]
        inside = np.all([(p >= 0) & (p < n) for p, n in zip(places, image.shape[1:], strict=True)], axis=0)
        clipped = tuple(np.clip(p, 0, n - 1) for p, n in zip(places, image.shape[1:], strict=True))
        columns[:, :, column] = image[(slice(None), *clipped)] * inside
    groups = group_count(node)
    split = columns.reshape(groups, len(image) // groups, columns.shape[1], len(taps))
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1)).reshape(groups, columns.shape[1], -1)


def _choose(available: int, count: int, rng: np.random.Generator) -> np.ndarray:
    if count >= available:
        return np.arange(available)
    return np.sort(rng.choice(available, count, replace=False, shuffle=False))


def _positions(
    node: ir.Node, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the padding before, and the number of output positions, of every spatial dimension."""
    attribute = node.attributes.get("auto_pad")
    mode = "NOTSET" if attribute is None else attribute.as_string()
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if mode.startswith("SAME"):
        sizes = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        padding = [max(0, (o - 1) * s + r - n) for o, s, r, n in zip(sizes, strides, reach, size, strict=True)]
        return [(p + (mode == "SAME_LOWER")) // 2 for p in padding], sizes
    pads = _ints(node, "pads", [*kernel, *kernel], 0) if mode == "NOTSET" else (0,) * (2 * len(kernel))
    ends = zip(size, pads, pads[len(kernel) :], reach, strides, strict=False)
    return list(pads[: len(kernel)]), [(n + b + a - r) // s + 1 for n, b, a, r, s in ends]


def _ints(node: ir.Node, key: str, like: Sequence[int], default: int = 1) -> tuple[int, ...]:
    attribute = node.attributes.get(key)
    return (default,) * len(like) if attribute is None else tuple(attribute.as_ints())


def _source(node: ir.Node) -> str:
    return str(node.inputs[0].name)  # type: ignore[union-attr]


def _window(node: ir.Node) -> Hashable:
    if node.op_type != "Conv":
        return _source(node), "all"
    geometry = {k: str(a.value) for k, a in node.attributes.items()}
    return _source(node), weight_rows(node).shape[::2], tuple(sorted(geometry.items()))
