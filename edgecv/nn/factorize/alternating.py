"""A 5×5 kernel as two 3×3 kernels, by alternating least squares."""

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = 15
"""Of both kernels; the error of random and of trained kernels falls by less than a thousandth after these."""

_RIDGE = 1e-6
"""Of the mean diagonal: keeps the equations solvable where a channel is not used."""


def fit_two_3x3(kernel: Tensor, rank: int, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Return two 3×3 kernels whose succession is nearest to a 5×5 kernel, and the 5×5 kernel that they are.

    With one of the two fixed, the other is a linear least-squares problem; they are solved in turns.

    Args:
        kernel: float32 (out, in, 5, 5).
        rank: Channels between the two.
        seed: Of the start.

    Returns:
        ``[(rank, in, 3, 3), (out, rank, 3, 3)]`` and (out, in, 5, 5).
    """
    out, into = kernel.shape[:2]
    target = kernel.double()
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(rank, into, 3, 3, generator=generator, dtype=torch.float64)
    second = torch.zeros(out, rank, 3, 3, dtype=torch.float64)
    for _ in range(ROUNDS):
        second = _solve(_shifts(first), target.flatten(1)).reshape(out, rank, 3, 3)
        # The same with the roles exchanged: out and in transposed.
        turned = _shifts(second.transpose(0, 1))
        first = _solve(turned, target.transpose(0, 1).flatten(1)).reshape(into, rank, 3, 3).transpose(0, 1)
    balance = (second.norm() / first.norm().clamp_min(1e-30)).sqrt()
    first, second = first * balance, second / balance.clamp_min(1e-30)
    return [first.float().contiguous(), second.float().contiguous()], compose(first, second).float()


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Return the one kernel (out, in, 5, 5) that (rank, in, 3, 3) and then (out, rank, 3, 3) are."""
    # out[o, i] = Σ_m second[o, m] ∗ first[m, i]: a full convolution, written as a correlation with the turned kernel.
    turned = first.transpose(0, 1).flip(2, 3)
    return functional.conv2d(functional.pad(second, (2, 2, 2, 2)), turned)


def _shifts(kernels: Tensor) -> Tensor:
    """Return (rank · 9, channels · 25): what each weight of the other kernel adds to the whole.

    Args:
        kernels: (rank, channels, 3, 3).
    """
    rank, channels = kernels.shape[:2]
    table = kernels.new_zeros(rank, 3, 3, channels, 5, 5)
    for row in range(3):
        for column in range(3):
            table[:, row, column, :, row : row + 3, column : column + 3] = kernels
    return table.reshape(rank * 9, channels * 25)


def _solve(table: Tensor, target: Tensor) -> Tensor:
    """Return x (rows, rank · 9) with x · table nearest to target (rows, channels · 25)."""
    gram = table @ table.T
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + 1e-30)
    solution: Tensor = torch.linalg.solve(gram, table @ target.T).T
    return solution
