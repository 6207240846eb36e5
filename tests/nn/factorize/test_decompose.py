"""Factorizations: exact at full rank, worse as it falls, and with the shapes of the layer they replace."""

import pytest
import torch
from torch import nn

from edgecv.nn.factorize.decompose import factors_of, spectrum_of
from edgecv.nn.factorize.geometry import read_geometry
from edgecv.nn.factorize.layers import filled_chain
from edgecv.nn.factorize.methods import METHODS, Rank, check_rank

SIZE = (13, 11)

LAYERS = [
    ("spatial", nn.Conv2d(6, 8, 3, padding=1)),
    ("spatial", nn.Conv2d(6, 8, (3, 5), stride=2, padding=(1, 2), groups=2, bias=False)),
    ("spatial", nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6)),
    ("svd", nn.Linear(12, 7)),
    ("svd", nn.Conv2d(6, 8, 1, stride=2, padding=1)),
    ("svd", nn.Conv2d(6, 8, 1, groups=2)),
    ("tucker", nn.Conv2d(6, 8, 3, stride=2, padding=2, dilation=2)),
    ("cp", nn.Conv2d(2, 3, 3, padding=1)),
    ("two-3x3", nn.Conv2d(4, 6, 5, stride=2, padding=2)),
    ("two-3x3", nn.Conv2d(6, 4, 5, padding=4, dilation=2)),
    ("depthwise", nn.Conv2d(6, 8, 3, stride=2, padding=1)),
    ("depthwise", nn.Conv2d(6, 8, 3, padding=1, groups=2)),
]
NAMES = [f"{method}-{i}" for i, (method, _) in enumerate(LAYERS)]


def error(layer: nn.Module, method: str, rank: Rank) -> tuple[float, float]:
    """Relative error of the answers, and the energy the factors claim to keep."""
    geometry = read_geometry(layer)
    factors, kept = factors_of(method, layer.weight, geometry, rank)
    chain = filled_chain(layer, method, rank, factors)
    pixels = torch.randn(2, geometry.channels_in, *SIZE, generator=torch.Generator().manual_seed(1))
    pixels = pixels.flatten(2).transpose(1, 2) if geometry.linear else pixels
    with torch.no_grad():
        expected, got = layer(pixels), chain(pixels)
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm()), kept


def full(method: str, layer: nn.Module) -> Rank:
    return METHODS[method].full_rank(read_geometry(layer))


@pytest.mark.parametrize(("method", "layer"), LAYERS, ids=NAMES)
def test_full_rank_is_the_layer_itself(method: str, layer: nn.Module) -> None:
    difference, kept = error(layer, method, full(method, layer))
    loose = method == "cp"  # alternation comes near it and stops
    assert kept == pytest.approx(1, abs=1e-2 if loose else 1e-5)
    assert difference < (1e-1 if loose else 1e-3)


@pytest.mark.parametrize(("method", "layer"), LAYERS, ids=NAMES)
def test_a_lower_rank_keeps_less(method: str, layer: nn.Module) -> None:
    most = full(method, layer)
    ranks = sorted({tuple(max(1, round(m * share)) for m in most) for share in (1 / 9, 1 / 3, 1)})
    errors, kept = zip(*(error(layer, method, rank) for rank in ranks), strict=True)
    assert list(errors) == sorted(errors, reverse=True)
    assert list(kept) == sorted(kept)
    assert errors[0] > 0.1


@pytest.mark.parametrize("method", ["spatial", "svd", "depthwise", "tucker"])
def test_the_rank_of_an_energy_keeps_it_and_the_next_lower_does_not(method: str) -> None:
    layer = next(layer for m, layer in LAYERS if m == method)
    geometry = read_geometry(layer)
    rank = spectrum_of(method, layer.weight, geometry, SIZE).rank_at(0.8)
    assert rank is not None
    assert error(layer, method, rank)[1] >= 0.8
    if len(rank) == 1:
        assert error(layer, method, (rank[0] - 1,))[1] < 0.8


def test_ranks_of_cp_are_tried_only_where_they_save_macs() -> None:
    layer = nn.Conv2d(16, 16, 3, padding=1)
    geometry = read_geometry(layer)
    spectrum = spectrum_of("cp", layer.weight, geometry, SIZE)
    rank = spectrum.rank_at(0.3)
    assert rank is not None
    assert error(layer, "cp", rank)[1] >= 0.3
    assert spectrum.rank_at(0.999) is None
    pieces = METHODS["cp"].pieces(geometry, (spectrum.ranks[-1],))
    assert sum(p.macs(SIZE) for p in pieces) < geometry.macs(SIZE)


def test_a_kernel_of_rank_one_is_found_whole() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    with torch.no_grad():
        out, into, rows, columns = (torch.rand(n) + 0.1 for n in (4, 4, 3, 3))
        layer.weight.copy_(torch.einsum("o,i,h,w->oihw", out, into, rows, columns))
    for method in ("cp", "spatial", "tucker", "depthwise"):
        assert error(layer, method, tuple(1 for _ in full(method, layer)))[0] < 1e-3


@pytest.mark.parametrize(
    ("method", "layer"),
    [
        ("cp", nn.Conv2d(4, 4, 3, groups=2)),
        ("tucker", nn.Conv2d(4, 4, 1)),
        ("two-3x3", nn.Conv2d(4, 4, 3)),
        ("depthwise", nn.Conv2d(4, 4, 3, groups=4)),
        ("svd", nn.Conv2d(4, 4, 3)),
        ("spatial", nn.Conv2d(4, 4, (1, 3))),
    ],
)
def test_a_method_says_which_layers_it_leaves_alone(method: str, layer: nn.Module) -> None:
    assert METHODS[method].misfit(read_geometry(layer))


@pytest.mark.parametrize("rank", [[0], [-1], [7], [1.0], [True], ["2"], [1, 1], []])
def test_a_rank_that_no_factorization_has_is_refused(rank: list[object]) -> None:
    with pytest.raises(ValueError, match="rank"):
        check_rank("svd", read_geometry(nn.Linear(6, 9)), rank)
