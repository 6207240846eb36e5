"""Where and in which precision a training runs."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from edgecv.config.training import TrainSettings
from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.runtime.host import usable_cores


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and precision.

    Attributes:
        device: ``cpu``, or this process's ``cuda:N``.
        precision: ``float32``, ``bfloat16`` or ``float16``: what autocast computes in; weights stay float32.
        why: How the precision was chosen.
    """

    device: torch.device
    precision: str
    why: str

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Let layers compute in :attr:`precision`; grouped convolutions on a CPU stay in float32."""
        if self.precision == "float32":
            yield
            return
        grouped = GroupedInFloat32() if self.device.type == "cpu" else nullcontext()
        with torch.autocast(self.device.type, dtype=getattr(torch, self.precision)), grouped:
            yield


class GroupedInFloat32(TorchFunctionMode):
    """Takes depthwise and other grouped convolutions out of autocast.

    oneDNN has no good bfloat16 kernels for them: with avx512_bf16 and one thread, small MobileNets took steps twice as
    long as in float32, and 0.7 to 0.85 times as long once these layers were left out.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``; a convolution with ``groups`` above 1 in float32."""
        given = dict(kwargs or {})
        if func is not torch.conv2d or (given.get("groups", args[6] if len(args) > 6 else 1)) == 1:
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            return func(args[0].float(), *args[1:], **given)


def place(settings: TrainSettings, local_rank: int = 0) -> Placement:
    """Choose device and precision.

    ``auto`` looks at what the processor can do, not at a clock: the same machine always chooses the same.

    Raises:
        EnvironmentRefusedError: ``cuda`` without a CUDA device.
        UsageError: float16 on a CPU.
    """
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise EnvironmentRefusedError("device cuda: PyTorch finds no CUDA device here; use --device cpu or auto.")
    on_cuda = cuda and settings.device != "cpu"
    if on_cuda:
        torch.cuda.set_device(local_rank)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    device = torch.device("cuda", local_rank) if on_cuda else torch.device("cpu")
    if settings.precision != "auto":
        if settings.precision == "float16" and not on_cuda:
            raise UsageError("precision float16 needs CUDA; on a CPU use bfloat16 or float32.")
        return Placement(device, settings.precision, "as asked")
    return Placement(device, *(_best_on_cuda() if on_cuda else _best_on_cpu()))


def _best_on_cuda() -> tuple[str, str]:
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16", "this GPU has it"
    if torch.cuda.get_device_capability() >= (7, 0):
        return "float16", "this GPU has tensor cores for it, none for bfloat16"
    return "float32", "this GPU has no faster one"


def _best_on_cpu() -> tuple[str, str]:
    for name, supported in (
        ("amx_bf16", torch.cpu._is_amx_tile_supported),
        ("avx512_bf16", torch.cpu._is_avx512_bf16_supported),
    ):
        if supported():
            return "bfloat16", f"this CPU has {name}"
    return "float32", "this CPU has neither avx512_bf16 nor amx_bf16"


def busy_note(threads: int) -> str:
    """Return a hint when others keep this machine's cores busy, else nothing.

    PyTorch's threads wait for each other after each layer: with four times as many running processes as cores, two
    threads took four times the time of one.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads == 1 or load <= usable_cores() + 1:
        return ""
    return f"this machine is busy (load {load:.0f} on {usable_cores()} cores): --threads 1 may be faster"


@contextmanager
def threads_of(settings: TrainSettings, processes: int) -> Iterator[int]:
    """Set PyTorch's threads for a while: as asked, or this machine's cores divided among its processes."""
    before = torch.get_num_threads()
    chosen = settings.threads or max(1, usable_cores() // processes)
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)
