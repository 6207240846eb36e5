"""Training only a part of a network: the classifier, or everything behind a stage."""

from collections.abc import Sequence

from torch import nn

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError, nearest

_MAX_DEPTH = 2
"""Depth of the module names offered as stages: ``layer2``, ``blocks.3``."""


def freeze(module: nn.Module, settings: TrainSettings) -> int:
    """Make every parameter trainable but those that ``freeze`` and ``freeze_to`` name; return how many are frozen.

    Layers are taken in the order in which they were registered, which for feed-forward networks is that of the data.

    Raises:
        UsageError: Both are given, or no stage has this name.
    """
    if settings.freeze != "none" and settings.freeze_to:
        raise UsageError("freeze and freeze_to contradict each other; give one.")
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    module.train()  # a network with fixed filters takes them out again here
    frozen: list[nn.Parameter] = []
    if settings.freeze == "all-but-head":
        kept = {id(p) for head in classifiers(module) for p in head.parameters()}
        frozen = [p for p in module.parameters() if id(p) not in kept]
    elif settings.freeze_to:
        frozen = _up_to(module, settings.freeze_to)
    for parameter in frozen:
        parameter.requires_grad_(False)
    return sum(p.numel() for p in frozen)


def set_training_mode(module: nn.Module) -> None:
    """Put ``module`` into train mode, its frozen BatchNorms into eval mode: their statistics belong to the weights."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            own = list(part.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                part.eval()


def classifiers(module: nn.Module) -> list[nn.Module]:
    """Return the layers that turn features into logits: what timm names, else the last linear or convolution."""
    get_classifier = getattr(module, "get_classifier", None)
    if get_classifier is not None:
        found = get_classifier()
        heads = list(found) if isinstance(found, list | tuple | nn.ModuleList) else [found]
        if any(list(h.parameters()) for h in heads if isinstance(h, nn.Module)):
            return [h for h in heads if isinstance(h, nn.Module)]
    layers: list[nn.Module] = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers[-1:]


def stage_names(module: nn.Module) -> list[str]:
    """Return the names ``freeze_to`` takes: modules near the top that have parameters, in order."""
    return [
        name
        for name, part in module.named_modules()
        if name and name.count(".") < _MAX_DEPTH and any(True for _ in part.parameters())
    ]


def _up_to(module: nn.Module, stage: str) -> list[nn.Parameter]:
    names = stage_names(module)
    if stage not in names:
        raise UsageError(f"freeze_to: no stage '{stage}'.{nearest(stage, names)} Stages: {_shown(names)}.")
    named = list(module.named_parameters())
    last = max(i for i, (name, _) in enumerate(named) if name.startswith(stage + "."))
    return [parameter for _, parameter in named[: last + 1]]


def _shown(names: Sequence[str], count: int = 16) -> str:
    top = [n for n in names if "." not in n]
    shown = top if len(top) > 3 else list(names)
    return ", ".join(shown[:count]) + (", …" if len(shown) > count else "")
