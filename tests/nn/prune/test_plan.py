import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecv.config.pruning import PruneSettings
from edgecv.errors import UsageError
from edgecv.nn.checkpoint import load_network, save_network
from edgecv.nn.models import build_network, build_untrained
from edgecv.nn.network import Network
from edgecv.nn.prune.plan import apply
from edgecv.nn.prune.search import find_choice
from edgecv.nn.prune.structured import analyse


def pruned(network: Network, share: float, scope: str = "layer") -> Network:
    prunable = analyse(network, PruneSettings(to=f"macs={share}", scope=scope))
    return prunable.cut(find_choice(prunable.searched, "macs", share, f"macs={share}"))


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 32), ("vit_tiny_patch16_224", 32), ("convnext_atto", 32), ("regnety_002", 32), ("nfnet_l0", 32)],
)
def test_two_prunings_one_after_the_other_come_back(name: str, size: int, tmp_path: Path) -> None:
    network = pruned(pruned(build_network(name, random_init=True, input_size=size), 0.8), 0.7, "global")
    assert [s["step"] for s in network.structure] == ["prune", "prune"]
    save_network(tmp_path / "m.safetensors", network)
    loaded = load_network(tmp_path / "m.safetensors")
    x = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.module(x), network.module(x))
    again = pruned(loaded, 0.8)  # a loaded network is as prunable as any
    assert sum(p.numel() for p in again.module.parameters()) < sum(p.numel() for p in network.module.parameters())


def test_a_plan_is_replayed_without_the_pruner(tmp_path: Path) -> None:
    save_network(tmp_path / "m.safetensors", pruned(build_network("resnet18", random_init=True, input_size=32), 0.7))
    code = (
        "import sys; from pathlib import Path; from edgecv.nn.checkpoint import load_network\n"
        f"load_network(Path({str(tmp_path / 'm.safetensors')!r})); assert 'torch_pruning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_original_is_left_as_it_is() -> None:
    network = build_network("residual20:width=0.5", random_init=True)
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    smaller = pruned(network, 0.6)
    assert network.structure == ()
    assert all(torch.equal(v, before[k]) for k, v in network.module.state_dict().items())
    assert smaller.module is not network.module


def test_a_pruned_network_takes_a_new_classifier(tmp_path: Path) -> None:
    save_network(tmp_path / "m.safetensors", pruned(build_network("resnet18", random_init=True, input_size=32), 0.5))
    adapted = build_network(str(tmp_path / "m.safetensors"), num_classes=5)
    assert adapted.module(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert build_untrained(str(tmp_path / "m.safetensors")).structure == adapted.structure


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([], "not a table"),
        ({"conv1": 3}, "not a table"),
        ({"nowhere": {"out_channels": 1}}, "does not have"),
        ({"conv1": {"training": 1}}, "not a width"),
        ({"conv1": {"__class__": 1}}, "not a width"),
        ({"conv1": {"num_features": 1}}, "not a width"),
        ({"conv1": {"out_channels": 1000}}, "not within"),
        ({"conv1": {"out_channels": 0}}, "not within"),
        ({"conv1": {"out_channels": True}}, "not within"),
        ({"conv1": {"out_channels": 2.0}}, "not within"),
        ({"conv1": {"out_channels": [2]}}, "it is 16"),
        ({"conv1": {"in_channels": 1, "groups": 1}, "layer1.0.conv1": {"in_channels": "9"}}, "not within"),
    ],
)
def test_a_plan_from_anywhere_sets_widths_and_nothing_else(modules: Any, message: str) -> None:
    module = build_network("residual20", random_init=True).module
    with pytest.raises(UsageError, match=message):
        apply(module, {"step": "prune", "modules": modules}, {})
