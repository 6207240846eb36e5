"""The weights of a factorization: how much of a kernel each rank keeps, and the best layers of one rank."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgecv.nn.factorize.alternating import fit_two_3x3
from edgecv.nn.factorize.geometry import Geometry, Pair, chain_cost
from edgecv.nn.factorize.methods import METHODS, Rank

_TRIED = 5
"""Ranks tried where there are no singular values to read them from; each is a decomposition of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """What each rank of one layer keeps.

    Attributes:
        kept: For each number of the rank, share of the energy kept by rank 1, 2, …; or by each of ``ranks``.
        ranks: The ranks tried, ascending; empty where ``kept`` has all of them.
    """

    kept: tuple[Tensor, ...]
    ranks: tuple[int, ...] = ()

    def rank_at(self, energy: float) -> Rank | None:
        """Return the least rank that keeps ``energy``, in 0..1; None when no rank tried does.

        With two numbers (tucker) each may lose half of what is given up: what both lose together is at most the sum
        (De Lathauwer et al. 2000, property 10).
        """
        wanted = 1 - (1 - energy) / len(self.kept)
        places = [int(torch.searchsorted(k, wanted - 1e-6)) for k in self.kept]
        if self.ranks:
            return (self.ranks[places[0]],) if places[0] < len(self.ranks) else None
        return tuple(min(place + 1, len(k)) for place, k in zip(places, self.kept, strict=True))


def spectrum_of(method: str, weight: Tensor, geometry: Geometry, size: Pair, seed: int = 0) -> Spectrum:
    """Return what the ranks of a method keep of a weight.

    Args:
        method: Key of :data:`~edgecv.nn.factorize.methods.METHODS` that fits.
        weight: Of the layer.
        geometry: Of the layer.
        size: Of its input; for cp and two-3x3 only ranks that save MACs are tried.
        seed: Of the starting points of cp and two-3x3.
    """
    kernel = _kernel(weight, geometry)
    if method in _MATRICES:
        values = torch.linalg.svdvals(_MATRICES[method](kernel, geometry)).square().sum(0)
        return Spectrum((_shares(values),))
    if method == "tucker":
        modes = (kernel.movedim(1, 0).flatten(1), kernel.flatten(1))
        return Spectrum(tuple(_shares(torch.linalg.svdvals(m).square()) for m in modes))
    most = _largest_saving(method, geometry, size)
    ranks = tuple(sorted({max(1, round(most * i / _TRIED)) for i in range(1, _TRIED + 1)})) if most else ()
    kept = [_energy(kernel, _SOLVERS[method](kernel, r, seed)[1]) for r in ranks]
    best = torch.tensor(kept).cummax(0).values if kept else torch.zeros(0)
    return Spectrum((best,), ranks)


def factors_of(
    method: str, weight: Tensor, geometry: Geometry, rank: Rank, seed: int = 0
) -> tuple[list[Tensor], float]:
    """Return the weights of the pieces in their order, and the share of the kernel's energy they keep.

    Each piece gets an equal share of the scale, which is what training on likes best.
    """
    kernel = _kernel(weight, geometry)
    if method in _MATRICES:
        matrix = _MATRICES[method](kernel, geometry)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        kept = float(values[:, : rank[0]].square().sum() / values.square().sum().clamp_min(1e-30))
        root = values[:, : rank[0]].sqrt()
        first, second = root[..., None] * right[:, : rank[0]], left[..., : rank[0]] * root[:, None]
        return _as_layers(method, geometry, rank, first, second), kept
    factors, approximation = _SOLVERS[method](kernel, rank if method == "tucker" else rank[0], seed)
    if geometry.linear:
        factors = [f.flatten(1) for f in factors]
    return factors, _energy(kernel, approximation)


def _kernel(weight: Tensor, g: Geometry) -> Tensor:
    return weight.detach().float().reshape(g.channels_out, g.channels_in // g.groups, *g.kernel)


def _grouped(kernel: Tensor, g: Geometry) -> Tensor:
    """Return (groups, out, in, height, width), the channels being those of one group."""
    return kernel.reshape(g.groups, g.channels_out // g.groups, *kernel.shape[1:])


def _spatial_matrix(kernel: Tensor, g: Geometry) -> Tensor:
    """Return (groups, out · width, in · height): its right singular vectors are the vertical kernels."""
    return _grouped(kernel, g).permute(0, 1, 4, 2, 3).flatten(3, 4).flatten(1, 2)


def _svd_matrix(kernel: Tensor, g: Geometry) -> Tensor:
    """Return (groups, out, in)."""
    return _grouped(kernel, g).flatten(2)


def _depthwise_matrix(kernel: Tensor, g: Geometry) -> Tensor:
    """Return (in, out of its group, height · width): for each input channel its kernels."""
    return _grouped(kernel, g).transpose(1, 2).flatten(0, 1).flatten(2)


_MATRICES: dict[str, Callable[[Tensor, Geometry], Tensor]] = {
    "spatial": _spatial_matrix,
    "svd": _svd_matrix,
    "depthwise": _depthwise_matrix,
}


def _as_layers(method: str, g: Geometry, rank: Rank, first: Tensor, second: Tensor) -> list[Tensor]:
    """Return the factors of a matrix, (batch, rank, columns) and (batch, rows, rank), as weights of layers."""
    height, width = g.kernel
    if method == "spatial":
        vertical = first.reshape(-1, g.channels_in // g.groups, height, 1)
        horizontal = second.reshape(g.groups, -1, width, rank[0]).transpose(2, 3)
        return [vertical, horizontal.reshape(g.channels_out, rank[0], 1, width)]
    if method == "depthwise":
        depthwise = first.reshape(-1, 1, height, width)
        per_group = second.reshape(g.groups, -1, *second.shape[1:])  # group, in, out, rank
        return [depthwise, per_group.transpose(1, 2).reshape(g.channels_out, -1, 1, 1)]
    layers = [first.flatten(0, 1), second.flatten(0, 1)]
    return layers if g.linear else [weight[..., None, None] for weight in layers]


def _tucker(kernel: Tensor, rank: Rank, seed: int) -> tuple[list[Tensor], Tensor]:
    """Tucker-2 over the channels: higher-order SVD, refined by alternation (partial_tucker of TensorLy)."""
    import tensorly
    from tensorly.decomposition import partial_tucker

    with tensorly.backend_context("pytorch", local_threadsafe=True):
        (core, (out, into)), _ = partial_tucker(kernel, rank=[rank[1], rank[0]], modes=[0, 1], n_iter_max=5)
        approximation = torch.einsum("abhw,oa,ib->oihw", core, out, into)
    scale = core.norm().clamp_min(1e-30) ** (1 / 3) / core.norm().clamp_min(1e-30)
    share = (1 / scale).sqrt()
    layers = [into.T[..., None, None] * share, core * scale, out[..., None, None] * share]
    return [layer.contiguous() for layer in layers], approximation


def _cp(kernel: Tensor, rank: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Canonical polyadic decomposition by alternating least squares (parafac of TensorLy)."""
    import tensorly
    from tensorly.decomposition import parafac

    with tensorly.backend_context("pytorch", local_threadsafe=True):
        weights, factors = parafac(kernel, rank, n_iter_max=_CP_ROUNDS, init="random", random_state=seed, tol=1e-6)
    out, into, rows, columns = _balanced(weights, factors)
    approximation = torch.einsum("or,ir,hr,wr->oihw", out, into, rows, columns)
    layers = [into.T[..., None, None], rows.T[:, None, :, None], columns.T[:, None, None, :], out[..., None, None]]
    return [layer.contiguous() for layer in layers], approximation


_CP_ROUNDS = 30


def _balanced(weights: Tensor, factors: Sequence[Tensor]) -> list[Tensor]:
    """Return the factors with columns of equal norms."""
    norms = [f.norm(dim=0).clamp_min(1e-12) for f in factors]
    each = (weights.abs() * math.prod(norms)) ** (1 / len(factors))
    balanced = [f / n * each for f, n in zip(factors, norms, strict=True)]
    balanced[0] = balanced[0] * torch.sign(weights)
    return balanced


_SOLVERS: dict[str, Callable[..., tuple[list[Tensor], Tensor]]] = {
    "tucker": _tucker,
    "cp": _cp,
    "two-3x3": fit_two_3x3,
}


def _energy(kernel: Tensor, approximation: Tensor) -> float:
    lost = (kernel - approximation).square().sum() / kernel.square().sum().clamp_min(1e-30)
    return max(0.0, 1 - float(lost))


def _shares(values: Tensor) -> Tensor:
    return values.double().cumsum(0) / values.double().sum().clamp_min(1e-30)


def _largest_saving(method: str, geometry: Geometry, size: Pair) -> int:
    """Return the largest rank with fewer MACs than the layer itself; 0 when there is none."""
    low, high = 0, METHODS[method].full_rank(geometry)[0]
    while low < high:
        middle = (low + high + 1) // 2
        macs, _ = chain_cost(METHODS[method].pieces(geometry, (middle,)), size)
        low, high = (middle, high) if macs < geometry.macs(size) else (low, middle - 1)
    return low
