"""Quantization-aware fine-tuning: a draft's weights, scales, ranges and biases learn the float network's answers.

No labels are needed: the float network runs beside the quantized one on the same images, and its outputs and residual
streams are the target. Sources: Hinton et al., Distilling the Knowledge in a Neural Network, 2015; for quantized
networks Mishra and Marr, Apprentice, ICLR 2018.
"""

import contextlib
import copy
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgecv.graph.interface import only_image_input
from edgecv.graph.values import constant_array
from edgecv.nn.distill.losses import hint, kd
from edgecv.nn.graph_module import GraphModule
from edgecv.nn.quantized_graph import QuantizedGraph
from edgecv.nn.training_images import mirrored_and_shifted, shuffled_batches, with_mirrored
from edgecv.progress import Progress, no_progress
from edgecv.quantize.activations import Batches
from edgecv.quantize.draft import Draft
from edgecv.quantize.int8_nodes import output_tensor
from edgecv.quantize.ladder import Ground, Position, divide
from edgecv.quantize.layer_weights import limit_draft
from edgecv.runtime.host import usable_cores

DEFAULT_EPOCHS = 4
"""More gain little with a hundred images and cost as much again."""

DEFAULT_LEARNING_RATE = 0.006
"""Codes a weight moves in one step at most: some eighty steps of one mind are needed to change a code."""

RATES = {"steps": 1.0, "shift": 0.08, "log_scale": 0.003, "log_ends": 0.08}
"""Learning rate of each kind of parameter, relative to that of weights. A bias shifts all positions of a channel
together, which pooling does not average out; a scale moves the largest weight by a hundred times as much as itself."""

BATCH = 4
"""Images in one step; the activations of all of them are in memory, about 200 MB an image for a mobile network."""

_BETTER = 0.97
"""An epoch counts when the error on the images held out falls by so much: less comes and goes with every code that
rounds the other way."""

_WARM_UP = 8
_BETAS = (0.9, 0.99)


def finetuned(ground: Ground, before: Position | None, progress: Progress) -> Position | None:
    """Take the rung of the ladder: fine-tune the best draft so far; None when that gains nothing."""
    assert before is not None  # another rung is the first
    draft = finetune(
        before.draft,
        before.own,
        ground.batches,
        n_images=ground.n_images,
        seed=ground.seed,
        symmetric=ground.basis.scheme.activations == "int8",
        progress=progress,
    )
    if draft is before.draft:
        return None
    return replace(before, draft=limit_draft(draft) if ground.basis.portable else draft)


def finetune(
    draft: Draft,
    own: ir.Model,
    batches: Batches,
    *,
    n_images: int,
    epochs: int = DEFAULT_EPOCHS,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    seed: int = 0,
    threads: int = 0,
    symmetric: bool = False,
    progress: Progress = no_progress,
) -> Draft:
    """Train a draft to answer like its float network.

    The same images, settings, seed and threads on the same machine give the same result, bit for bit.

    Args:
        draft: Where to start; not changed.
        own: Its float network with its own biases, before any correction: the teacher.
        batches: Starts a pass over the images, as the graph takes them. A fifth of them, and their mirror images,
            only choose the best epoch.
        n_images: Images in one pass.
        epochs: Passes over the images; 0 returns the draft.
        learning_rate: See :data:`DEFAULT_LEARNING_RATE`; it falls to nothing along a cosine.
        seed: Of order, mirroring and shifts.
        threads: Of PyTorch; 0 for half the cores this process may use. The operators are short: threads that wait for
            a busy core cost more than they give (on two busy cores two threads took ten times the work of one).
        symmetric: Zero points must stay as they are, for signed activations.
        progress: Called with the training steps done.

    Returns:
        The draft after the epoch with the least error on the images held out, or ``draft`` itself when none was better.

    Raises:
        UntaughtOperatorError: The graph has an operator that PyTorch is not taught (:mod:`edgecv.nn.operators`).
    """
    teacher, student = GraphModule(own), QuantizedGraph(draft, symmetric=symmetric)
    feed = only_image_input(own)
    size = feed.shape[0] if feed.shape is not None and isinstance(feed.shape[0], int) else BATCH
    fit, held, n_fit = divide(batches, n_images)
    held = with_mirrored(held)
    rng, streams = np.random.default_rng(seed), residual_streams(own)
    total = epochs * math.ceil(n_fit / size)
    optimizer, done, best_state = _optimizer(student, learning_rate), 0, None
    with _threads(threads):
        least = held_out_error(teacher, student, held, size)
        for _ in range(epochs):
            for images in shuffled_batches(fit, size, rng):
                _set_rate(optimizer, min(1.0, (done + 1) / _WARM_UP) * (1 + math.cos(math.pi * done / total)) / 2)
                if not _learn(teacher, student, optimizer, mirrored_and_shifted(_full(images, feed), rng), streams):
                    return _best(draft, student, best_state)
                done += 1
                progress("finetune", done, total)
            error = held_out_error(teacher, student, held, size)
            if error < least * _BETTER:
                least, best_state = error, copy.deepcopy(student.state_dict())
        return _best(draft, student, best_state)


def residual_streams(model: ir.Model) -> list[str]:
    """Return the sums of two computed tensors, behind their Relu or Clip: where errors are carried along."""
    sums = (n for n in model.graph if n.op_type == "Add" and all(constant_array(v) is None for v in n.inputs))
    names = [str(output_tensor(node).name) for node in sums]
    return [n for n in names if n not in {v.name for v in model.graph.outputs}]


def distance(found: Mapping[str, Tensor], target: Mapping[str, Tensor], streams: Collection[str]) -> Tensor:
    """Return how far a network is from its teacher: squared errors relative to the teacher's squares, and divergence.

    Args:
        found: The student's outputs and residual streams by name.
        target: The teacher's.
        streams: Names of the residual streams; all of them together count as one output.
    """
    total = torch.zeros(())
    for name, expected in target.items():
        if not expected.is_floating_point():
            continue
        error = hint(found[name], expected)
        total = total + (error / len(streams) if name in streams else error)
        if name not in streams and expected.ndim == 2 and expected.shape[1] > 1:
            total = total + kd(found[name], expected, temperature=1.0)
    return total


@torch.no_grad()
def held_out_error(teacher: GraphModule, student: GraphModule, images: np.ndarray, size: int) -> float:
    """Return the squared error of the outputs over ``images`` relative to their squares, summed over the outputs."""
    errors: dict[str, float] = {}
    powers: dict[str, float] = {}
    for start in range(0, len(images), size):
        part = images[start : start + size]
        batch = torch.from_numpy(np.resize(part, (size, *part.shape[1:])))
        found = student(batch)
        for name, expected in teacher(batch).items():
            kept = expected[: len(part)].double()
            errors[name] = errors.get(name, 0.0) + float((found[name][: len(part)] - kept).square().sum())
            powers[name] = powers.get(name, 0.0) + float(kept.square().sum())
    total = sum(error / powers[name] for name, error in errors.items() if powers[name])
    return total if math.isfinite(total) else math.inf


def _learn(
    teacher: GraphModule,
    student: QuantizedGraph,
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    streams: Collection[str],
) -> bool:
    """Take one step; False when the distance is not finite any more."""
    batch = torch.from_numpy(images)
    with torch.no_grad():
        target = teacher(batch, streams)
    optimizer.zero_grad()
    loss = distance(student(batch, streams), target, streams)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    student.project()
    return math.isfinite(loss.item())


def _best(draft: Draft, student: QuantizedGraph, state: dict[str, Tensor] | None) -> Draft:
    if state is None:
        return draft
    student.load_state_dict(state)
    return student.draft()


def _optimizer(student: QuantizedGraph, learning_rate: float) -> torch.optim.Optimizer:
    """Adam: its steps do not depend on the size of the gradient, which differs by orders between layers."""
    kinds: dict[str, list[torch.nn.Parameter]] = {kind: [] for kind in RATES}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            kinds[name.rpartition(".")[2]].append(parameter)
    groups = [{"params": p, "lr": 0.0, "full": learning_rate * RATES[kind]} for kind, p in kinds.items() if p]
    return torch.optim.Adam(groups, betas=_BETAS)


def _set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["full"] * share


def _full(images: np.ndarray, feed: ir.Value) -> np.ndarray:
    """Fill the last batch of a graph with a fixed batch up by repeating images."""
    fixed = feed.shape[0] if feed.shape is not None and isinstance(feed.shape[0], int) else len(images)
    return images if len(images) == fixed else np.resize(images, (fixed, *images.shape[1:]))


@contextlib.contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or (usable_cores() + 1) // 2)
    try:
        yield
    finally:
        torch.set_num_threads(before)
