"""The six factorizations as shapes: which layers they fit, how far their ranks go, and the layers they give."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgecv.nn.factorize.geometry import Geometry, along, narrow

Rank = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """One way to factorize.

    Attributes:
        misfit: Why a layer is left alone; empty when the method fits it.
        full_rank: The least rank at which the layers together are the original exactly, whatever its weights.
        pieces: The layers for a rank, in the order in which they run; the last bears the bias.
    """

    misfit: Callable[[Geometry], str]
    full_rank: Callable[[Geometry], Rank]
    pieces: Callable[[Geometry, Rank], Sequence[Geometry]]


def check_rank(method: str, geometry: Geometry, rank: Sequence[object]) -> Rank:
    """Return ``rank`` as the method takes it.

    Raises:
        ValueError: The method is not known or does not fit, or the rank is none of its ranks.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method[:40]!r}")
    if why := METHODS[method].misfit(geometry):
        raise ValueError(why)
    full = METHODS[method].full_rank(geometry)
    whole = tuple(r for r in rank if isinstance(r, int) and not isinstance(r, bool))
    if len(whole) != len(rank) or len(whole) != len(full):
        raise ValueError(f"rank {list(rank)!r:.40} of method {method} is not {len(full)} whole number(s)")
    if not all(1 <= r <= most for r, most in zip(whole, full, strict=True)):
        raise ValueError(f"rank {list(whole)} of method {method} is not within 1 to {list(full)}")
    return whole


def _spatial_misfit(g: Geometry) -> str:
    return "" if min(g.kernel) > 1 else "its kernel is a point or a line already"


def _spatial_full(g: Geometry) -> Rank:
    per_group = g.channels_in * g.kernel[0] // g.groups, g.channels_out * g.kernel[1] // g.groups
    return (min(per_group),)


def _spatial_pieces(g: Geometry, rank: Rank) -> list[Geometry]:
    middle = rank[0] * g.groups
    first = along(g, 0, g.channels_in, middle, groups=g.groups)
    return [first, along(g, 1, middle, g.channels_out, groups=g.groups, bias=g.bias)]


def _svd_misfit(g: Geometry) -> str:
    if g.kernel != (1, 1):
        return "svd is for linear layers and 1×1 convolutions"
    return "" if _svd_full(g)[0] > 1 else "it is depthwise"


def _svd_full(g: Geometry) -> Rank:
    return (min(g.channels_in, g.channels_out) // g.groups,)


def _svd_pieces(g: Geometry, rank: Rank) -> list[Geometry]:
    middle = rank[0] * g.groups
    first = replace(g, channels_out=middle, bias=False)
    return [first, narrow(g, middle, g.channels_out, groups=g.groups, bias=g.bias)]


def _whole_misfit(g: Geometry) -> str:
    if g.kernel == (1, 1):
        return "its kernel is a point"
    return "" if g.groups == 1 else f"it has {g.groups} groups"


def _tucker_full(g: Geometry) -> Rank:
    return g.channels_in, g.channels_out


def _tucker_pieces(g: Geometry, rank: Rank) -> list[Geometry]:
    middle = replace(g, channels_in=rank[0], channels_out=rank[1], bias=False)
    return [narrow(g, g.channels_in, rank[0]), middle, narrow(g, rank[1], g.channels_out, bias=g.bias)]


def _cp_full(g: Geometry) -> Rank:
    sizes = sorted((g.channels_in, g.channels_out, *g.kernel))
    return (math.prod(sizes[:-1]),)


def _cp_pieces(g: Geometry, rank: Rank) -> list[Geometry]:
    r = rank[0]
    lines = [along(g, axis, r, r, groups=r) for axis in (0, 1)]
    return [narrow(g, g.channels_in, r), *lines, narrow(g, r, g.channels_out, bias=g.bias)]


def _two_misfit(g: Geometry) -> str:
    if g.kernel != (5, 5):
        return "its kernel is not 5×5"
    return "" if g.groups == 1 else f"it has {g.groups} groups"


def _two_full(g: Geometry) -> Rank:
    # Four corners: a 3×3 kernel that is one shift, and another 3×3 behind it, together reach all of 5×5.
    return (4 * min(g.channels_in, g.channels_out),)


def _two_pieces(g: Geometry, rank: Rank) -> list[Geometry]:
    first = replace(g, channels_out=rank[0], kernel=(3, 3), stride=(1, 1), bias=False)
    # All padding stands before the first, so that the two are one 5×5 at the border too.
    return [first, replace(g, channels_in=rank[0], kernel=(3, 3), padding=(0, 0))]


def _depthwise_misfit(g: Geometry) -> str:
    if g.kernel == (1, 1):
        return "its kernel is a point"
    return "" if g.channels_in > g.groups else "it is depthwise already"


def _depthwise_full(g: Geometry) -> Rank:
    return (min(math.prod(g.kernel), g.channels_out // g.groups),)


def _depthwise_pieces(g: Geometry, rank: Rank) -> list[Geometry]:
    middle = g.channels_in * rank[0]
    first = replace(g, channels_out=middle, groups=g.channels_in, bias=False)
    return [first, narrow(g, middle, g.channels_out, groups=g.groups, bias=g.bias)]


METHODS: dict[str, Method] = {
    "spatial": Method(_spatial_misfit, _spatial_full, _spatial_pieces),
    "svd": Method(_svd_misfit, _svd_full, _svd_pieces),
    "tucker": Method(_whole_misfit, _tucker_full, _tucker_pieces),
    "cp": Method(_whole_misfit, _cp_full, _cp_pieces),
    "two-3x3": Method(_two_misfit, _two_full, _two_pieces),
    "depthwise": Method(_depthwise_misfit, _depthwise_full, _depthwise_pieces),
}
"""Name → method. Sources: spatial: Jaderberg, Vedaldi, Zisserman, BMVC 2014 (scheme 2); svd: Denton et al., NeurIPS
2014; tucker: Kim et al., ICLR 2016; cp: Lebedev et al., ICLR 2015; two-3x3: Szegedy et al., CVPR 2016, section 3.1;
depthwise: Guo et al., Network decoupling, BMVC 2018.
"""
