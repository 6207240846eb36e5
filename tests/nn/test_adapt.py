from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv.errors import UsageError
from edgecv.nn.adapt import head_names
from edgecv.nn.models import build_network, build_outline, build_untrained


def test_heads_are_found_in_every_library() -> None:
    assert head_names("resnet18", {}) == ["fc"]
    assert head_names("torchvision:mobilenet_v2", {}) == ["classifier.1"]
    assert head_names("squeezenet1_1", {}) == ["classifier.1"]
    assert set(head_names("googlenet", {})) == {"aux1.fc2", "aux2.fc2", "fc"}
    assert head_names("test_vit", {}) == ["head"]


@pytest.mark.parametrize("name", ["resnet10t", "squeezenet1_1", "speednet:width=0.25", "torchvision:mobilenet_v2"])
def test_a_new_head_leaves_the_other_weights_alone(name: str, tmp_path: Path) -> None:
    trained = build_network(name, random_init=True, num_classes=4, input_size=32)
    path = tmp_path / "w.pth"
    torch.save(trained.module.state_dict(), path)
    network = build_network(name, weights=path, num_classes=6, input_size=32, seed=1)
    assert network.arguments["num_classes"] == 6
    assert network.module(torch.randn(1, 3, 32, 32)).shape == (1, 6)
    before, after = trained.module.state_dict(), network.module.state_dict()
    changed = {k for k in before if before[k].shape != after[k].shape or not torch.equal(before[k], after[k])}
    (head,) = head_names(trained.name, trained.arguments)
    assert changed <= {f"{head}.weight", f"{head}.bias"}
    assert changed
    same = build_network(name, weights=path, num_classes=4, input_size=32)
    assert all(torch.equal(v, same.module.state_dict()[k]) for k, v in before.items())


def test_package_weights_get_a_new_head_and_lose_the_labels() -> None:
    network = build_network("tf_efficientnet_lite0", num_classes=5, input_size=64)
    assert network.labels == network.label_ids == ()
    assert network.input.input_size == (3, 64, 64)
    assert network.input.crop_pct == 1.0, "small images are used whole"
    assert network.source["license"] == "Apache-2.0"
    assert network.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert build_network("tf_efficientnet_lite0", input_size=160).input.crop_pct == 0.875


def test_a_transformer_takes_the_size_into_its_constructor_or_resamples(tmp_path: Path) -> None:
    fresh = build_untrained("test_vit", num_classes=3, input_size=32)
    assert fresh.arguments["img_size"] == [32, 32]
    assert fresh.module(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    torch.save(build_network("test_vit", random_init=True).module.state_dict(), tmp_path / "w.pth")
    network = build_network("test_vit", weights=tmp_path / "w.pth", input_size=64)
    assert network.arguments["img_size"] == [64, 64]
    assert network.module(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_weights_that_hang_on_the_size_are_not_used_at_another(tmp_path: Path) -> None:
    torch.save(build_network("lenet5", random_init=True).module.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match="--input-size"):
        build_network("lenet5", weights=tmp_path / "w.pth", input_size=48)
    assert build_untrained("lenet5", input_size=48).module(torch.zeros(1, 3, 48, 48)).shape == (1, 10)


def test_an_untrained_network_trains_and_follows_its_seed() -> None:
    states = [build_untrained("residual20", seed=s) for s in (0, 0, 1)]
    assert all(n.module.training and all(p.requires_grad for p in n.module.parameters()) for n in states)
    first, same, other = (n.module.state_dict()["conv1.weight"] for n in states)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    batch_norm = states[0].module.get_submodule("bn1")
    assert isinstance(batch_norm, nn.BatchNorm2d)
    assert batch_norm.running_var is not None
    assert bool((batch_norm.running_var == 1).all()), "statistics are not taken from noise"


def test_an_outline_takes_no_memory() -> None:
    network = build_outline("vit_giant_patch14_224", num_classes=5)
    assert all(p.is_meta for p in network.module.parameters())
    assert network.arguments["num_classes"] == 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("residual20", {"num_classes": 10**8}, "classes"),
        ("residual20", {"num_classes": 0}, "classes"),
        ("resnet18", {"input_size": -3}, "input_size"),
        ("resnet18", {"input_size": (10**6, 32)}, "input_size"),
        ("residual20", {"input_size": (32, 48)}, "square"),
        ("residual20:width", {}, "KEY=VALUE"),
        ("residual20:widht=2", {}, "Did you mean 'width'"),
        ("residual20:width=__import__('os')", {}, "width"),
        ("residual2O", {}, "residual20"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_untrained(name, **options)  # type: ignore[arg-type]


def test_own_networks_have_no_weights_to_fetch() -> None:
    from edgecv.errors import EnvironmentRefusedError

    with pytest.raises(EnvironmentRefusedError, match="edgecv train"):
        build_network("speednet")
