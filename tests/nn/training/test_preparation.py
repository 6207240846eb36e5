import pytest
import torch
from torch import nn

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.nn.models import build_untrained
from edgecv.nn.training.averaging import Average
from edgecv.nn.training.mixing import build_mixing
from edgecv.nn.training.objective import logits_of
from edgecv.nn.training.placement import Placement
from edgecv.nn.training.preparation import copy_from_shallower, initialize_by_he, with_dropout


def vgg(*stages: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for stage, depth in enumerate(stages):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, 4 << min(stage, 1), 3, padding=1), nn.ReLU()]
            channels = 4 << min(stage, 1)
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(nn.Sequential(*layers), nn.Sequential(nn.Linear(channels, 5), nn.ReLU(), nn.Linear(5, 2)))


def test_he_draws_convolutions_with_variance_two_over_fan_in_and_leaves_the_classifier() -> None:
    module = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.Linear(64, 3))
    head = module[2].weight.clone()
    assert initialize_by_he(module, 0) == 1
    assert module[0].weight.var().item() == pytest.approx(2 / (16 * 9), rel=0.1)  # type: ignore[union-attr,operator]
    assert not module[0].bias.any()  # type: ignore[union-attr,operator]
    assert torch.equal(module[2].weight, head)  # type: ignore[arg-type]


def test_he_keeps_a_bias_that_was_meant() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    nn.init.constant_(module[0].bias, -2.0)  # type: ignore[arg-type]
    initialize_by_he(module, 0)
    assert (module[0].bias == -2).all()  # type: ignore[union-attr]


def test_transformers_keep_what_their_constructor_drew() -> None:
    assert initialize_by_he(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)), 0) == 0


def test_a_deeper_network_takes_the_layers_of_a_shallower_stage_by_stage() -> None:
    shallow, deep = vgg(1, 1, 2), vgg(2, 2, 3)
    own = deep[0][2].weight.clone()  # type: ignore[index]
    copied, of = copy_from_shallower(deep, shallow)
    assert (copied, of) == (1 + 1 + 2 + 2, 7 + 2)
    convolutions = [[m for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (shallow, deep)]
    for theirs, ours in ((0, 0), (1, 2), (2, 4), (3, 5)):
        assert torch.equal(convolutions[0][theirs].weight, convolutions[1][ours].weight)
    assert torch.equal(deep[0][2].weight, own)  # type: ignore[index]
    assert torch.equal(deep[1][2].weight, shallow[1][2].weight)  # type: ignore[index]


def test_a_network_of_another_family_is_refused() -> None:
    with pytest.raises(UsageError, match="same family"):
        copy_from_shallower(vgg(1, 1), nn.Sequential(nn.Conv2d(3, 9, 5)))


def test_dropout_rates_go_to_the_constructor_and_weights_stay() -> None:
    network = build_untrained("resnet10t", num_classes=3, seed=0)
    changed = with_dropout(network, TrainSettings(drop_path=0.2))
    assert dict(changed.arguments)["drop_path_rate"] == 0.2
    assert any(type(m).__name__ == "DropPath" for m in changed.module.modules())
    assert torch.equal(changed.module.state_dict()["fc.weight"], network.module.state_dict()["fc.weight"])


def test_the_average_takes_weights_and_statistics_and_gives_them_back() -> None:
    module = nn.BatchNorm1d(2)
    average = Average(module, 0.5)
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.running_mean.fill_(4.0)  # type: ignore[union-attr]
    average.update(module, 1000)
    with average.swapped_in(module):
        assert module.weight.tolist() == [2.0, 2.0]
        assert module.running_mean.tolist() == [2.0, 2.0]  # type: ignore[union-attr]
    assert module.weight.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_mixes_labels_as_it_mixes_pixels(kind: str) -> None:
    torch.manual_seed(0)
    mix = build_mixing(TrainSettings(**{kind: 1.0}), 3)  # type: ignore[arg-type]
    assert mix is not None
    pixels = torch.tensor([0.0, 255.0, 0.0])[:, None, None, None].expand(3, 3, 8, 8).clone()
    mixed, targets = mix(pixels, torch.tensor([0, 1, 0]))
    assert targets.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert (mixed.mean((1, 2, 3)) / 255).tolist() == pytest.approx(targets[:, 1].tolist(), abs=1e-5)


def test_auxiliary_logits_are_found_in_tuples_and_dictionaries() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert logits_of(a) == [a]
    assert logits_of((a, b, None)) == [a, b]
    assert logits_of({"out": a, "aux": b}) == [a, b]


def test_depthwise_convolutions_stay_out_of_bfloat16_on_a_cpu() -> None:
    placement = Placement(torch.device("cpu"), "bfloat16", "")
    plain, depthwise = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4)
    with placement.autocast():
        half = plain(torch.ones(1, 4, 5, 5))
        whole = depthwise(half)
    assert (half.dtype, whole.dtype) == (torch.bfloat16, torch.float32)
