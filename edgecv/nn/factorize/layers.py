"""Layers replaced by their factorization: with weights when it is made, without when a checkpoint is rebuilt."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgecv.errors import UsageError
from edgecv.nn.factorize.geometry import build_layer, read_geometry
from edgecv.nn.factorize.methods import METHODS, Rank, check_rank


def apply(module: nn.Module, step: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """Give a network the layers that a factorization left it with, in place, with weights freshly drawn.

    Args:
        module: As its constructor made it, or as the step before left it.
        step: ``{"step": "factorize", "layers": {name: {"method": "tucker", "rank": [16, 32]}}}``.
        state: Not needed: ranks say all.

    Raises:
        UsageError: The step names what the network does not have, or ranks that no factorization of it has.
    """
    edits = step.get("layers")
    if not isinstance(edits, Mapping) or not all(isinstance(v, Mapping) for v in edits.values()):
        raise UsageError("the factorization in the checkpoint is not a table of layers; factorize the network again.")
    for name, edit in edits.items():
        method, rank = edit.get("method"), edit.get("rank")
        if not isinstance(method, str) or not isinstance(rank, list | tuple):
            raise UsageError(f"the factorization of '{str(name)[:80]}' has no method and rank; factorize again.")
        try:
            layer = find_layer(module, str(name))
            replace_layer(module, str(name), empty_chain(layer, method, check_rank(method, read_geometry(layer), rank)))
        except (AttributeError, ValueError) as e:
            raise UsageError(f"the network has no layer '{str(name)[:80]}' that was factorized so: {e}.") from e
    return module


def make_step(choices: Mapping[str, tuple[str, Rank]]) -> dict[str, Any]:
    """Return the structure step of layers by name with method and rank."""
    return {
        "step": "factorize",
        "layers": {name: {"method": method, "rank": list(rank)} for name, (method, rank) in choices.items()},
    }


def find_layer(module: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Return a layer below ``module``.

    Raises:
        AttributeError: There is none, or it is neither a convolution nor linear.
    """
    layer = module.get_submodule(name) if name else None
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise AttributeError("it is neither a convolution nor a linear layer")  # noqa: TRY004 (no such layer)
    return layer


def replace_layer(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put another layer in the place of ``name``."""
    parent, _, child = name.rpartition(".")
    module.get_submodule(parent)._modules[child] = layer


def empty_chain(layer: nn.Conv2d | nn.Linear, method: str, rank: Rank) -> nn.Sequential:
    """Return the layers that replace ``layer``, on its device and in its precision, with weights freshly drawn."""
    pieces = METHODS[method].pieces(read_geometry(layer), rank)
    chain = nn.Sequential(*(build_layer(piece, layer.weight.device) for piece in pieces))
    return chain.to(layer.weight.dtype).train(layer.training)


def filled_chain(layer: nn.Conv2d | nn.Linear, method: str, rank: Rank, factors: Sequence[Tensor]) -> nn.Sequential:
    """Return the layers that replace ``layer`` with their weights, the last with its bias."""
    chain = empty_chain(layer, method, rank)
    values = {f"{i}.weight": factor for i, factor in enumerate(factors)}
    if layer.bias is not None:
        values[f"{len(chain) - 1}.bias"] = layer.bias.detach()
    chain.load_state_dict(values)
    return chain.requires_grad_(layer.weight.requires_grad)
