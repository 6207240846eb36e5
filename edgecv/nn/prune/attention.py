"""Attention heads that can be removed: modules with one projection for query, key and value, as timm's have."""

from dataclasses import dataclass

from torch import nn

Indices = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """The heads of one attention.

    Attributes:
        name: Of the module.
        count: Heads; 1 where none can be removed.
        edits: ``(module or parameter, side, axis, indices by head)``.
        attributes: Integers of the module to lower with every head.
        ignored: Layers whose channels are the heads': the graph must not cut them otherwise.
    """

    name: str
    count: int
    edits: tuple[tuple[str, str, int, Indices], ...]
    attributes: dict[str, int]
    ignored: tuple[nn.Module, ...]


def find_heads(module: nn.Module) -> list[Heads]:
    """Return the attentions of a network.

    Whether the module's code bears fewer heads is not told here: :mod:`edgecv.nn.prune.check` runs it.
    """
    return [_read(name, part) for name, part in module.named_modules() if _linear(part, "qkv") is not None]


def _read(name: str, part: nn.Module) -> Heads:
    qkv, gate, proj = (_linear(part, key) for key in ("qkv", "gate", "proj"))
    ignored = tuple(layer for layer in (qkv, gate) if layer is not None)
    heads = vars(part).get("num_heads")
    if not isinstance(heads, int) or qkv is None or proj is None or gate is not None or proj.in_features % heads:
        return Heads(name, 1, (), {}, ignored)
    size = proj.in_features // heads
    if qkv.out_features != 3 * heads * size:
        return Heads(name, 1, (), {}, ignored)
    edits = [(f"{name}.qkv", "out", 0, _rows(heads, size, 3)), (f"{name}.proj", "in", 0, _rows(heads, size, 1))]
    for key, parameter in part._parameters.items():
        if parameter is not None and heads in parameter.shape:  # a table with a column for each head
            axis = list(parameter.shape).index(heads)
            edits.append((f"{name}.{key}", "parameter", axis, tuple((h,) for h in range(heads))))
        elif parameter is not None and parameter.shape == (heads * size,):  # a bias of its own
            edits.append((f"{name}.{key}", "parameter", 0, _rows(heads, size, 1)))
    attributes = {"num_heads": 1} | ({"attn_dim": size} if isinstance(vars(part).get("attn_dim"), int) else {})
    return Heads(name, heads, tuple(edits), attributes, ignored)


def _rows(heads: int, size: int, parts: int) -> Indices:
    """Return the rows of each head where ``parts`` blocks (query, key, value) hold all heads one after another."""
    return tuple(
        tuple(p * heads * size + h * size + i for p in range(parts) for i in range(size)) for h in range(heads)
    )


def _linear(part: nn.Module, name: str) -> nn.Linear | None:
    layer = part._modules.get(name)
    return layer if isinstance(layer, nn.Linear) else None
