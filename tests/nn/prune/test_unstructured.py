import itertools
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv.config.pruning import PruneSettings
from edgecv.nn.models import build_network
from edgecv.nn.prune.unstructured import (
    apply_masks,
    compressed_bytes,
    cubic_sparsity,
    hold_masks,
    make_masks,
    masks_of,
    prunable_weights,
    sparsity,
)


@pytest.fixture
def module() -> nn.Module:
    return build_network("mobilenetv2_050", random_init=True, input_size=32).module


def test_the_smallest_weights_of_the_whole_network_go(module: nn.Module) -> None:
    largest = {k: w.abs().max().item() for k, w in prunable_weights(module).items()}
    apply_masks(module, make_masks(module, PruneSettings(unstructured=0.8)))
    assert sparsity(module)["share"] == pytest.approx(0.8, abs=1e-5)
    kept = torch.cat([w[w != 0].abs() for w in prunable_weights(module).values()])
    assert float(kept.min()) > 0
    assert all(w.abs().max().item() in (largest[k], 0) for k, w in prunable_weights(module).items())
    shares = {round(float((w == 0).float().mean()), 3) for w in prunable_weights(module).values()}
    assert len(shares) > 5, "layers differ"


def test_scope_layer_takes_the_same_share_of_each(module: nn.Module) -> None:
    apply_masks(module, make_masks(module, PruneSettings(unstructured=0.5, scope="layer")))
    for name, weight in prunable_weights(module).items():
        assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01), name


def test_depthwise_weights_stay(module: nn.Module) -> None:
    apply_masks(module, make_masks(module, PruneSettings(unstructured=0.9)))
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert layers
    assert not any((m.weight == 0).any() for m in layers)


def test_two_of_four_neighbours_along_the_input_stay(module: nn.Module) -> None:
    before = {k: w.clone() for k, w in prunable_weights(module).items()}
    apply_masks(module, make_masks(module, PruneSettings(nm="2:4")))
    for name, weight in prunable_weights(module).items():
        if weight.shape[1] % 4:
            assert torch.equal(weight, before[name]), name
            continue
        last = weight.movedim(1, -1).reshape(-1, 4)
        assert ((last != 0).sum(1) == 2).all(), name
        magnitudes = before[name].movedim(1, -1).reshape(-1, 4).abs()
        assert torch.allclose(last.abs().sum(1), magnitudes.topk(2).values.sum(1)), name


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_zeros_stay_zero_while_the_network_trains(module: nn.Module, kind: str) -> None:
    apply_masks(module, make_masks(module, PruneSettings(unstructured=0.7)))
    masks, before = masks_of(module), {k: w.clone() for k, w in prunable_weights(module).items()}
    handles = hold_masks(module, masks)
    parameters = [p for p in module.parameters() if p.requires_grad]
    assert len(parameters) == len(masks)
    optimizer = (
        torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)
        if kind == "sgd"
        else torch.optim.AdamW(parameters, 0.01, weight_decay=0.1)
    )
    for step in range(3):
        optimizer.zero_grad()
        module(torch.randn((4, 3, 32, 32), generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
    for name, weight in prunable_weights(module).items():
        assert not weight[~masks[name]].any(), name
    assert any(not torch.equal(w, before[k]) for k, w in prunable_weights(module).items()), "nothing was trained"
    for handle in handles:
        handle.remove()


def test_the_schedule_ends_where_asked_and_slows_down() -> None:
    shares = [cubic_sparsity(0.9, k, 5) for k in range(6)]
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(0.9)
    gains = [b - a for a, b in itertools.pairwise(shares)]
    assert gains == sorted(gains, reverse=True)


def test_compressed_sizes_are_those_of_real_archives(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(10_000) + torch.randn(2500).numpy().tobytes())
    sizes = compressed_bytes(file, tmp_path)
    with zipfile.ZipFile(tmp_path / "own.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        z.write(file, file.name)
    assert sizes["zip"] == (tmp_path / "own.zip").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own.zip", "weights"]
