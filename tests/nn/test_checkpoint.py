import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from edgecv.errors import UsageError
from edgecv.manifest import KEY, to_metadata
from edgecv.nn.checkpoint import load_network, network_manifest, read_manifest, save_network
from edgecv.nn.models import build_network, build_untrained
from edgecv.nn.network import Network

LABELS = ("ant", "bee", "cat")


def small_network(seed: int = 0) -> Network:
    network = build_network("residual20:width=0.25", random_init=True, num_classes=3, seed=seed)
    stage = {"name": "train", "settings": {"epochs": 1}, "tools": {"torch": "2"}}
    return replace(network, labels=LABELS, stages=(stage,))


def images(size: int = 32) -> torch.Tensor:
    return torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1))


def test_a_network_comes_back_as_it_was(tmp_path: Path) -> None:
    network, path = small_network(), tmp_path / "model.safetensors"
    save_network(path, network)
    loaded = load_network(path)
    with torch.no_grad():
        assert torch.equal(loaded.module(images()), network.module(images()))
    assert not loaded.module.training
    for name in ("name", "input", "labels", "label_ids", "arguments", "structure", "stages", "stride"):
        assert getattr(loaded, name) == getattr(network, name), name
    assert loaded.source["weights"] == "checkpoint:model.safetensors"
    assert len(loaded.source["sha256"]) == 64
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"], "nothing half-written beside it"


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_network(tmp_path / name, small_network())
    save_network(tmp_path / "c", small_network(seed=1))
    a, b, c = ((tmp_path / n).read_bytes() for n in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("name", ["test_vit", "torchvision:shufflenet_v2_x0_5", "resnet10t"])
def test_networks_of_the_libraries_come_back(name: str, tmp_path: Path) -> None:
    network = build_network(name, random_init=True, num_classes=4, input_size=32)
    save_network(tmp_path / "m.safetensors", network)
    loaded = build_network(str(tmp_path / "m.safetensors"))
    with torch.no_grad():
        assert torch.equal(loaded.module(images()), network.module(images()))
    assert loaded.input.input_size == (3, 32, 32)


def test_a_checkpoint_takes_another_number_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_network(path, small_network())
    network = build_network(str(path), num_classes=7)
    assert network.module(images()).shape == (2, 7)
    assert network.labels == ()
    save_network(tmp_path / "again.safetensors", network)
    assert load_network(tmp_path / "again.safetensors").arguments["num_classes"] == 7
    same = build_network(str(path), num_classes=3)
    assert same.labels == LABELS


def test_an_untrained_network_has_the_checkpoints_structure_and_not_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    network = small_network()
    save_network(path, network)
    fresh = build_untrained(str(path), seed=5)
    assert fresh.module.training
    assert fresh.arguments == network.arguments
    assert fresh.source["weights"] == "untrained"
    key = "conv1.weight"
    assert fresh.module.state_dict()[key].shape == network.module.state_dict()[key].shape
    assert not torch.equal(fresh.module.state_dict()[key], network.module.state_dict()[key])


def test_a_network_that_broke_in_training_is_not_written(tmp_path: Path) -> None:
    network = small_network()
    with torch.no_grad():
        network.module.get_parameter("fc.weight")[0, 0] = torch.nan
    with pytest.raises(UsageError, match=r"fc\.weight.*NaN"):
        save_network(tmp_path / "m.safetensors", network)
    assert not list(tmp_path.iterdir())


def test_a_file_of_others_has_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    assert read_manifest(path) is None
    with pytest.raises(UsageError, match="--arch"):
        load_network(path)


def _with_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    network = small_network()
    raw = json.loads(to_metadata(network_manifest(network))[KEY])
    change(raw)
    safetensors.torch.save_file(network.module.state_dict(), path, metadata={KEY: json.dumps(raw)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(architecture="vit_giant_patch14_224", arguments={}), "does not hold the network"),
        (lambda r: r.update(architecture="residual56"), "missing"),
        (lambda r: r.update(architecture="resnet5O"), "resnet50"),
        (lambda r: r.update(architecture="../../etc/passwd"), "no network"),
        (lambda r: r.update(architecture="hf-hub:someone/else"), "no network"),
        (lambda r: r.update(architecture="other.safetensors"), "does not exist"),
        (lambda r: r.update(architecture="resnet18", arguments={"pretrained": True}), "pretrained"),
        (lambda r: r.update(architecture="resnet18", arguments={"checkpoint_path": "/x"}), "checkpoint_path"),
        (lambda r: r.update(architecture="resnet18", arguments={"pretrained_cfg": {"file": "/x"}}), "pretrained_cfg"),
        (lambda r: r["arguments"].update(num_classes=10**9), "1000000000 classes"),
        (lambda r: r["arguments"].update(num_classes="many"), "num_classes"),
        (lambda r: r["arguments"].update(width=1e12), "width"),
        (lambda r: r["arguments"].update(width=1.0), "does not hold the network"),
        (lambda r: r["arguments"].update(nonsense=1), "nonsense"),
        (lambda r: r["arguments"].update(input_size=[[1]]), "input_size"),
        (lambda r: r.update(structure=[{"step": "melt"}]), "melt"),
        (lambda r: r.update(structure=[{"step": ["depthwise"]}]), "does not know"),
        (lambda r: r.update(structure=[{}]), "does not know"),
        (lambda r: r.update(structure=[{"step": "depthwise"}]), "incomplete"),
        (lambda r: r.update(structure=[{"step": "depthwise"}] * 1000), "limit"),
        (lambda r: r.update(schema=99), "schema 99"),
        (lambda r: r["input"].update(std=[0, 0, 0]), "std"),
    ],
)
def test_a_hostile_manifest_is_one_clear_error(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    _with_manifest(path, change)
    with pytest.raises(UsageError, match=message):
        load_network(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"PK\x03\x04 not safetensors at all",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 10**6) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b'{"a"',
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 24) + b'{"__metadata__":{"e":1}}',
        struct.pack("<Q", 29) + b'{"__metadata__":{"edgecv":1}}',
        struct.pack("<Q", 20) + b'{"__metadata__":[1]} ',
    ],
)
def test_what_is_no_safetensors_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"m\.safetensors"):
        load_network(path)


def test_a_truncated_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_network(path, small_network())
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 9):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError, match=r"m\.safetensors"):
            load_network(path)


def test_tensors_that_do_not_belong_are_named(tmp_path: Path) -> None:
    network = small_network()
    state = network.module.state_dict()
    metadata = {KEY: to_metadata(network_manifest(network))[KEY]}
    cases: dict[str, dict[str, torch.Tensor]] = {
        "left over": {**state, "extra": torch.zeros(1)},
        "missing": {k: v for k, v in state.items() if k != "fc.bias"},
        "the network has": {**state, "fc.bias": torch.zeros(4)},
        "NaN": {**state, "fc.bias": torch.full((3,), torch.inf)},
        "dimensions": {**state, "fc.bias": torch.zeros((1,) * 12)},
    }
    for message, tensors in cases.items():
        safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", metadata=metadata)
        with pytest.raises(UsageError, match=message):
            load_network(tmp_path / "m.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="not a regular file"):
        load_network(tmp_path / "m.safetensors")


def test_a_network_whose_constructor_computes_with_tensors_loads(tmp_path):
    network = build_untrained("torchvision:regnet_y_400mf", num_classes=3, input_size=32)
    save_network(tmp_path / "r.safetensors", network)
    assert load_network(tmp_path / "r.safetensors").arguments["num_classes"] == 3
