"""What keeping layers in float costs on this machine, from ONNX Runtime's profiles of two files, node by node."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgecv.benchmark.latency import profile_candidate
from edgecv.benchmark.plan import Candidate
from edgecv.benchmark.profile import Profile
from edgecv.progress import Progress, no_progress
from edgecv.quantize.draft import Draft, write_quantizers
from edgecv.quantize.restrict import keep_float
from edgecv.quantize.rewrites import CODE_REWRITES

_COUNTER = re.compile(r"_token_\d+$")
"""ONNX Runtime numbers nodes it makes or moves, and the numbers shift when any other is added."""

Times = dict[tuple[str, str], float]
"""Milliseconds a run by the node's name without its counter, and its operator."""


@dataclass(frozen=True, slots=True)
class CostMeter:
    """Times drafts against the wholly quantized one.

    Attributes:
        int8: Where that one spends its time.
        rewrites: Names of the rewrites of codes that the file will get.
        provider: Policy of :mod:`edgecv.runtime.providers`.
        threads: Intra-op threads: a number, or ``auto``.
        seed: Of the inputs.
    """

    int8: Times
    rewrites: Collection[str]
    provider: str
    threads: str
    seed: int

    @property
    def int8_ms(self) -> float:
        """Time of all kernels of the wholly quantized network, in milliseconds a run."""
        return sum(self.int8.values())

    def cost_ms(self, draft: Draft) -> float:
        """Return how many milliseconds a run of ``draft`` takes longer; negative when it is faster."""
        return extra_ms(self.int8, _profile(draft, self.rewrites, self.provider, self.threads, self.seed))


def open_cost_meter(
    draft: Draft, rewrites: Collection[str], *, provider: str = "cpu", threads: str = "auto", seed: int = 0
) -> CostMeter:
    """Profile the wholly quantized ``draft`` and return what others are measured against it with.

    Raises:
        EnvironmentRefusedError: The provider cannot be had here.
    """
    return CostMeter(_profile(draft, rewrites, provider, threads, seed), rewrites, provider, threads, seed)


def layer_costs(
    meter: CostMeter, draft: Draft, own: ir.Model, layers: Collection[str], progress: Progress = no_progress
) -> dict[str, float]:
    """Return what keeping each of ``layers`` in float by itself costs, in milliseconds a run.

    Args:
        meter: Of ``draft``.
        draft: The whole quantization.
        own: The same float network with its own biases.
        layers: Nodes out of ``draft.placement.layers``.
        progress: See :mod:`edgecv.progress`.
    """
    costs = {}
    for done, layer in enumerate(layers, 1):
        costs[layer] = meter.cost_ms(keep_float(draft, own, [layer], "to be timed"))
        progress("time in float", done, len(layers))
    return costs


def extra_ms(before: Times, after: Times) -> float:
    """Return how much longer the second profile takes, counting only the nodes in which the two differ.

    Nodes that are in both do the same work; they say how fast the machine was each time, and no more.
    """
    same = {key for key in before.keys() & after.keys() if key[0] != key[1]}
    work = [sum(times[key] for key in same) for times in (before, after)]
    slowness = work[1] / work[0] if work[0] and work[1] else 1.0
    gone = sum(ms for key, ms in before.items() if key not in same)
    new = sum(ms for key, ms in after.items() if key not in same)
    return new / slowness - gone


def times_of(profile: Profile) -> Times:
    """Return the median time of every node, nameless ones of one operator together."""
    times: Times = defaultdict(float)
    for layer in profile.by_layer:
        times[_COUNTER.sub("", layer.name), layer.operator] += layer.median_ms
    return dict(times)


def save_draft(draft: Draft, rewrites: Collection[str], path: Path) -> None:
    """Write ``draft`` as the file it will be, without a manifest: to be timed."""
    model, _ = write_quantizers(draft)
    for name in CODE_REWRITES:
        if name in rewrites:
            CODE_REWRITES[name](model)
    ir.save(model, path)


def _profile(draft: Draft, rewrites: Collection[str], provider: str, threads: str, seed: int) -> Times:
    with tempfile.TemporaryDirectory(prefix="edgecv-") as folder:
        path = Path(folder) / "draft.onnx"
        save_draft(draft, rewrites, path)
        return times_of(profile_candidate(Candidate(path, provider, threads=threads), seed))
