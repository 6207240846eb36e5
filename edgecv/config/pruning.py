"""What ``edgecv prune`` can be asked: option names are field names are recipe keys."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgecv.config.settings import check_settings, setting
from edgecv.errors import UsageError, nearest

CRITERIA = "l1 l2 bn-scale taylor random"
SCOPES = "global layer"
MEASURES = ("macs", "params", "latency")

LANES = {"avx512f": 16, "avx512_vnni": 16, "avx2": 8, "avx_vnni": 8, "asimd": 4, "sve": 4, "simd128": 4}
"""float32 numbers in one vector register, by instruction set in /proc/cpuinfo's names."""

DEPTHWISE_WIDTH = 16
"""Channels of ONNX Runtime's depthwise int8 kernel; others take a path 2.1-2.5 times slower (graph/pad_depthwise)."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to remain of a network.

    Attributes:
        measure: ``macs``, ``params``, or ``latency`` (measured).
        share: Of the original's, in (0, 1).
        provider: Where latency is measured: a policy of :mod:`edgecv.runtime.providers`.
    """

    measure: str
    share: float
    provider: str = "cpu"

    def __str__(self) -> str:
        """As the user types it."""
        where = f"@{self.provider}" if self.measure == "latency" else ""
        return f"{self.measure}={self.share:g}{where}"


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """How to prune; one of ``to``, ``unstructured`` and ``nm`` says how far.

    Raises:
        UsageError: A value outside its range, or settings that contradict each other.
    """

    to: str = setting("", "What is to remain: macs=0.5, params=0.5, or latency=0.6@cpu (measured).")
    criterion: str = setting("l2", "Which channels go: l1, l2, bn-scale, taylor (needs --data), random.", of=CRITERIA)
    scope: str = setting(
        "global", "Channels compete in the whole network (global), or each layer gives its share.", of=SCOPES
    )
    for_device: str = setting("", "Device profile whose SIMD width layers are rounded to; default: this machine.")
    steps: int = setting(0, "Prune in so many steps, healed in between; 0: up to 3.", low=0, high=100)
    unstructured: float | None = setting(None, "Single weights: the share to set to zero, as 0.8.", low=0, high=0.999)
    nm: str = setting("", "Single weights: N of every M stay, as 2:4.")
    temperature: float = setting(2.0, "Healing: divides the logits of both networks.", low=0.01, high=100)
    teacher_weight: float = setting(0.9, "Healing: share of the unpruned network in the loss.", low=0, high=1)

    def __post_init__(self) -> None:
        check_settings(self)
        if sum((bool(self.to), self.unstructured is not None, bool(self.nm))) > 1:
            raise UsageError("--to, --unstructured and --nm are three ways to prune; give one.")
        if self.to:
            parse_target(self.to)
        elif self.by_weight and self.criterion in ("bn-scale", "taylor"):
            raise UsageError(f"--criterion {self.criterion} scores whole channels; single weights go by magnitude, l2.")
        if self.nm:
            parse_pattern(self.nm)

    @property
    def by_weight(self) -> bool:
        """Whether single weights go, not whole channels."""
        return self.unstructured is not None or bool(self.nm)


def parse_target(text: str) -> Target:
    """Read ``macs=0.5``, ``params=0.5`` or ``latency=0.6@cpu``.

    >>> parse_target("latency=0.6@cpu")
    Target(measure='latency', share=0.6, provider='cpu')

    Raises:
        UsageError: Anything else.
    """
    measure, _, rest = text.partition("=")
    number, at, provider = rest.partition("@")
    if measure not in MEASURES:
        hint = nearest(measure, MEASURES)
        raise UsageError(f"--to '{text}' is not macs=SHARE, params=SHARE or latency=SHARE@PROVIDER.{hint}")
    if at and (measure != "latency" or not provider):
        raise UsageError(f"--to '{text}': @PROVIDER belongs to latency, as latency=0.6@cpu.")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UsageError(f"--to '{text}': what is to remain is a share between 0 and 1, as {measure}=0.5.")
    return Target(measure, share, provider or "cpu")


def parse_pattern(text: str) -> tuple[int, int]:
    """Read ``2:4``: of every 4 weights 2 stay.

    >>> parse_pattern("2:4")
    (2, 4)

    Raises:
        UsageError: Not N:M with 0 < N < M ≤ 32.
    """
    kept, _, block = text.partition(":")
    if not (kept.isdecimal() and block.isdecimal() and 0 < int(kept) < int(block) <= 32):
        raise UsageError(f"--nm '{text}' is not N:M with 0 < N < M ≤ 32, as 2:4.")
    return int(kept), int(block)


def simd_lanes(isa: Sequence[str]) -> int:
    """Return how many float32 numbers the widest vector register of ``isa`` holds; 8 where nothing is known."""
    return max((LANES[name] for name in isa if name in LANES), default=8)


def step_epochs(epochs: int, steps: int) -> list[int]:
    """Share epochs among steps: a third of them between the steps, the rest after the last.

    >>> step_epochs(10, 3)
    [2, 2, 6]
    """
    between = max(1, round(epochs / 3 / max(1, steps - 1)))
    return [*[between] * (steps - 1), epochs - between * (steps - 1)]
