"""Losses that bring a student's logits to a teacher's; all are means over the batch, float32."""

import torch
from torch import Tensor
from torch.nn import functional

DKD_TARGET, DKD_OTHERS = 1.0, 8.0
"""alpha and beta of DKD, as its authors set them for CIFAR-100 (Zhao et al., CVPR 2022, table 4 and §5)."""

DIST_INTER, DIST_INTRA = 1.0, 1.0
"""beta and gamma of DIST (Huang et al., NeurIPS 2022, §4.1 use 1 and 1 on ImageNet)."""

_FAR = 1e4


def kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher ‖ student) of softened probabilities (Hinton, Vinyals and Dean, 2015).

    T² keeps the gradient's size the same whatever the temperature (their §2.1).

    Args:
        student: Logits (N, C).
        teacher: Logits (N, C).
        temperature: T, above 0.
    """
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, 1),
        functional.log_softmax(teacher / temperature, 1),
        log_target=True,
        reduction="batchmean",
    )


def dkd(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return decoupled distillation: the target's own probability, and the distribution among the other classes.

    Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, eq. 7: alpha · TCKD + beta · NCKD. In plain KD the second
    is weighted by 1 - p_target, so that a sure teacher teaches little about the other classes.

    Args:
        student: Logits (N, C), C ≥ 2.
        teacher: Logits (N, C).
        targets: Class indices (N,); soft targets (N, C) count as the class with the largest share.
        temperature: T, above 0.
    """
    target = targets.argmax(1) if targets.ndim == 2 else targets
    own = functional.one_hot(target, student.shape[1]).bool()
    p_student, p_teacher = (functional.softmax(v / temperature, 1) for v in (student, teacher))
    pair_student, pair_teacher = (_target_and_rest(p, own) for p in (p_student, p_teacher))
    target_loss = functional.kl_div(pair_student.log(), pair_teacher, reduction="batchmean")
    others_student = functional.log_softmax(student / temperature - _FAR * own, 1)
    others_teacher = functional.softmax(teacher / temperature - _FAR * own, 1)
    others_loss = functional.kl_div(others_student, others_teacher, reduction="batchmean")
    return temperature**2 * (DKD_TARGET * target_loss + DKD_OTHERS * others_loss)


def dist(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return DIST: 1 - Pearson correlation, over the classes of each image and over the images of each class.

    Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, eq. 9-11: only the order and relation
    of probabilities is asked for, which a small student can meet.

    Args:
        student: Logits (N, C), N and C ≥ 2.
        teacher: Logits (N, C).
        temperature: T, above 0.
    """
    p_student, p_teacher = (functional.softmax(v / temperature, 1) for v in (student, teacher))
    inter = 1 - _correlation(p_student, p_teacher).mean()
    intra = 1 - _correlation(p_student.T, p_teacher.T).mean()
    return temperature**2 * (DIST_INTER * inter + DIST_INTRA * intra)


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of features relative to the teacher's square, so that layers weigh alike.

    Romero et al., FitNets, ICLR 2015, eq. 3, divided by the teacher's mean square.

    Args:
        student: Projected features of the teacher's shape.
        teacher: (N, C, H, W) or (N, tokens, C).
    """
    return (student - teacher).square().mean() / teacher.square().mean().clamp(min=1e-12)


def _target_and_rest(probabilities: Tensor, own: Tensor) -> Tensor:
    target = (probabilities * own).sum(1)
    return torch.stack([target, 1 - target], 1).clamp(min=1e-8)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of each row of ``a`` with that of ``b``."""
    return functional.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1, eps=1e-8)
