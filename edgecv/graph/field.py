"""The receptive field of one value along one axis of the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Field:
    """The field along one axis of the image.

    Attributes:
        axes: Axes of the value along which positions lie: one, several where the image's axis was folded or cut, none
            when there is one position.
        size: Pixels seen; infinite for the whole image.
        stride: Pixels between neighbouring positions; None where they do not lie in a row.
        offset: Centre of the first position's field in pixels; NaN where it is not known.
    """

    axes: tuple[int, ...]
    size: float
    stride: float | None
    offset: float

    @property
    def is_local(self) -> bool:
        """Whether it is less than the whole image."""
        return math.isfinite(self.size)


def whole(axes: Sequence[int] = (), stride: float | None = None) -> Field:
    """Return the field that sees everything."""
    return Field(tuple(axes), math.inf, stride, math.nan)


def join(fields: Sequence[Field]) -> Field:
    """Return the union of what several inputs see at the same position."""
    placed = max(fields, key=lambda f: len(f.axes))
    if not all(f.is_local for f in fields):
        return whole(placed.axes, placed.stride)
    if len({(f.axes, f.stride) for f in fields}) > 1 or placed.stride is None:
        same = all(f.size == placed.size and f.axes == placed.axes for f in fields)
        return replace(placed, offset=math.nan) if same else whole(placed.axes, placed.stride)
    low = min(f.offset - (f.size - 1) / 2 for f in fields)
    high = max(f.offset + (f.size - 1) / 2 for f in fields)
    return replace(placed, size=high - low + 1, offset=(low + high) / 2)
