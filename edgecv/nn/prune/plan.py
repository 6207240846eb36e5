"""The plan of a pruned network: the attributes that differ from the constructor's, replayed without the pruner."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgecv.errors import UsageError

ATTRIBUTES = (
    "out_channels", "in_channels", "groups", "num_features", "normalized_shape", "in_features", "out_features",
    "num_channels", "num_groups", "num_parameters", "num_heads", "head_dim", "attn_dim", "head_hidden_size",
    "channels",
)  # fmt: skip
"""What a plan may set, and nothing else: a checkpoint may come from anywhere."""

Widths = dict[str, dict[str, Any]]


def read_widths(module: nn.Module) -> Widths:
    """Return every width in the network by module name and attribute: an integer, or a list of them."""
    found: Widths = {}
    for name, part in module.named_modules():
        for attribute in ATTRIBUTES:
            value = vars(part).get(attribute)
            if isinstance(value, int) and not isinstance(value, bool):
                found.setdefault(name, {})[attribute] = value
            elif isinstance(value, tuple | torch.Size) and value and all(isinstance(v, int) for v in value):
                found.setdefault(name, {})[attribute] = list(value)
    return found


def make_step(before: Widths, after: Widths) -> dict[str, Any]:
    """Return the structure step that turns the widths ``before`` into those ``after``."""
    changed = {
        name: {a: v for a, v in sorted(widths.items()) if before[name].get(a) != v}
        for name, widths in sorted(after.items())
        if widths != before[name]
    }
    return {"step": "prune", "modules": changed}


def apply(module: nn.Module, step: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Give a fresh network the widths of a plan, in place.

    Args:
        module: As its constructor made it, or as the step before left it.
        step: ``{"step": "prune", "modules": {name: {attribute: width}}}``.
        state: The checkpoint's tensors: the shapes of parameters that follow from no attribute (position embeddings).

    Raises:
        UsageError: The plan names what the network does not have, or a width above the one it has.
    """
    plan = step.get("modules")
    if not isinstance(plan, Mapping) or not all(isinstance(v, Mapping) for v in plan.values()):
        raise UsageError("the pruning plan of the checkpoint is not a table of modules; prune the network again.")
    parts = dict(module.named_modules())
    for name, widths in plan.items():
        if name not in parts:
            raise UsageError(f"the pruning plan names '{name}', which the network does not have; wrong network?")
        for attribute, value in widths.items():
            setattr(parts[name], attribute, _checked(parts[name], name, attribute, value))
    for name, part in parts.items():
        fit_tensors(part, name, state)
    return module


def fit_tensors(part: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    """Cut a module's own parameters and buffers to what its widths, or else the state, say."""
    expected = dict(_shapes(part))
    tensors = {**part._parameters, **part._buffers}
    for key, tensor in tensors.items():
        if tensor is None:
            continue
        shape = expected.get(key)
        if shape is None:
            stored = state.get(f"{name}.{key}" if name else key)
            shape = tuple(tensor.shape if stored is None else stored.shape)
        if shape != tuple(tensor.shape):
            set_tensor(part, key, _cut(tensor, shape, f"{name}.{key}"))


def set_tensor(part: nn.Module, key: str, tensor: Tensor) -> None:
    """Replace a parameter or buffer by one of another shape."""
    old = part._parameters.get(key)
    if old is None:
        part._buffers[key] = tensor
    else:
        part._parameters[key] = nn.Parameter(tensor, requires_grad=old.requires_grad)


def _cut(tensor: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    if len(shape) != tensor.ndim or any(n > m or n < 1 for n, m in zip(shape, tensor.shape, strict=True)):
        raise UsageError(f"the pruned '{name}' would be {shape}, the network has {tuple(tensor.shape)}; wrong network?")
    return tensor.detach()[tuple(slice(n) for n in shape)].clone()


def _checked(part: nn.Module, name: str, attribute: str, value: Any) -> Any:
    old = vars(part).get(attribute) if attribute in ATTRIBUTES else None
    if old is None or isinstance(old, bool):
        raise UsageError(f"the pruning plan sets '{attribute}' of '{name}', which is not a width of it.")
    many = isinstance(old, tuple)
    if many is not isinstance(value, list | tuple):
        raise UsageError(f"the pruning plan sets {attribute} of '{name}' to {str(value)[:40]!r}; it is {old}.")
    values, olds = (tuple(value), tuple(old)) if many else ((value,), (old,))
    fits = len(values) == len(olds) and all(
        isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= o for v, o in zip(values, olds, strict=True)
    )
    if not fits:
        raise UsageError(f"the pruning plan sets {attribute} of '{name}' to {str(value)[:40]!r}, not within 1..{old}.")
    return values if many else value


def _shapes(part: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the parameters and buffers whose shapes follow from the module's widths."""
    if isinstance(part, nn.modules.conv._ConvNd):
        first, second = (
            (part.in_channels, part.out_channels) if part.transposed else (part.out_channels, part.in_channels)
        )
        yield "weight", (first, second // part.groups, *part.kernel_size)
        yield "bias", (part.out_channels,)
    elif isinstance(part, nn.Linear):
        yield "weight", (part.out_features, part.in_features)
        yield "bias", (part.out_features,)
    elif isinstance(part, nn.modules.batchnorm._NormBase):
        for key in ("weight", "bias", "running_mean", "running_var"):
            yield key, (part.num_features,)
    elif isinstance(shape := vars(part).get("normalized_shape"), tuple):  # LayerNorm, and timm's RmsNorm
        for key in ("weight", "bias"):
            yield key, shape
    elif isinstance(part, nn.GroupNorm):
        for key in ("weight", "bias"):
            yield key, (part.num_channels,)
    elif isinstance(part, nn.PReLU):
        yield "weight", (part.num_parameters,)
