from pathlib import Path

import pytest
import torch
from torch import nn

from edgecv.errors import UsageError
from edgecv.nn.checkpoint import load_network, save_network
from edgecv.nn.models import build_network, build_outline
from edgecv.nn.size import count_macs
from edgecv.nn.student import narrowed, student_of


def _share(like: str, size: int, macs: float) -> float:
    student = student_of(like, macs=macs, num_classes=10, input_size=size)
    whole = build_outline(like, num_classes=10, input_size=size)
    return count_macs(student.module, (3, size, size)) / count_macs(whole.module, (3, size, size))


@pytest.mark.parametrize(
    ("like", "size"),
    [
        ("residual20", 32),
        ("speednet", 32),
        ("resnet18", 32),
        ("vgg11_bn", 32),
        pytest.param("googlenet", 64, marks=pytest.mark.slow),
        pytest.param("regnety_002", 64, marks=pytest.mark.slow),
        pytest.param("resnet50", 224, marks=pytest.mark.slow),
        pytest.param("densenet121", 64, marks=pytest.mark.slow),
        pytest.param("inception_v3", 128, marks=pytest.mark.slow),
        pytest.param("seresnet50", 64, marks=pytest.mark.slow),
        pytest.param("torchvision:vgg11", 64, marks=pytest.mark.slow),
    ],
)
def test_a_student_meets_its_budget_of_macs(like: str, size: int) -> None:
    assert 0.085 < _share(like, size, 0.1) <= 0.1


def test_every_large_convolution_but_the_first_is_split() -> None:
    student = student_of("residual20", macs=0.2)
    convolutions = {n: m for n, m in student.module.named_modules() if isinstance(m, nn.Conv2d)}
    whole = [n for n, m in convolutions.items() if max(m.kernel_size) > 1 and m.groups != m.in_channels]
    assert whole == ["conv1"]
    block = student.module.get_submodule("layer1.0.conv1")
    assert [type(m).__name__ for m in block.children()] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert len([n for n in convolutions if n.endswith("conv_dw")]) == 18, "stages and blocks stay"


def test_norm_and_activation_are_the_networks_own() -> None:
    student = student_of("torchvision:vgg11", macs=0.1, num_classes=10, input_size=64)
    assert student.structure[0]["norm"] == "none", "the network has none"
    assert not any(isinstance(m, nn.BatchNorm2d) for m in student.module.modules())
    assert student_of("speednet", macs=0.1).structure[0]["act"] == "gelu"


def test_a_student_reloads_from_its_checkpoint(tmp_path: Path) -> None:
    student = student_of("resnet18", macs=0.1, num_classes=5, input_size=32, seed=3)
    student.module.eval()
    save_network(tmp_path / "s.safetensors", student)
    loaded = load_network(tmp_path / "s.safetensors")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), student.module(images))
    assert loaded.stages[0]["settings"]["like"] == "resnet18"
    other = build_network(str(tmp_path / "s.safetensors"), num_classes=9)
    assert other.module(images).shape == (2, 9), "a new head on narrowed features"


def test_the_seed_decides_the_weights() -> None:
    states = [student_of("lenet5", macs=0.6, seed=s).module.state_dict() for s in (0, 0, 1)]
    key = "conv2.conv_pw.weight"
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


def test_a_student_of_a_checkpoint_keeps_classes_and_labels(tmp_path: Path) -> None:
    teacher = build_network("speednet:width=0.25", random_init=True, num_classes=4)
    object.__setattr__(teacher, "labels", ("a", "b", "c", "d"))
    save_network(tmp_path / "t.safetensors", teacher)
    student = student_of(str(tmp_path / "t.safetensors"), macs=0.25)
    assert student.labels == ("a", "b", "c", "d")
    assert student.module.training
    assert student.module(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert count_macs(student.module, (3, 32, 32)) <= 0.25 * count_macs(teacher.module, (3, 32, 32))


def test_a_number_of_macs_is_a_budget_too() -> None:
    student = student_of("speednet", macs=11.8e6)
    assert 10e6 < count_macs(student.module, (3, 32, 32)) <= 11.8e6


@pytest.mark.parametrize(
    ("like", "options", "message"),
    [
        ("mobilenetv2_050", {}, "no convolution to split"),
        ("mlp", {}, "no convolution to split"),
        ("test_vit", {}, "fixed widths"),
        ("test_convnext", {}, "fixed widths"),
        ("resnet5O", {}, "resnet50"),
        ("residual20", {"macs": 1e-5}, "--macs"),
        ("residual20", {"macs": 0.0}, "--macs"),
        ("residual20", {"macs": float("nan")}, "--macs"),
        ("nothing.safetensors", {}, "does not exist"),
    ],
)
def test_what_cannot_be_turned_is_refused_in_one_sentence(like: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        student_of(like, **options)


def test_widths_are_whole_registers() -> None:
    assert all(narrowed(c, w) % 4 == 0 for c in (16, 20, 64, 100) for w in (0.01, 0.33, 1.0, 1.7))
    steps = [narrowed(64, w / 100) for w in range(1, 300)]
    assert steps == sorted(steps), "more width is never fewer channels, which bisection needs"
