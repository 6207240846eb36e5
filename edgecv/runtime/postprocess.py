"""From a model's output to probabilities and the best classes; numpy only."""

import numpy as np


def softmax(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return probabilities; the largest logit is subtracted first, so that none overflows.

    Args:
        logits: Any real dtype and shape.
        axis: The axis of the classes.

    Returns:
        float64 of the same shape, summing to 1 along ``axis``.

    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    values = np.asarray(logits, np.float64)
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the ``k`` largest scores, best first; ties go to the lower index.

    Args:
        scores: Shape (classes,).
        k: How many; more than there are classes gives them all.

    >>> top_k(np.array([0.1, 0.7, 0.7, 0.2]), 3).tolist()
    [1, 2, 3]
    """
    return np.argsort(-scores, kind="stable")[:k]
