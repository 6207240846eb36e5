"""Several processes as one: who we are among them, what they agree on, and the network split or copied over them.

Any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT will do (torchrun, Slurm's srun with
them exported, Ray Train); nothing here starts processes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from edgecv.config.training import TrainSettings
from edgecv.errors import EnvironmentRefusedError


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that train together.

    Attributes:
        rank: 0 writes and speaks.
        world: How many processes.
        local_rank: Rank on this machine: which GPU.
        local_world: How many on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def total(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Return the sums of ``values`` over all processes, in float64; every process must call."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return [float(v) for v in tensor.tolist()]

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(settings: TrainSettings) -> Iterator[Team]:
    """Join the processes that the launcher named, and leave them at the end; alone without a launcher.

    Raises:
        EnvironmentRefusedError: The others cannot be reached, or one of them ended.
    """
    team = team_of_environment()
    if team.world == 1:
        yield team
        return
    joined_here = not dist.is_initialized()
    if joined_here:
        cuda = torch.cuda.is_available() and settings.device != "cpu"
        try:
            dist.init_process_group("cuda:nccl,cpu:gloo" if cuda else "gloo")
        except (RuntimeError, ValueError) as e:
            raise EnvironmentRefusedError(
                f"process {team.rank} of {team.world} cannot reach the others ({' '.join(str(e).split())[:160]}); "
                "check MASTER_ADDR and MASTER_PORT."
            ) from e
    try:
        yield team
    except RuntimeError as e:
        if not any(word in str(e).lower() for word in ("gloo", "nccl", "connection")):
            raise
        raise EnvironmentRefusedError(
            f"process {team.rank} of {team.world} lost the others: one of them ended, its own message says why "
            f"({' '.join(str(e).split())[:120]}); go on with --resume."
        ) from e
    finally:
        if joined_here:
            dist.destroy_process_group()


def team_of_environment() -> Team:
    """Return this process's place as its launcher wrote it into the environment."""

    def number(name: str, default: int) -> int:
        text = os.environ.get(name, "")
        return int(text) if text.isdigit() else default

    world = number("WORLD_SIZE", 1)
    rank = number("RANK", 0)
    return Team(rank, world, number("LOCAL_RANK", rank), number("LOCAL_WORLD_SIZE", world))


@contextmanager
def in_turn() -> Iterator[None]:
    """Let the leading process go first through a ``with`` block, the others after it."""
    alone = not dist.is_initialized()
    if not alone and dist.get_rank() > 0:
        dist.barrier()
    yield
    if not alone and dist.get_rank() == 0:
        dist.barrier()


def spread(module: nn.Module, settings: TrainSettings, team: Team, device: torch.device) -> nn.Module:
    """Return ``module`` ready to train in a team: as it is, copied (DDP), or split (FSDP2, in place).

    With DDP each process normalises over its own part of the batch (no SyncBatchNorm, which CPUs do not have); the
    running statistics are those of rank 0.
    """
    if team.world == 1:
        return module
    if settings.parallel == "ddp":
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (team.world,))
    for child in _blocks(module):
        fully_shard(child, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def average_gradients(module: nn.Module | None, team: Team) -> None:
    """Average the gradients of modules that DDP does not know of: those of the objective."""
    if module is None or team.world == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= team.world


def share_buffers(module: nn.Module, team: Team) -> None:
    """Give every process the running statistics of rank 0: each has seen its own images."""
    if team.world > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def whole(tree: Any) -> Any:
    """Return a state dictionary with every split tensor put together, on the CPU; all processes must call."""
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value) for value in tree]
    if isinstance(tree, DTensor):
        return tree.full_tensor().cpu()
    return tree


@torch.no_grad()
def fill(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into those of the same names, which may be split."""
    for name, target in targets.items():
        target.copy_(split_like(values[name], target))


def split_like(value: Tensor, target: Tensor) -> Tensor:
    """Return a whole tensor split as ``target`` is; all processes must call."""
    if not isinstance(target, DTensor) or value.shape != target.shape:
        return value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """Return what FSDP gathers at a time: the items of the network's sequences, its stages and blocks."""
    return [
        child
        for part in module.children()
        for child in (part if isinstance(part, nn.Sequential | nn.ModuleList) else (part,))
        if any(True for _ in child.parameters())
    ]
