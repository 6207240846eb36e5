"""Single weights set to zero: the same network, a file that compresses better, and no faster in ONNX Runtime."""

import functools
import zipfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgecv.config.pruning import PruneSettings, parse_pattern

Masks = dict[str, Tensor]
"""Name of a parameter -> bool of its shape: True where the weight stays."""

_CHUNK_BYTES = 1 << 20


def cubic_sparsity(final: float, step: int, steps: int) -> float:
    """Return the share of zeros after ``step`` of ``steps``: much at first, while weights are plenty.

    Source: Zhu and Gupta 2017, To prune, or not to prune, eq. 1, with initial sparsity 0.

    >>> [round(cubic_sparsity(0.8, k, 4), 3) for k in (1, 2, 3, 4)]
    [0.462, 0.7, 0.787, 0.8]
    """
    return final * (1 - (1 - step / steps) ** 3)


def prunable_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of dense and convolutional layers by name.

    Depthwise convolutions stay whole: they hold few weights and suffer most (Zhu and Gupta 2017, §4.3).
    """
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return {
        f"{name}.weight" if name else "weight": part.weight
        for name, part in module.named_modules()
        if isinstance(part, kinds) and not _is_depthwise(part)
    }


def make_masks(module: nn.Module, settings: PruneSettings, step: int = 1, steps: int = 1, seed: int = 0) -> Masks:
    """Choose the weights that stay, by magnitude (or at random, the control).

    Args:
        module: Not changed.
        settings: ``unstructured`` and ``scope``, or ``nm``.
        step: Counted from 1; ``unstructured`` grows by :func:`cubic_sparsity`.
        steps: How many there will be.
        seed: Of ``random``.
    """
    weights = prunable_weights(module)
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.rand(w.shape, generator=generator) if settings.criterion == "random" else w.detach().abs().cpu()
        for name, w in weights.items()
    }
    if settings.nm:
        kept, block = parse_pattern(settings.nm)
        return {name: _pattern(score, kept, block) for name, score in scores.items()}
    assert settings.unstructured is not None
    share = cubic_sparsity(settings.unstructured, step, steps)
    if settings.scope == "layer":
        return {name: _strongest([score], share)[0] for name, score in scores.items()}
    return dict(zip(scores, _strongest(list(scores.values()), share), strict=True))


def _strongest(scores: Sequence[Tensor], share: float) -> list[Tensor]:
    """Return masks without the ``share`` of entries with the lowest scores, over all tensors together."""
    everything = torch.cat([s.flatten() for s in scores])
    stays = torch.ones(len(everything), dtype=torch.bool)
    stays[torch.argsort(everything, stable=True)[: round(share * len(everything))]] = False
    parts = torch.split(stays, [s.numel() for s in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def _pattern(scores: Tensor, kept: int, block: int) -> Tensor:
    """Return a mask with ``kept`` of every ``block`` neighbours along the input channels.

    A layer whose input channels are no multiple of ``block`` stays whole. Layout: Mishra et al. 2021, Accelerating
    Sparse Deep Neural Networks, §4 (2:4 along the reduction, channels innermost).
    """
    if scores.shape[1] % block:
        return torch.ones_like(scores, dtype=torch.bool)
    last = scores.movedim(1, -1)
    blocks = last.reshape(-1, block)
    stays = torch.zeros_like(blocks, dtype=torch.bool)
    stays.scatter_(1, blocks.topk(kept, dim=1).indices, True)
    return stays.view_as(last).movedim(-1, 1).contiguous()


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights that go to zero, in place."""
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0)


def hold_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> list[RemovableHandle]:
    """Keep zeros zero while the network trains: their gradients are zero, so no optimizer moves them.

    Neither momentum nor Adam's averages ever hold anything for them, and weight decay shrinks towards where they are.
    """
    parameters = dict(module.named_parameters())
    handles = []
    for name, mask in masks.items():
        parameter = parameters[name].requires_grad_(True)
        handles.append(parameter.register_hook(functools.partial(_hold, ~mask)))  # type: ignore[no-untyped-call]
    return handles


def _hold(gone: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(gone.to(gradient.device), 0)


def masks_of(module: nn.Module) -> Masks:
    """Return masks of the weights that are not zero: those a pruned network was left with."""
    return {name: (w.detach() != 0).cpu() for name, w in prunable_weights(module).items()}


def sparsity(module: nn.Module) -> dict[str, Any]:
    """Return how many of the prunable weights are zero: ``zeros``, ``weights`` and ``share``."""
    weights = prunable_weights(module)
    zeros = sum(int((w == 0).sum()) for w in weights.values())
    total = sum(w.numel() for w in weights.values())
    return {"zeros": zeros, "weights": total, "share": zeros / total if total else 0.0}


def compressed_bytes(path: Path, folder: Path) -> dict[str, int]:
    """Compress a file as package formats do and return the sizes in bytes: ``zip``, and ``zstd`` where it is installed.

    Args:
        path: The file.
        folder: For the temporary archive.
    """
    archive = folder / "measured.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        z.write(path, path.name)
    sizes = {"zip": archive.stat().st_size}
    archive.unlink()
    if find_spec("zstandard") is not None:
        compressor = import_module("zstandard").ZstdCompressor(level=19).compressobj()
        size = 0
        with path.open("rb") as f:
            while chunk := f.read(_CHUNK_BYTES):
                size += len(compressor.compress(chunk))
        sizes["zstd"] = size + len(compressor.flush())
    return sizes


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels > 1
