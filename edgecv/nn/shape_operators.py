"""ONNX operators that move, pick or measure values, as PyTorch functions, and how a node's inputs are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

Arguments = Sequence[Tensor | None]
"""Inputs of a node; None where an optional one is left out."""

Operator = Callable[[ir.Node, Arguments], "Tensor | tuple[Tensor, ...]"]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, or ``default``."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def present(inputs: Arguments, index: int) -> Tensor | None:
    """Return an optional input, or None when it is left out."""
    return inputs[index] if len(inputs) > index else None


def numbers(inputs: Arguments, index: int) -> list[int] | None:
    """Return an optional input of integers (axes, sizes, pads) as a list."""
    value = present(inputs, index)
    return None if value is None else [int(v) for v in value.reshape(-1).tolist()]


def axes_of(node: ir.Node, inputs: Arguments) -> list[int] | None:
    """Return the axes: an attribute in older opsets, an input in newer ones; None when left out."""
    given = attribute(node, "axes")
    return [int(a) for a in given] if given is not None else numbers(inputs, 1)


def first_of(inputs: Arguments) -> Tensor:
    """Return the first input, which no operator leaves out."""
    first = inputs[0]
    assert first is not None  # the operator's first input is not optional
    return first


def two_of(inputs: Arguments) -> tuple[Tensor, Tensor]:
    """Return the first two inputs of an operator that needs both."""
    first, second = inputs[:2]
    assert first is not None and second is not None  # noqa: PT018 neither is optional
    return first, second


def _reshape(node: ir.Node, inputs: Arguments) -> Tensor:
    x = first_of(inputs)
    wanted = numbers(inputs, 1) or []
    if not attribute(node, "allowzero", 0):
        wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(node: ir.Node, inputs: Arguments) -> Tensor:
    x = first_of(inputs)
    axis = attribute(node, "axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(node: ir.Node, inputs: Arguments) -> Tensor:
    x = first_of(inputs)
    return x.permute(attribute(node, "perm") or list(range(x.ndim))[::-1])


def _squeeze(node: ir.Node, inputs: Arguments) -> Tensor:
    x, axes = first_of(inputs), axes_of(node, inputs)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(node: ir.Node, inputs: Arguments) -> Tensor:
    x, axes = first_of(inputs), axes_of(node, inputs) or []
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(node: ir.Node, inputs: Arguments) -> Tensor:
    x, starts, ends = first_of(inputs), numbers(inputs, 1) or [], numbers(inputs, 2) or []
    axes, steps = numbers(inputs, 3) or list(range(len(starts))), numbers(inputs, 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            kept = torch.tensor(range(x.shape[axis])[start:end:step], dtype=torch.int64)
            x = x.index_select(axis, kept)
        else:
            first, last, _ = slice(start, end).indices(x.shape[axis])
            x = x.narrow(axis, first, max(0, last - first))
            x = x if step == 1 else x[(slice(None),) * (axis % x.ndim) + (slice(None, None, step),)]
    return x


def _split(node: ir.Node, inputs: Arguments) -> tuple[Tensor, ...]:
    x, axis = first_of(inputs), attribute(node, "axis", 0)
    sizes = attribute(node, "split") or numbers(inputs, 1)
    return torch.split(x, list(sizes) if sizes else math.ceil(x.shape[axis] / len(node.outputs)), axis)


def _pad(node: ir.Node, inputs: Arguments) -> Tensor:
    x, mode = first_of(inputs), attribute(node, "mode", "constant")
    pads, value, axes = numbers(inputs, 1) or [], present(inputs, 2), numbers(inputs, 3)
    axes = [a % x.ndim for a in axes] if axes is not None else list(range(x.ndim))
    pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        pairs[axis] = (pads[i], pads[i + len(axes)])
    if mode == "constant":
        flat = [n for pair in reversed(pairs) for n in pair]
        return functional.pad(x, flat, value=0.0 if value is None else float(value))
    flat = [n for pair in reversed(pairs[2:]) for n in pair]
    return functional.pad(x, flat, mode={"edge": "replicate"}.get(mode, mode))


def _gather(node: ir.Node, inputs: Arguments) -> Tensor:
    x, index = two_of(inputs)
    axis = attribute(node, "axis", 0) % x.ndim
    index = torch.where(index < 0, index + x.shape[axis], index)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _shape(node: ir.Node, inputs: Arguments) -> Tensor:
    sizes = list(first_of(inputs).shape)[attribute(node, "start", 0) : attribute(node, "end")]
    return torch.tensor(sizes, dtype=torch.int64)


def _cast(node: ir.Node, inputs: Arguments) -> Tensor:
    wanted = ir.DataType(attribute(node, "to")).numpy()
    return first_of(inputs).to(torch.from_numpy(np.zeros(0, wanted)).dtype)


def _expand(node: ir.Node, inputs: Arguments) -> Tensor:
    x, shape = first_of(inputs), numbers(inputs, 1) or []
    return x.expand(np.broadcast_shapes(x.shape, tuple(shape)))


def _range(node: ir.Node, inputs: Arguments) -> Tensor:
    return torch.arange(*(v.item() for v in inputs if v is not None), dtype=first_of(inputs).dtype)


SHAPE_OPERATORS: Mapping[str, Operator] = {
    "Cast": _cast,
    "Concat": lambda node, inputs: torch.cat([v for v in inputs if v is not None], attribute(node, "axis")),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda node, inputs: first_of(inputs),
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operator of the default domain to what computes it."""
