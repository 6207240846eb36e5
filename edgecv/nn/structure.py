"""Edits to a fresh network that its constructor cannot make, replayed when a checkpoint is loaded."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from edgecv.errors import UsageError, nearest

MAX_STEPS = 64

STEPS: dict[str, str] = {
    "prune": "edgecv.nn.prune.plan:apply",
    "factorize": "edgecv.nn.factorize.layers:apply",
    "depthwise": "edgecv.nn.depthwise:apply",
}
"""Kind of edit -> ``module:function``; the function is ``apply(module, step, state) -> module``.

It gets the network as the steps before left it, the step as the manifest records it, and the final tensors by name,
and returns the edited network. A step it cannot make is a UsageError, KeyError, TypeError or ValueError: steps come
from files, and files from anywhere.
"""


def replay(
    module: nn.Module, structure: Sequence[Mapping[str, Any]], state: Mapping[str, torch.Tensor], where: str = "model"
) -> nn.Module:
    """Return ``module`` after every step of ``structure``, in order.

    Args:
        module: As its constructor gives it; may be changed in place.
        structure: Each ``{"step": name, …}``, name a key of :data:`STEPS`.
        state: The tensors that will be loaded, for what the steps leave out.
        where: The file, for messages.

    Raises:
        UsageError: Unknown step, or one that does not fit this network.
    """
    if len(structure) > MAX_STEPS:
        raise UsageError(f"'{where}' records {len(structure)} edits, over the limit of {MAX_STEPS}.")
    for number, step in enumerate(structure):
        kind = step.get("step")
        target = STEPS.get(kind) if isinstance(kind, str) else None
        if target is None:
            raise UsageError(
                f"'{where}' was edited by the step {str(kind)[:40]!r}, which this edgecv does not know; update edgecv."
                + nearest(str(kind)[:40], STEPS)
            )
        path, _, function = target.partition(":")
        apply = getattr(import_module(path), function)
        try:
            module = apply(module, step, state)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
            raise UsageError(
                f"'{where}' cannot be rebuilt: edit {number + 1} ('{kind}') does not fit the network "
                f"({type(e).__name__}: {' '.join(str(e).split())[:120]})."
            ) from e
    return module
