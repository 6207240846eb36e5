import inspect
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgecv.errors import UsageError
from edgecv.nn.export import ExportSettings, export_network
from edgecv.nn.models import build_network, build_untrained
from edgecv.nn.networks import NETWORKS, build_own, builder
from edgecv.nn.networks.dsnet import count_macs, dsnet
from edgecv.nn.networks.speednet import SpeedNet, whiten
from edgecv.nn.weights import initialize_randomly

PUBLISHED = [
    # name, arguments, parameters, to how many: source
    ("mlp", {"in_channels": 1}, 266_610, 0),  # LeNet-300-100; "267K" in Han et al. 2015, arXiv:1506.02626, table 1
    ("lenet5", {"in_channels": 1}, 61_706, 0),  # 156 + 2,416 + 48,120 + 10,164 + 850, LeCun et al. 1998, figure 2
    ("alexnet", {}, 61_100_840, 0),  # docs.pytorch.org/vision/stable/models/alexnet.html
    ("googlenet", {}, 13_004_888, 0),  # of torchvision's file googlenet-1378be20.pth, heads included; 6,624,904 without
    ("squeezenet1_0", {}, 1_248_424, 0),  # docs.pytorch.org/vision/stable/models/squeezenet.html
    ("squeezenet1_1", {}, 1_235_496, 0),  # the same
    ("plain20", {}, 270_000, 5_000),  # He et al. 2015, table 6: 0.27 M (a plain network has the same layers)
    ("plain56", {}, 850_000, 5_000),
    ("residual20", {}, 270_000, 5_000),  # He et al. 2015, table 6: 0.27 M
    ("residual56", {}, 850_000, 5_000),  # 0.85 M
    ("highway19", {}, 2_300_000, 50_000),  # Srivastava et al. 2015, arXiv:1507.06228, table 2: 19 layers, ~2.3 M
    ("speednet", {}, 1_970_000, 5_000),  # Jordan 2024, arXiv:2404.00498, table 1: 1.97 M for airbench94
]


def _outline(name: str, **arguments: object) -> nn.Module:
    with torch.device("meta"):
        return build_own(name, arguments).eval()


def _macs(module: nn.Module, size: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty((1, 3, size, size), device=next(module.parameters()).device))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("name", "arguments", "parameters", "within"), PUBLISHED)
def test_parameters_are_those_published(name: str, arguments: dict[str, int], parameters: int, within: int) -> None:
    count = sum(p.numel() for p in _outline(name, **arguments).parameters())
    assert abs(count - parameters) <= within


def test_every_network_but_our_own_student_has_a_published_count() -> None:
    assert {p[0] for p in PUBLISHED} == NETWORKS.keys() - {"dsnet"}


def test_googlenet_without_its_auxiliary_heads_has_the_published_count() -> None:
    module = _outline("googlenet")
    assert sum(p.numel() for n, p in module.named_parameters() if not n.startswith("aux")) == 6_624_904


@pytest.mark.parametrize("name", NETWORKS)
def test_classes_and_size_are_arguments_and_the_default_size_works(name: str) -> None:
    own = NETWORKS[name]
    assert {"num_classes", "input_size"} <= inspect.signature(builder(name)).parameters.keys()
    for side in (own.input_size, 32):
        module = _outline(name, num_classes=7, input_size=side)
        assert module(torch.empty((2, 3, side, side), device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns(name: str) -> None:
    network = build_untrained(name, num_classes=3, input_size=32, seed=1)
    images = torch.randn((4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    answer = network.module(images)
    main = answer[0] if isinstance(answer, tuple) else answer
    loss = nn.functional.cross_entropy(main, torch.tensor([0, 1, 2, 0]))
    for head in answer[1:] if isinstance(answer, tuple) else ():
        loss = loss + 0.3 * nn.functional.cross_entropy(head, torch.tensor([0, 1, 2, 0]))
    loss.backward()
    missing = [n for n, p in network.module.named_parameters() if p.grad is None]
    assert not missing


def test_googlenet_answers_with_its_auxiliary_heads_only_in_training() -> None:
    module = _outline("googlenet", num_classes=5, input_size=64)
    images = torch.empty((2, 3, 64, 64), device="meta")
    assert module(images).shape == (2, 5)
    answer = module.train()(images)
    assert isinstance(answer, tuple)
    assert [a.shape for a in answer] == [(2, 5)] * 3


def test_a_plain_network_is_the_residual_one_without_its_shortcuts() -> None:
    plain, residual = build_own("plain20", {}).eval(), build_own("residual20", {}).eval()
    plain.load_state_dict(residual.state_dict())
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(plain(images), residual(images))
        block = residual.get_submodule("layer2.0")
        for conv in (m for m in block.modules() if isinstance(m, nn.Conv2d)):
            conv.weight.zero_()
        x = torch.rand(1, 16, 8, 8)
        expected = torch.zeros(1, 32, 4, 4)
        expected[:, 8:24] = x[:, :, ::2, ::2]  # option A: every second pixel, zero channels around
        assert torch.equal(block(x), expected)


def test_a_projecting_shortcut_is_an_argument() -> None:
    extra = sum(p.numel() for p in _outline("residual20", shortcut="project").parameters()) - 269_722
    assert extra == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


def test_a_highway_layer_starts_near_its_input() -> None:
    module = build_own("highway19", {})
    layer = module.get_submodule("stage2.2")
    x = torch.zeros(1, 80, 4, 4)
    x[..., 1] = 1.0
    for conv in (m for m in layer.modules() if isinstance(m, nn.Conv2d)):
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)  # as He's initialisation leaves it
    closed = 1 - torch.sigmoid(torch.tensor(-1.0))
    assert torch.allclose(layer(x), closed * x)


def test_the_fast_teacher_costs_what_it_promises() -> None:
    assert _macs(_outline("speednet"), 32) == pytest.approx(118e6, rel=0.01)
    assert _macs(_outline("speednet", width=0.5), 32) < 118e6 / 3


def test_whitening_makes_the_patches_uncorrelated_and_freezes_the_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((64, 3, 8, 8), generator=generator)
    images = nn.functional.interpolate(coarse, (16, 16), mode="bilinear") - 0.5
    images[:, 1] += images[:, 0]  # correlated colours
    network = SpeedNet(10, 1.0, nn.GELU)
    network.initialize_from_data(images)
    with torch.no_grad():
        out = network.stem(images).movedim(1, -1).flatten(0, 2)
    second = (out.T @ out / len(out))[:12, :12]
    off_diagonal = second - torch.diag(second.diag())
    assert off_diagonal.abs().max() < 0.02
    assert 0.5 < second.diag().max() <= 1.0
    assert torch.allclose(out[:, :12], -out[:, 12:], atol=1e-5)
    network.requires_grad_(True)  # what a trainer does to begin with
    network.train()
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["stem.weight"]


def test_a_whitened_network_stays_so_when_reloaded() -> None:
    first, second = SpeedNet(4, 0.25, nn.ReLU), SpeedNet(4, 0.25, nn.ReLU)
    first.initialize_from_data(torch.randn(8, 3, 16, 16))
    second.load_state_dict(first.state_dict())
    assert not second.train().stem.weight.requires_grad
    assert SpeedNet(4, 0.25, nn.ReLU).train().stem.weight.requires_grad, "not whitened: the layer learns"


def test_whitening_takes_any_number_of_channels_and_refuses_broken_images() -> None:
    for channels in (8, 24, 40):
        layer = nn.Conv2d(3, channels, 2)
        whiten(layer, torch.randn(4, 3, 8, 8))
        assert bool(torch.isfinite(layer.weight).all())
    with pytest.raises(ValueError, match="NaN"):
        whiten(nn.Conv2d(3, 24, 2), torch.full((2, 3, 8, 8), torch.nan))
    with pytest.raises(ValueError, match="patches"):
        whiten(nn.Conv2d(3, 24, 2), torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(("macs", "depth"), [(11.8e6, 2), (11.8e6, 3), (3e6, 2), (50e6, 4)])
def test_the_student_is_as_wide_as_its_budget_allows(macs: float, depth: int) -> None:
    with torch.device("meta"):
        module = dsnet(macs=macs, depth=depth).eval()
    counted = _macs(module, 32)
    assert 0.75 * macs < counted <= macs
    widths = [m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert all(w % 8 == 0 for w in widths)


def test_the_students_own_count_is_that_of_torch() -> None:
    with torch.device("meta"):
        module = dsnet(num_classes=7, input_size=30, width=0.7, depth=2).eval()
    layers = [module.get_submodule(n) for n in ("conv_stem", *(f"stage{i}.0.conv_pw" for i in (1, 2, 3)))]
    widths = tuple(m.out_channels for m in layers if isinstance(m, nn.Conv2d))
    assert count_macs(widths, 2, 30, 7) == _macs(module, 30)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("speednet", {"widht": 2}, "Did you mean 'width'"),
        ("speednet", {"width": 1e9}, "width"),
        ("speednet", {"width": "wide"}, "width"),
        ("speednet", {"act": "sin"}, "act"),
        ("residual20", {"shortcut": "magic"}, "shortcut"),
        ("dsnet", {"depth": 1.5}, "depth"),
        ("dsnet", {"macs": 10.0}, "narrowest"),
        ("lenet5", {"input_size": 4}, "input_size"),
        ("alexnet", {"input_size": 10**6}, "input_size"),
        ("mlp", {"hidden": "300xmany"}, "hidden"),
        ("mlp", {"hidden": "x".join(["16"] * 100)}, "hidden"),
    ],
)
def test_an_argument_out_of_range_is_one_clear_error(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_own(name, arguments)


def _pass_images_on(module: nn.Module) -> None:
    """Add to every convolution the one that changes nothing, as training does in effect."""
    with torch.no_grad():
        for conv in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
            conv.weight += nn.init.dirac_(torch.empty_like(conv.weight))


SLOW_EXPORTS = ("alexnet", "googlenet", "plain56", "residual56", "squeezenet1_0", "squeezenet1_1", "highway19")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW_EXPORTS)) for n in NETWORKS])
def test_every_network_exports(name: str, tmp_path: Path, color_folder: Path) -> None:
    network = build_network(name, random_init=True, num_classes=5, input_size=32)
    if name == "plain56":  # so many random layers without shortcuts amplify rounding past any tolerance
        _pass_images_on(network.module)
        initialize_randomly(network.module, network.input.input_size, 0)
    images = sorted(color_folder.rglob("*.png"))[:4]
    report = export_network(network, tmp_path / "model.onnx", images, ExportSettings())
    assert report.manifest.architecture == name
    assert report.manifest.arguments["num_classes"] == 5
    assert all(c.top1_agreement == 1.0 for c in report.checks)
