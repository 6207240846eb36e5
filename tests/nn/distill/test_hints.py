import pytest
import torch
from torch import nn

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.distill.hints import last_by_size, make_hints

SPEC = InputSpec("image", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, layout="NCHW", dtype="float32")


def network(width):
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5),
    )  # fmt: skip


def test_auto_pairs_the_last_layers_of_each_map_size():
    hints = make_hints(network(4), SPEC, network(6), SPEC, ["auto"])
    assert hints.pairs == (("3", "3"), ("1", "1"))
    assert [tuple(p.weight.shape[:2]) for p in hints.projections] == [(12, 8), (6, 4)]
    assert last_by_size(network(4), torch.zeros(1, 3, 8, 8)) == ["1", "3"]


def test_a_hint_brings_the_students_features_to_the_teachers():
    student, teacher = network(4), network(6)
    hints = make_hints(student, SPEC, teacher, SPEC, ["3=3"])
    optimizer = torch.optim.Adam([*student.parameters(), *hints.parameters()], lr=0.01)
    images, losses = torch.randn(16, 3, 8, 8), []
    for _ in range(60):
        with torch.no_grad():
            teacher(images)
        student(images)
        losses.append(hints.loss())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.5 * losses[0].item()


def test_maps_of_another_size_are_resized():
    hints = make_hints(network(4), SPEC, network(6), SPEC, ["3=1"])
    assert hints.loss is not None
    assert tuple(hints.projections[0].weight.shape[:2]) == (6, 8)


def test_an_unknown_layer_is_told_with_the_nearest():
    with pytest.raises(UsageError, match=r"the teacher has no layer '33'.*'3'"):
        make_hints(network(4), SPEC, network(6), SPEC, ["3=33"])


def test_a_layer_without_a_map_is_refused():
    with pytest.raises(UsageError, match="gives no feature map"):
        make_hints(network(4), SPEC, network(6), SPEC, ["6=3"])


def test_the_student_is_left_in_its_mode():
    student = network(4).train()
    make_hints(student, SPEC, network(6), SPEC, ["auto"])
    assert student.training
