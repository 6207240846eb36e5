"""Choosing layers and ranks, and the network that comes out."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from edgecv.config.factorization import FactorizeSettings
from edgecv.config.pruning import Target
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.factorize.layers import apply
from edgecv.nn.factorize.plan import Factorizable, analyse, find_choice, replace_layers
from edgecv.nn.factorize.select import find_layers
from edgecv.nn.network import Network
from edgecv.nn.size import measure_size

SPEC = InputSpec("image", (3, 16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), layout="NCHW", dtype="float32")


class Reaching(nn.Module):
    """A network with a layer whose weight is used without calling it, and one whose attribute is read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.mirrored = nn.Conv2d(32, 32, 3, padding_mode="reflect", padding=1)
        self.read = nn.Conv2d(32, 32, 3, padding=1)
        self.silent = nn.Linear(32, 32)
        self.deep = nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.mirrored(self.middle(self.first(pixels).relu()).relu()).relu()
        x = self.read(x).mean((2, 3)) * self.read.out_channels
        return self.head(self.deep(nn.functional.linear(x, self.silent.weight)).relu())


def network() -> Network:
    torch.manual_seed(0)
    return Network(Reaching().eval(), "reaching", SPEC, (), (), {}, 0, {"num_classes": 10})


def plain(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2, groups=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10),
    )  # fmt: skip
    return Network(module.eval(), "plain", SPEC, (), (), {}, 0, {"num_classes": 10})


def analysed(**settings: object) -> Factorizable:
    return analyse(plain(), FactorizeSettings(rank_multiple=1, **settings))  # type: ignore[arg-type]


def test_every_layer_is_either_found_or_left_alone_with_a_reason() -> None:
    found, left_alone = find_layers(network().module, SPEC.input_size, (), 10)
    assert [f.name for f in found] == ["middle", "deep"]
    assert left_alone == {
        "first": "it is the first layer",
        "mirrored": "pads with 'reflect', not with zeros",
        "read": "the network's code reaches into it",
        "silent": "the network does not call it",
        "head": "it gives the scores",
    }


def test_patterns_are_taken_at_their_word() -> None:
    found, _ = find_layers(network().module, SPEC.input_size, ("first", "he*"))
    assert [f.name for f in found] == ["first", "head"]
    with pytest.raises(UsageError, match=r"'hea' matches no .* Did you mean 'head'"):
        find_layers(network().module, SPEC.input_size, ("hea",))


def test_the_count_foretold_is_the_count_measured_and_no_layer_gets_dearer() -> None:
    factorizable = analysed()
    choice = factorizable.choose(0.5)
    smaller, kept = replace_layers(factorizable, choice)
    assert choice.keys() == {"2", "4", "8"}
    assert min(kept.values()) >= 0.5
    assert measure_size(smaller.module, SPEC.input_size) == factorizable.size(choice)
    assert all(choice[c.found.name].macs < c.macs for c in factorizable.candidates)
    assert factorizable.choose(1.0) == {}


@pytest.mark.parametrize("measure", ["macs", "params"])
def test_a_target_is_reached_with_as_little_loss_as_that_takes(measure: str) -> None:
    factorizable = analysed()
    choice, energy = find_choice(factorizable, Target(measure, 0.6))
    smaller, _ = replace_layers(factorizable, choice)
    share = measure_size(smaller.module, SPEC.input_size).share_of(factorizable.whole, measure)
    assert 0.5 < share <= 0.6
    more = factorizable.size(factorizable.choose(energy + 0.01)).share_of(factorizable.whole, measure)
    assert more > 0.6


def test_a_target_out_of_reach_is_refused_with_the_one_in_reach() -> None:
    with pytest.raises(UsageError, match=r"macs=0\.0\d+ cannot be reached: .* ask for macs=0\.\d+ or more"):
        find_choice(analysed(), Target("macs", 0.01))


def test_ranks_fill_vector_registers_where_that_still_saves_macs() -> None:
    rounded = analyse(plain(), FactorizeSettings(rank_multiple=4)).choose(0.6)
    assert all(r % 4 == 0 for name in ("2", "8") for r in rounded[name].rank)


def test_the_step_rebuilds_a_fresh_network() -> None:
    factorizable = analysed()
    smaller, _ = replace_layers(factorizable, factorizable.choose(0.5))
    fresh = apply(plain(seed=1).module, smaller.structure[-1], {}).eval()
    fresh.load_state_dict(smaller.module.state_dict())
    pixels = torch.rand(2, *SPEC.input_size)
    assert torch.equal(fresh(pixels), smaller.module(pixels))


def test_what_comes_out_can_be_trained_and_the_original_is_untouched() -> None:
    original = plain()
    before = copy.deepcopy(original.module.state_dict())
    factorizable = analyse(original, FactorizeSettings(method="depthwise", rank=1))
    smaller, _ = replace_layers(factorizable, factorizable.choose(0.9, 1))
    smaller.module(torch.rand(2, *SPEC.input_size)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in smaller.module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in original.module.state_dict().items())


@pytest.mark.parametrize(
    "layers",
    [
        [],
        {"2": 1},
        {"2": {"method": "tucker"}},
        {"2": {"method": "none", "rank": [1]}},
        {"2": {"method": "tucker", "rank": [1, 10**9]}},
        {"2": {"method": "tucker", "rank": [1, "2"]}},
        {"1": {"method": "svd", "rank": [1]}},
        {"nowhere": {"method": "svd", "rank": [1]}},
        {"": {"method": "svd", "rank": [1]}},
    ],
)
def test_a_step_that_does_not_fit_is_refused(layers: object) -> None:
    with pytest.raises(UsageError):
        apply(plain().module, {"step": "factorize", "layers": layers}, {})


def test_a_method_that_fits_no_layer_says_why() -> None:
    with pytest.raises(UsageError, match=r"--method two-3x3 .*its kernel is not 5×5"):
        analyse(replace(plain()), FactorizeSettings(method="two-3x3"))
