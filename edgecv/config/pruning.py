"""What ``edgecv prune`` can be asked: option names are field names are recipe keys."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgecv.errors import UsageError, nearest

CRITERIA = ("l1", "l2", "bn-scale", "taylor", "random")
SCOPES = ("global", "layer")
MEASURES = ("macs", "params", "latency")
MAX_STEPS = 100

LANES = {"avx512f": 16, "avx512_vnni": 16, "avx2": 8, "avx_vnni": 8, "asimd": 4, "sve": 4}
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
    """How to prune; exactly one of ``to``, ``unstructured`` and ``nm`` is given."""

    to: str = field(
        default="", metadata={"help": "What is to remain: macs=0.5, params=0.5, or latency=0.6@cpu (measured)."}
    )
    criterion: str = field(default="l2", metadata={"help": "Which channels go: l1, l2, bn-scale, taylor, random."})
    scope: str = field(default="global", metadata={"help": "Channels compete in the whole network, or in each layer."})
    device: str = field(default="", metadata={"help": "Profile whose SIMD width the layers' widths are rounded to."})
    steps: int = field(default=0, metadata={"help": "Prune in so many steps, healed in between; 0: as epochs allow."})
    unstructured: float | None = field(default=None, metadata={"help": "Single weights: the share to set to zero."})
    nm: str = field(default="", metadata={"help": "Single weights: N of every M stay, as 2:4."})
    temperature: float = field(default=4.0, metadata={"help": "Healing: divides the logits of both networks."})
    weight: float = field(default=0.9, metadata={"help": "Healing: the unpruned network's share of the loss."})


def check_prune_settings(settings: PruneSettings, where: str = "prune") -> None:
    """Raise UsageError naming the first setting that cannot be meant."""
    given = [bool(settings.to), settings.unstructured is not None, bool(settings.nm)]
    if sum(given) != 1:
        raise UsageError(f"{where}: say what is to remain: --to macs=0.5, or --unstructured 0.8, or --nm 2:4.")
    for name, value, known in (("criterion", settings.criterion, CRITERIA), ("scope", settings.scope, SCOPES)):
        if value not in known:
            raise UsageError(f"{where}: --{name} '{value}' is not one of {', '.join(known)}.{nearest(value, known)}")
    if not 0 <= settings.steps <= MAX_STEPS:
        raise UsageError(f"{where}: --steps {settings.steps} is not in 0..{MAX_STEPS}.")
    if settings.to:
        parse_target(settings.to)
        return
    if settings.unstructured is not None and not 0 < settings.unstructured < 1:
        raise UsageError(f"{where}: --unstructured {settings.unstructured} is not a share between 0 and 1, as 0.8.")
    if settings.criterion not in ("l1", "l2", "random"):
        raise UsageError(
            f"{where}: --criterion {settings.criterion} scores whole channels; single weights go by magnitude (l2)."
        )
    if settings.nm:
        parse_pattern(settings.nm)


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
