import math

import pytest
import torch

from edgecv.nn.distill.losses import dist, dkd, hint, kd


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)


def test_a_student_like_its_teacher_has_no_loss(logits):
    teacher, _ = logits
    targets = torch.arange(6) % 5
    for loss in (kd(teacher, teacher, 4.0), dkd(teacher, teacher, targets, 4.0), dist(teacher, teacher, 4.0)):
        assert loss.item() == pytest.approx(0, abs=1e-5)


def test_kd_is_the_divergence_of_softened_probabilities_times_the_squared_temperature(logits):
    student, teacher = logits
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    by_hand = sum((p[i] * (p[i] / q[i]).log()).sum() for i in range(6)) / 6
    assert kd(student, teacher, 2.0).item() == pytest.approx(4 * by_hand.item(), rel=1e-5)


def test_the_gradient_of_kd_keeps_its_size_over_temperatures(logits):
    student, teacher = logits
    sizes = []
    for temperature in (8.0, 32.0):
        asked = student.clone().requires_grad_()
        kd(asked, teacher, temperature).backward()
        sizes.append(asked.grad.norm().item())
    assert sizes[1] / sizes[0] == pytest.approx(1, abs=0.1)


def test_dkd_with_the_plain_weights_is_kd(logits, monkeypatch):
    # eq. 6 of the paper: KD = TCKD + (1 - p_target) NCKD; with one image the weight can be put in for beta.
    student, teacher = logits[0][:1], logits[1][:1]
    target = torch.tensor([2])
    share = (teacher / 3).softmax(1)[0, 2].item()
    monkeypatch.setattr("edgecv.nn.distill.losses.DKD_OTHERS", 1 - share)
    assert dkd(student, teacher, target, 3.0).item() == pytest.approx(kd(student, teacher, 3.0).item(), rel=1e-4)


def test_dkd_takes_the_larger_share_of_a_mixed_target(logits):
    student, teacher = logits
    hard = torch.arange(6) % 5
    soft = 0.7 * torch.nn.functional.one_hot(hard, 5) + 0.3 * torch.nn.functional.one_hot((hard + 1) % 5, 5)
    assert dkd(student, teacher, soft, 4.0).item() == pytest.approx(dkd(student, teacher, hard, 4.0).item())


def test_dist_asks_for_the_relation_and_not_for_the_size_of_probabilities():
    # The student's probabilities are the teacher's, drawn towards uniform: perfectly correlated.
    teacher = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
    student = 0.5 * teacher + 0.5 / 3
    assert dist(student.log(), teacher.log(), 1.0).item() == pytest.approx(0, abs=1e-5)
    assert kd(student.log(), teacher.log(), 1.0).item() > 0.01


def test_losses_are_finite_for_a_teacher_that_is_sure():
    teacher, student = torch.tensor([[80.0, -80.0]]), torch.tensor([[-80.0, 80.0]])
    for loss in (kd(student, teacher, 1.0), dkd(student, teacher, torch.tensor([0]), 1.0)):
        assert math.isfinite(loss.item())


def test_the_hint_does_not_depend_on_the_scale_of_the_layer():
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert hint(100 * a, 100 * b).item() == pytest.approx(hint(a, b).item(), rel=1e-4)
