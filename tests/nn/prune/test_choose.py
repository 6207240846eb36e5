import pytest
import torch

from edgecv.config.pruning import PruneSettings
from edgecv.errors import UsageError
from edgecv.nn.models import build_network
from edgecv.nn.prune.choose import Rule, choose_units, round_width, width_step
from edgecv.nn.prune.criteria import add_gradients, score_groups
from edgecv.nn.prune.groups import ChannelGroup, trace_groups
from edgecv.nn.prune.search import find_choice
from edgecv.nn.prune.structured import analyse


def group(width: int, blocks: int = 1, *, depthwise: bool = False, heads: bool = False) -> ChannelGroup:
    attributes = {"attn": {"num_heads": 1}} if heads else {}
    return ChannelGroup("layer", width // blocks, width, (), depthwise, attributes)


@pytest.mark.parametrize(
    ("given", "lanes", "step"),
    [
        (group(256), 16, 16),
        (group(256), 8, 8),
        (group(256, depthwise=True), 4, 16),
        (group(32), 16, 8),  # at least four widths to choose from
        (group(16), 16, 4),
        (group(256, 32), 16, 1),  # 32 groups: one unit is 32 channels already
        (group(24, 3), 8, 4),
        (group(12, heads=True), 16, 1),
    ],
)
def test_widths_fill_registers(given: ChannelGroup, lanes: int, step: int) -> None:
    assert width_step(given, lanes) == step
    for kept in range(given.units + 1):
        rounded = round_width(given, kept, lanes)
        assert rounded == given.units or rounded % step == 0
        assert rounded >= max(1, given.units // 8)


def test_a_width_that_was_odd_may_stay() -> None:
    assert round_width(group(100), 100, 16) == 100
    assert round_width(group(100), 97, 16) == 96


def test_the_weakest_units_go() -> None:
    groups, scores = [group(64), group(64)], [torch.linspace(2, 3, 64), torch.linspace(0, 1, 64)]
    everywhere = choose_units(groups, scores, [0, 1], 0.25, Rule("global", 8))
    assert everywhere == {1: list(range(32))}
    each = choose_units(groups, scores, [0, 1], 0.25, Rule("layer", 8))
    assert each == {0: list(range(16)), 1: list(range(16))}
    assert choose_units(groups, scores, [0], 0.25, Rule("layer", 8)).keys() == {0}


@pytest.mark.parametrize("measure", ["macs", "params"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_no_more_than_asked_remains_and_little_less(measure: str, scope: str) -> None:
    network = build_network("mobilenetv2_100", random_init=True, input_size=64)
    prunable = analyse(network, PruneSettings(to=f"{measure}=0.6", scope=scope, for_device="x86-avx2"))
    choice = find_choice(prunable.searched, measure, 0.6, f"{measure}=0.6")
    assert 0.57 < prunable.searched.share(choice, measure) <= 0.6
    smaller = prunable.cut(choice)
    size = prunable.searched.sizer.size(choice)
    assert size.params == sum(p.numel() for p in smaller.module.parameters())
    for name, layer in smaller.module.named_modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.groups > 1:
            before = network.module.get_submodule(name).out_channels
            assert layer.out_channels % 16 == 0 or layer.out_channels == before or before < 64, name


def test_a_target_out_of_reach_says_what_remains() -> None:
    prunable = analyse(build_network("residual20:width=0.5", random_init=True), PruneSettings(to="macs=0.01"))
    with pytest.raises(UsageError, match=r"--to macs=0.01 cannot be reached.*of the MACs remain"):
        find_choice(prunable.searched, "macs", 0.01, "macs=0.01")


def test_criteria_rank_a_planted_channel_last() -> None:
    network = build_network("resnet18", random_init=True, input_size=32)
    module = network.module
    with torch.no_grad():
        module.layer1[0].conv1.weight[5] = 0
        module.layer1[0].bn1.weight[5] = 0
        module.layer1[0].bn1.bias[5] = 0
        module.layer1[0].conv2.weight[:, 5] = 0
    traced = trace_groups(module, (3, 32, 32))
    index = next(i for i, g in enumerate(traced.groups) if g.name == "layer1.0.conv1")
    generator = torch.Generator().manual_seed(0)
    batch = (torch.randn((4, 3, 32, 32), generator=generator), torch.tensor([0, 1, 2, 3]))
    assert add_gradients(traced, [batch, batch]) == 8
    orders = {}
    for criterion in ("l1", "l2", "bn-scale", "taylor", "random"):
        scores = score_groups(traced, criterion, seed=1)[index]
        assert scores.shape == (64,)
        assert float(scores.mean()) == pytest.approx(1, abs=0.6 if criterion == "random" else 1e-4)
        orders[criterion] = scores.argsort().tolist()
        if criterion != "random":
            assert orders[criterion][0] == 5, criterion
    assert len({tuple(o) for o in orders.values()}) == 5, "five criteria, five orders"


def test_random_is_the_same_for_a_seed() -> None:
    traced = trace_groups(build_network("residual20:width=0.5", random_init=True).module, (3, 32, 32))
    a, b, c = (score_groups(traced, "random", seed) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[1], c[1])
