from pathlib import Path

import pytest
import timm
import torch

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.nn import models, timm_networks, torchvision_networks
from edgecv.nn.names import check_name, list_networks


def test_names_of_both_libraries_are_listed() -> None:
    names = list_networks()
    assert {"resnet50", "tf_efficientnet_lite0", "torchvision:resnet50"} <= set(names)
    assert all(n.startswith("mobilenetv3") for n in list_networks("mobilenetv3*"))
    assert "resnet50.a1_in1k" in list_networks("resnet50.*")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet5O", "resnet50"),
        ("torchvision:resnet5O", "torchvision:resnet50"),
        ("resnet50.a9_in1k", "a1_in1k"),
        ("", "edgecv models"),
        ("../../etc/passwd", "edgecv models"),
        ("hf-hub:timm/resnet50", "edgecv models"),
    ],
)
def test_an_unknown_name_shows_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint.replace(".", r"\.")):
        check_name(name)


def test_package_weights_bring_their_own_normalisation_and_labels() -> None:
    network = models.build_network("tf_efficientnet_lite0")
    assert network.source["license"] == "Apache-2.0"
    assert len(network.source["sha256"]) == 64
    assert network.input.mean == (127 / 255,) * 3
    assert network.input.crop_pct == 0.875
    assert network.label_ids[0] == "n01440764"
    assert network.labels[0].startswith("tench")
    assert network.stride == 32


@pytest.mark.parametrize("name", ["resnet18", "torchvision:mobilenet_v2"])
def test_a_users_weights_set_the_number_of_classes(tmp_path: Path, name: str) -> None:
    if name.startswith("torchvision:"):
        import torchvision

        trained = torchvision.models.mobilenet_v2(weights=None, num_classes=7)
    else:
        trained = timm.create_model(name, num_classes=7)
    path = tmp_path / "w.pth"
    torch.save(trained.state_dict(), path)
    network = models.build_network(name, weights=path)
    images = torch.zeros((1, *network.input.input_size))
    with torch.inference_mode():
        assert network.module(images).shape == (1, 7)
    assert network.labels == ()
    assert network.source["weights"] == "file:w.pth"
    assert "license" not in network.source, "nobody said which"


def test_a_classifier_of_ten_million_classes_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    torch.save({"fc.bias": torch.zeros(10_000_000)}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="10000000 classes"):
        models.build_network("resnet18", weights=tmp_path / "w.pth")


def test_random_weights_are_said_to_be_random_and_follow_the_seed() -> None:
    images = torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    outputs = []
    for seed in (0, 0, 1):
        network = models.build_network("resnet18", random_init=True, seed=seed)
        assert network.source == {"weights": "random-init", "seed": str(seed)}
        with torch.inference_mode():
            outputs.append(network.module(images))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_weights_that_cannot_be_downloaded_are_an_environment_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(timm_networks, "check_reachable", unreachable)
    monkeypatch.setattr(torchvision_networks, "check_reachable", unreachable)
    monkeypatch.setattr(timm_networks, "is_cached", lambda name: False)
    monkeypatch.setenv("TORCH_HOME", "/nonexistent")
    for name in ("resnet18", "torchvision:resnet18"):
        with pytest.raises(EnvironmentRefusedError, match="--random-init"):
            models.build_network(name)
