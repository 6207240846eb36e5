"""Running the float model over calibration images and handing out its inner tensors a few at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgecv.errors import UsageError
from edgecv.graph.interface import only_image_input
from edgecv.progress import Progress, no_progress
from edgecv.quantize.sessions import open_graph
from edgecv.runtime.native_log import plain_message

Batches = Callable[[], Iterator[np.ndarray]]
"""Starts one pass over the calibration images; every array is a batch of the graph's own input."""

DEFAULT_BUDGET_BYTES = 48 << 20
"""Bytes of activations held at once: small enough for the caches to help, large enough for a whole 224x224 image."""


@dataclass(frozen=True, slots=True)
class Activation:
    """One inner tensor for a few consecutive images.

    Attributes:
        name: The value's name in the graph.
        values: float32, images first.
        first_image: Number of images before these in the pass.
    """

    name: str
    values: np.ndarray
    first_image: int


def stream_activations(
    model: ir.Model,
    tensors: Sequence[str],
    batches: Batches,
    *,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    n_images: int = 0,
    progress: Progress = no_progress,
    label: str = "calibrate",
) -> Iterator[Activation]:
    """Yield every tensor of ``tensors`` for every image, never more than about ``budget_bytes`` of them at once.

    Images are run a few at a time; when the tensors of a single image exceed the budget they are run in groups, one
    pass over the images for each group.

    Args:
        model: A float model with one image input; not changed.
        tensors: Names of values inside the graph.
        batches: See :data:`Batches`; the last batch may be smaller.
        budget_bytes: Bound on the activations in memory.
        n_images: Images in one pass, for the progress report; 0 when not known.
        progress: Called with the images done over all passes.
        label: What ``progress`` calls the work.

    Raises:
        UsageError: There is no image, or a batch does not fit the graph's input.
    """
    feed = only_image_input(model)
    session = _open(model, tensors)
    groups = _groups(session, tensors, budget_bytes, _fixed_batch(feed))
    done = 0
    for names, rows in groups:
        if names != tensors:
            del session  # before the next one is opened: two hold the weights twice
            session = _open(model, names)
        images = 0
        for batch in batches():
            _check_batch(batch, feed)
            for start in range(0, len(batch), rows):
                part = batch[start : start + rows]
                first = images + start
                for name, values in zip(names, _run(session, names, feed, part, first), strict=True):
                    yield Activation(name, values, first)
                done += len(part)
                progress(label, done, n_images * len(groups))
            images += len(batch)
        if not images:
            raise UsageError("there is no image to calibrate with; name a folder of images with --data.")


def _groups(session: Any, tensors: Sequence[str], budget: int, fixed: int) -> list[tuple[Sequence[str], int]]:
    """Cut the tensors into groups that fit the budget, each with the number of images to run at once."""
    sizes = {o.name: _bytes_per_image(o.shape, fixed) for o in session.get_outputs()}
    if (total := sum(sizes.values())) <= budget:
        return [(tensors, fixed or max(1, budget // max(total, 1)))]
    groups: list[list[str]] = [[]]
    held = 0
    for name in tensors:
        if groups[-1] and held + sizes[name] > budget:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += sizes[name]
    return [(g, fixed or 1) for g in groups]


def _open(model: ir.Model, tensors: Sequence[str]) -> Any:
    """Open a copy of the model whose outputs are ``tensors``; ONNX Runtime drops what they do not need."""
    copy = model.clone()
    values = {v.name: v for v in copy.graph.inputs} | {o.name: o for node in copy.graph for o in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in tensors)
    return open_graph(copy)


def _fixed_batch(feed: ir.Value) -> int:
    """Return the number of images the graph is fixed to, or 0 when it takes any number."""
    return feed.shape[0] if feed.shape is not None and isinstance(feed.shape[0], int) else 0


def _bytes_per_image(shape: Sequence[int | str | None], fixed: int) -> int:
    known = [d if isinstance(d, int) and d > 0 else 1 for d in shape]
    return int(np.prod(known, dtype=np.int64)) * 4 // max(1, fixed)


def _check_batch(batch: np.ndarray, feed: ir.Value) -> None:
    wanted = [d if isinstance(d, int) else None for d in feed.shape or ()]
    dtype = feed.dtype.numpy() if feed.dtype is not None else batch.dtype
    fits = batch.ndim == len(wanted) and all(w in (None, d) for w, d in zip(wanted[1:], batch.shape[1:], strict=True))
    if not fits or batch.dtype != dtype:
        raise UsageError(
            f"a calibration batch is {batch.dtype}{list(batch.shape)}, the model's input '{feed.name}' takes "
            f"{dtype}{[w or 'any' for w in wanted]}; prepare the images as the model's manifest says."
        )


def _run(session: Any, names: Sequence[str], feed: ir.Value, part: np.ndarray, first: int) -> list[np.ndarray]:
    """Run a few images; a graph with a fixed batch gets the last image repeated, and the extra rows cut off again."""
    fixed = _fixed_batch(feed)
    missing = fixed - len(part) if fixed else 0
    padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
    try:
        outputs: list[np.ndarray] = session.run(list(names), {feed.name: padded})
    except MemoryError:
        raise
    except Exception as e:  # onnxruntime's exceptions have no common base but this
        reason = plain_message(str(e))
        raise UsageError(f"the model fails on calibration image {first} ({reason}); export it again.") from e
    if not missing:
        return outputs
    return [a[: len(a) // fixed * len(part)] if a.ndim and len(a) % fixed == 0 else a for a in outputs]
