"""A removal is right when the smaller network answers what the whole one answers with the readers' weights at zero."""

import copy

import pytest
import torch
from torch import nn

from edgecv.errors import UsageError
from edgecv.nn.models import build_network
from edgecv.nn.prune.check import sound_groups
from edgecv.nn.prune.groups import trace_groups
from edgecv.nn.prune.removal import mask_units, remove_units

SIZE = (3, 64, 64)


def pixels(size: tuple[int, ...] = SIZE) -> torch.Tensor:
    return torch.randn((2, *size), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",  # residuals
        "mobilenetv3_small_050",  # depthwise, squeeze and excite
        "regnety_002",  # grouped
        "densenet121",  # concatenations
        pytest.param("cspresnet50", marks=pytest.mark.slow),  # splits
        "torchvision:squeezenet1_1",  # concatenations, a convolution as classifier
        "speednet:width=0.25",
    ],
)
def test_what_is_called_sound_answers_as_the_masked_network(name: str) -> None:
    network = build_network(name, random_init=True, input_size=None if name.startswith("speednet") else 64)
    size = network.input.input_size
    traced = trace_groups(network.module, size)
    which, _ = sound_groups(traced, size)
    assert which, "nothing can be cut"
    choice = {i: list(range(traced.groups[i].units // 2)) for i in which}  # more units than the check itself tried
    whole = copy.deepcopy(network.module).double()
    masked, smaller = copy.deepcopy(whole), copy.deepcopy(whole)
    mask_units(masked, traced.groups, choice)
    remove_units(smaller, traced.groups, choice)
    with torch.no_grad():
        answer, expected, before = smaller(pixels(size)), masked(pixels(size)), whole(pixels(size))
    assert torch.allclose(answer, expected, rtol=0, atol=1e-8 * float(expected.abs().max()))
    assert not torch.allclose(before, expected, rtol=1e-3), "the units cut mattered"
    count = sum(p.numel() for p in smaller.parameters())
    assert count < 0.9 * sum(p.numel() for p in network.module.parameters())


class Shuffled(nn.Module):
    """Two convolutions between which channels change places: the tracer takes a permutation for element-wise."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(torch.relu(self.first(x)).flip(1))
        answer: torch.Tensor = self.head(torch.relu(x).mean((2, 3)))
        return answer


def test_channels_that_are_matched_wrongly_are_found() -> None:
    torch.manual_seed(0)
    traced = trace_groups(Shuffled(), (3, 16, 16))
    sound, unsound = sound_groups(traced, (3, 16, 16))
    assert [traced.groups[i].name for i in sound] == ["second"]
    assert [traced.groups[i].name for i in unsound] == ["first"]


def test_heads_are_removed_as_if_nobody_read_them() -> None:
    network = build_network("vit_tiny_patch16_224", random_init=True, input_size=32)
    traced = trace_groups(network.module, (3, 32, 32))
    which, _ = sound_groups(traced, (3, 32, 32))
    heads = [i for i in which if traced.groups[i].name.endswith("attn")]
    assert len(heads) == 12
    choice = {i: [1] for i in heads}
    masked, smaller = (copy.deepcopy(network.module).double() for _ in range(2))
    mask_units(masked, traced.groups, choice)
    remove_units(smaller, traced.groups, choice)
    with torch.no_grad():
        answer, expected = (m(pixels((3, 32, 32))) for m in (smaller, masked))
    assert torch.allclose(answer, expected, rtol=1e-9)
    assert smaller.get_submodule("blocks.0.attn").num_heads == 2


def test_the_classifier_and_the_traced_network_stay_whole() -> None:
    network = build_network("resnet18", random_init=True, input_size=32)
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    traced = trace_groups(network.module, (3, 32, 32))
    assert "fc" not in {g.name for g in traced.groups}
    assert all(torch.equal(v, before[k]) for k, v in network.module.state_dict().items())
    assert not any(p.requires_grad for p in network.module.parameters())


def test_a_network_that_cannot_be_traced_is_one_sentence() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    with pytest.raises(UsageError, match="cannot be traced"):
        trace_groups(Broken(), (3, 8, 8))
