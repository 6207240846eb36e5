"""Channels and heads removed from a network: one step, from scores to the smaller network with its plan."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from edgecv.config.device import load_device
from edgecv.config.pruning import PruneSettings, simd_lanes
from edgecv.errors import UsageError
from edgecv.nn.network import Network
from edgecv.nn.prune.check import sound_groups
from edgecv.nn.prune.choose import Rule
from edgecv.nn.prune.count import Sizer
from edgecv.nn.prune.criteria import add_gradients, score_groups
from edgecv.nn.prune.groups import trace_groups
from edgecv.nn.prune.plan import make_step, read_widths
from edgecv.nn.prune.removal import remove_units
from edgecv.nn.prune.search import Searched, Units
from edgecv.progress import Progress, no_progress
from edgecv.runtime.host import cpu_flags


@dataclass(frozen=True, slots=True, eq=False)
class Prunable:
    """A network whose groups are known, checked and scored.

    Attributes:
        network: As it was given.
        searched: Groups, scores and counts.
        left_alone: Layers whose channels cannot be cut soundly.
    """

    network: Network
    searched: Searched
    left_alone: tuple[str, ...]

    def cut(self, choice: Units) -> Network:
        """Return the smaller network; this one stays as it is."""
        module = copy.deepcopy(self.network.module)
        remove_units(module, self.searched.traced.groups, choice)
        step = make_step(read_widths(self.network.module), read_widths(module))
        return replace(self.network, module=module.eval(), structure=(*self.network.structure, step))


def analyse(
    network: Network,
    settings: PruneSettings,
    *,
    batches: Iterable[tuple[Tensor, Tensor]] = (),
    seed: int = 0,
    progress: Progress = no_progress,
) -> Prunable:
    """Find, check and score what can be cut from a network.

    Args:
        network: On the CPU; not changed.
        settings: Criterion, scope and the device whose SIMD width counts.
        batches: For ``taylor``: normalised float32 ``(N, 3, H, W)`` with int64 ``(N,)``.
        seed: Of everything random.
        progress: See :mod:`edgecv.progress`.

    Raises:
        UsageError: Nothing can be cut, the network cannot be traced, unknown device, ``taylor`` without images.
    """
    size = network.input.input_size
    progress("find channels that go together", 0, 3)
    traced = trace_groups(network.module, size)
    progress("find channels that go together", 1, 3)
    which, unsound = sound_groups(traced, size, seed)
    if not which:
        raise UsageError(f"no layer of '{network.name}' can be cut soundly; --unstructured prunes any network.")
    progress("find channels that go together", 2, 3)
    if settings.criterion == "taylor":
        add_gradients(traced, batches)
    scores = score_groups(traced, settings.criterion, seed)
    isa = load_device(settings.for_device).isa if settings.for_device else tuple(cpu_flags())
    searched = Searched(
        traced, scores, which, Sizer(traced.module, traced.groups, size), Rule(settings.scope, simd_lanes(isa))
    )
    progress("find channels that go together", 3, 3)
    return Prunable(network, searched, tuple(traced.groups[i].name for i in unsound))
