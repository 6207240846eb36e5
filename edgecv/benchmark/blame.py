"""Which operators make one model slower than another: two profiles, compared by the work the operators do."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecv.benchmark.latency import profile_candidate
from edgecv.benchmark.plan import plan_candidates
from edgecv.benchmark.profile import Profile
from edgecv.benchmark.report import BenchReport

_KINDS = {
    "Gemm": "matrix products", "MatMul": "matrix products", "MatMulIntegerToFloat": "matrix products",
    "MatMulInteger": "matrix products", "DynamicQuantizeMatMul": "matrix products", "QGemm": "matrix products",
    "Conv": "convolutions", "ConvInteger": "convolutions", "ConvTranspose": "convolutions",
    "Sigmoid": "activations and multiplications", "QuickGelu": "activations and multiplications",
    "HardSigmoid": "activations and multiplications", "HardSwish": "activations and multiplications",
    "Mul": "activations and multiplications",
    "QuantizeLinear": "conversion to and from int8", "DequantizeLinear": "conversion to and from int8",
    "DynamicQuantizeLinear": "conversion to and from int8",
    "Transpose": "layout changes", "ReorderInput": "layout changes", "ReorderOutput": "layout changes",
}  # fmt: skip

_PREFIX = re.compile(r"^(Nhwc)?(QLinear|Fused)?(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Loss:
    """Work in which the candidate is slower.

    Attributes:
        kind: What is done, in words, or the operator's name.
        reference_ms: Milliseconds per run in the reference's kernels.
        candidate_ms: The same of the candidate.
    """

    kind: str
    reference_ms: float
    candidate_ms: float

    @property
    def lost_ms(self) -> float:
        """How much longer the candidate takes."""
        return self.candidate_ms - self.reference_ms


def explain_slower(report: BenchReport, seed: int = 0) -> list[dict[str, Any]]:
    """Profile the first two models of a report and return where the second loses time, worst first.

    Each entry has ``kind``, ``reference_ms`` and ``candidate_ms``. Profiling adds a few microseconds to every node.
    """
    profiles = []
    for result in report.results[:2]:
        candidates = plan_candidates([Path(result.model)], [result.provider], [result.batch], [str(result.threads)])
        profiles.append(profile_candidate(candidates[0], seed))
    return [asdict(loss) for loss in find_losses(profiles[0], profiles[1])]


def find_losses(reference: Profile, candidate: Profile) -> tuple[Loss, ...]:
    """Return the kinds of work that take the candidate longer, the largest difference first."""
    before, after = _by_kind(reference), _by_kind(candidate)
    losses = [Loss(kind, before.get(kind, 0.0), ms) for kind, ms in after.items()]
    return tuple(sorted((x for x in losses if x.lost_ms > 0), key=lambda x: (-x.lost_ms, x.kind)))


def describe_losses(losses: Sequence[dict[str, Any]], most: int = 3) -> str:
    """Return the largest losses in words.

    >>> describe_losses([{"kind": "convolutions", "reference_ms": 3.0, "candidate_ms": 4.5}])
    'convolutions 3.00 → 4.50 ms'
    """
    return ", ".join(f"{x['kind']} {x['reference_ms']:.2f} → {x['candidate_ms']:.2f} ms" for x in losses[:most])


def _by_kind(profile: Profile) -> dict[str, float]:
    spent: defaultdict[str, float] = defaultdict(float)
    for part in profile.by_operator:
        name = _PREFIX.sub("", part.name)
        spent[_KINDS.get(name, _KINDS.get(part.name, name))] += part.ms_per_run
    return dict(spent)
