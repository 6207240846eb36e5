"""The moving average of the weights, which is what is judged and kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of parameters and buffers (BatchNorm's statistics too).

    The decay starts small and grows with the steps, ``1 - (1 + step)^(-2/3)``, so that the random beginning is soon
    forgotten (as timm's ModelEmaV3 does with ``use_warmup``). The averages are tensors beside the network, not a second
    network: hooks are not copied along, and sharded tensors (FSDP) stay sharded.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start with the weights as they are."""
        self.decay = decay
        self.values = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        self.swapped = False

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take the weights after ``step`` steps in."""
        weight = 1 - min(self.decay, 1 - (1 + step) ** (-2 / 3))
        kinds: dict[type, tuple[list[Tensor], list[Tensor]]] = {}  # split and whole tensors are not for one call
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values, tensors = kinds.setdefault(type(tensor), ([], []))
                values.append(self.values[name])
                tensors.append(tensor)
            else:
                self.values[name].copy_(tensor)
        for values, tensors in kinds.values():
            torch._foreach_lerp_(values, tensors, weight)

    @contextmanager
    def swapped_in(self, module: nn.Module) -> Iterator[None]:
        """Let ``module`` have the averages for a while."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        for name, tensor in module.state_dict().items():
            kept = tensor.clone()
            tensor.copy_(self.values[name])
            self.values[name].copy_(kept)
        self.swapped = not self.swapped
