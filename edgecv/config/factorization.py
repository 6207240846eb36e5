"""What ``edgecv factorize`` can be asked: option names are field names are recipe keys."""

from dataclasses import dataclass

from edgecv.config.pruning import Target, parse_target
from edgecv.config.settings import check_settings, setting
from edgecv.errors import UsageError

METHODS = "spatial svd tucker cp two-3x3 depthwise"
AUTOMATIC = ("spatial", "svd", "tucker")
"""Methods ``auto`` chooses from: solved by singular values, so that every rank is known at once."""


@dataclass(frozen=True, slots=True)
class FactorizeSettings:
    """How to factorize.

    Raises:
        UsageError: A value outside its range, or settings that contradict each other.
    """

    method: str = setting(
        "auto", "auto: of spatial, svd, tucker the one with fewest MACs, layer by layer; or one of them, cp, two-3x3, "
        "depthwise.", of=f"auto {METHODS}",
    )  # fmt: skip
    layers: tuple[str, ...] = setting((), "Layers by name or pattern (layer3.*); default all but first and classifier.")
    energy: float = setting(0.9, "Share of a kernel's squared weights that is kept; sets the rank.", low=0, high=1)
    rank: int = setting(0, "The same rank for every layer instead; 0: by energy.", low=0, high=65_536)
    to: str = setting("", "What is to remain, macs=0.5 or params=0.5: the energy is searched.")
    by: str = setting(
        "energy",
        "energy; or latency: of the ranks with that energy the fastest, measured, or none.",
        of="energy latency",
    )
    provider: str = setting("cpu", "ONNX Runtime provider that latency is measured on.")
    rank_multiple: int = setting(
        0, "Ranks are rounded up to a multiple of this; 0: floats in a vector register here.", low=0, high=256
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.to and self.rank:
            raise UsageError("--to and --rank contradict each other; give one.")
        if self.to:
            self.target()

    def target(self) -> Target | None:
        """Return what is to remain; None when energy or rank decide.

        Raises:
            UsageError: Neither ``macs=SHARE`` nor ``params=SHARE``.
        """
        if not self.to:
            return None
        target = parse_target(self.to)
        if target.measure == "latency":
            raise UsageError(
                f"--to '{self.to}' is not macs=SHARE or params=SHARE; for time give --by latency beside it."
            )
        return target
