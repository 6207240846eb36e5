import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgecv.config.distillation import DistillSettings
from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.distill.objective import distilled, healed_by, in_order
from edgecv.nn.distill.teacher import teacher_of
from edgecv.nn.network import Network
from edgecv.nn.pixels import normalize
from edgecv.nn.training_data import Batch

SPEC = InputSpec("image", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, layout="NCHW", dtype="float32")


class TwoHeads(nn.Module):
    """As timm's distilled ViT: two answers in train mode once it is told, their mean otherwise."""

    def __init__(self):
        super().__init__()
        self.head, self.token, self.told = nn.Linear(192, 3), nn.Linear(192, 3), False

    def set_distilled_training(self, enable=True):
        self.told = enable

    def forward(self, x):
        a, b = self.head(x.flatten(1)), self.token(x.flatten(1))
        return (a, b) if self.training and self.told else (a + b) / 2


def linear(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def network(seed):
    return Network(linear(seed), f"linear{seed}", SPEC, (), (), {}, 0)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (6, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Batch(pixels, torch.arange(6) % 3, torch.arange(6), torch.arange(6))


def test_the_loss_is_the_weighted_sum_of_teacher_and_labels(batch):
    teacher, student = teacher_of(network(0)), linear(1)
    parts = [
        distilled(teacher, student, SPEC, DistillSettings(teacher_weight=w))(
            student, batch.pixels.float(), batch.targets, batch
        ).item()
        for w in (0.0, 1.0, 0.25)
    ]
    assert parts[2] == pytest.approx(0.75 * parts[0] + 0.25 * parts[1], rel=1e-5)
    by_hand = functional.cross_entropy(student(normalize(batch.pixels, SPEC)), batch.targets)
    assert parts[0] == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["kd", "dkd", "dist"])
def test_a_student_comes_to_its_teachers_answers(batch, loss):
    teacher, student = teacher_of(network(0)), linear(1)
    objective = distilled(teacher, student, SPEC, DistillSettings(loss=loss, teacher_weight=1.0))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append(objective(student, batch.pixels.float(), batch.targets, batch))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.1 * losses[0].item()


@pytest.mark.parametrize("token", ["soft", "hard"])
def test_a_distillation_token_learns_from_the_teacher_and_the_head_from_the_labels(batch, token):
    torch.manual_seed(0)
    student = TwoHeads().train()
    objective = distilled(teacher_of(network(0)), student, SPEC, DistillSettings(token=token, teacher_weight=0.5))
    objective(student, batch.pixels.float(), batch.targets, batch).backward()
    labels = functional.cross_entropy(student.head(normalize(batch.pixels, SPEC).flatten(1)), batch.targets)
    expected = torch.autograd.grad(0.5 * labels, student.head.weight)[0]
    torch.testing.assert_close(student.head.weight.grad, expected)
    assert student.token.weight.grad.abs().sum() > 0


def test_token_off_leaves_the_student_as_it_is():
    student = TwoHeads()
    distilled(teacher_of(network(0)), student, SPEC, DistillSettings(token="off"))
    assert not student.told


def test_the_teacher_sees_its_own_size_and_normalisation(batch):
    large = InputSpec("image", (3, 16, 16), (0.1,) * 3, (0.2,) * 3, layout="NCHW", dtype="float32")
    seen = []

    class Looking(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3))

    teacher = teacher_of(Network(Looking(), "looking", large, (), (), {}, 0))
    gray = torch.full((2, 3, 8, 8), 51.0)
    teacher.ask(gray)
    assert seen[-1].shape == (2, 3, 16, 16)
    np.testing.assert_allclose(seen[-1].numpy(), (0.2 - 0.1) / 0.2, rtol=1e-5)


def test_columns_put_the_teachers_classes_in_the_students_order(batch):
    teacher = teacher_of(network(0))
    ask = in_order(teacher.ask, [2, 0])
    assert torch.equal(ask(batch.pixels), teacher.ask(batch.pixels)[:, [2, 0]])


def test_hints_are_refused_without_the_teachers_layers():
    from dataclasses import replace

    teacher = replace(teacher_of(network(0)), module=None, name="t.onnx")
    with pytest.raises(UsageError, match=r"hints need the layers of a PyTorch teacher; 't.onnx'"):
        distilled(teacher, linear(1), SPEC, DistillSettings(hints=("auto",)))


def test_the_original_is_not_trained_while_it_heals(batch):
    original, cut = network(0), linear(1)
    loss = healed_by(original)(cut, batch.pixels.float(), batch.targets, batch)
    loss.backward()
    assert all(p.grad is None for p in original.module.parameters())
    assert not original.module.training
