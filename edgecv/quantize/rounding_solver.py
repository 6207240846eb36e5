"""The codes of a layer's weights with the least error on inputs of a known covariance.

With e the error of a row of weights and C the covariance of its inputs, the output's error is eᵀ C e. It is made small
weight after weight, each taking up the error of those before it (Frantar et al., GPTQ, 2022; here from the Cholesky
factor of C itself, as in Babai's nearest-plane algorithm), for several scales, then by moving single codes and fitting
the scale again while that helps.
"""

import numpy as np

from edgecv.quantize.weights import SMALLEST_SCALE, WEIGHT_LIMIT

RIDGE = 0.001
"""Share of the inputs' mean variance added to each, so that every covariance has a Cholesky factor."""

SMALLEST_SHARE = 0.6
"""The smallest share of a row's largest weight tried as its clipping point."""

SCALES = 9
SCALES_FOR_FEW = 129
FEW_INPUTS = 64
"""Scales tried for a row, from there to the one at which nothing is clipped; a row of few weights may find a scale that
happens to fit them all: 5 to 10 % less error in depthwise layers."""

SWEEPS = 4
"""Passes over a row's codes, moving one at a time; after these nearly none moves."""

REFITS = 2
"""Times the scale is fitted to the codes and the codes to the scale."""

UNLIMITED = 2 * WEIGHT_LIMIT
"""No limit on pairs: the sum of any two codes."""

_BLOCK = 128  # columns whose errors are passed on together: one matrix product instead of many


def round_rows(
    target: np.ndarray, covariance: np.ndarray, floor: np.ndarray, pair_limit: int = UNLIMITED
) -> tuple[np.ndarray, np.ndarray]:
    """Choose codes and scales with little error on inputs of the given covariance.

    Args:
        target: Weights, float64 (groups, rows, fan_in).
        covariance: Of their inputs, float64 (groups, fan_in, fan_in), positive semidefinite.
        floor: Smallest scale of every row, (groups, rows).
        pair_limit: Largest sum in magnitude of the codes of inputs 2j and 2j + 1.

    Returns:
        Codes as float64 (groups, rows, fan_in) and scales (groups, rows), each a float32 number.
    """
    order = _pair_order(covariance)
    target = np.take_along_axis(target, order[:, None], 2)
    covariance = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None], 2)
    codes, scale = _round_in_order(target, _damp(covariance), floor, pair_limit)
    found = np.empty_like(codes)
    np.put_along_axis(found, order[:, None], codes, 2)
    return found, scale


def _round_in_order(
    target: np.ndarray, damped: np.ndarray, floor: np.ndarray, pair_limit: int
) -> tuple[np.ndarray, np.ndarray]:
    factor = np.linalg.cholesky(damped)
    columns = np.ascontiguousarray(np.swapaxes(target, 1, 2))
    lowest, highest = scale_span(target, pair_limit)
    error = np.full(highest.shape, np.inf)
    codes, scale = np.zeros_like(target), highest
    for share in np.linspace(0, 1, SCALES_FOR_FEW if target.shape[2] <= FEW_INPUTS else SCALES):
        tried = _storable(lowest + share * (highest - lowest), floor)
        found, cost = _nearest_plane(columns, factor, tried, pair_limit)
        better = cost < error
        error, scale = np.where(better, cost, error), np.where(better, tried, scale)
        codes = np.where(better[:, :, None], np.swapaxes(found, 1, 2), codes)
    codes = _descend(target, codes, damped, scale, pair_limit)
    error = _cost(codes * scale[:, :, None] - target, damped)
    for _ in range(REFITS):
        tried = _fit_scale(target, codes, damped, scale, floor)
        found = _descend(target, codes, damped, tried, pair_limit)
        cost = _cost(found * tried[:, :, None] - target, damped)
        better = cost < error
        error, scale = np.where(better, cost, error), np.where(better, tried, scale)
        codes = np.where(better[:, :, None], found, codes)
    return codes, scale


def _pair_order(covariance: np.ndarray) -> np.ndarray:
    """Return the order of inputs (groups, fan_in) in which pairs stay pairs and those that vary most come last.

    Rounding starts from the last: its error is what all others can still make up for.
    """
    variance = np.einsum("gii->gi", covariance)
    groups, fan_in = variance.shape
    pairs = fan_in // 2
    first = 2 * np.argsort(variance[:, : 2 * pairs].reshape(groups, pairs, 2).sum(axis=2), axis=1, kind="stable")
    alone = np.full((groups, fan_in % 2), fan_in - 1)
    return np.concatenate([np.stack([first, first + 1], axis=2).reshape(groups, -1), alone], axis=1)


def _damp(covariance: np.ndarray) -> np.ndarray:
    """Add the ridge to the diagonal, in place; inputs that never vary count as if they varied a little."""
    diagonal = np.einsum("gii->gi", covariance)  # a view
    diagonal += np.maximum(RIDGE * diagonal.mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return covariance


def largest_pair(target: np.ndarray) -> np.ndarray:
    """Return the largest sum in magnitude of weights 2j and 2j + 1 of every row, in the weights' own unit."""
    padded = np.pad(target, ((0, 0), (0, 0), (0, target.shape[2] % 2)))
    return np.asarray(np.abs(padded[:, :, ::2] + padded[:, :, 1::2]).max(axis=2))


def scale_span(target: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest scale to try for every row, and the one at which neither codes nor pairs are clipped."""
    full = np.abs(target).max(axis=2) / WEIGHT_LIMIT
    return SMALLEST_SHARE * full, np.maximum(full, largest_pair(target) / limit)


def _storable(scale: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return scales as float32 numbers, no smaller than ``floor`` allows; 1 for a row of zeros without a floor."""
    raised = np.maximum(scale, floor)
    stored = np.where(raised > 0, np.maximum(raised, SMALLEST_SCALE), 1.0)
    return np.asarray(stored.astype(np.float32).astype(np.float64))


def _nearest_plane(
    columns: np.ndarray, factor: np.ndarray, scale: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Round from the last input to the first, each taking up what the later ones have left over.

    With C = L Lᵀ the cost of an error e is |Lᵀ e|², whose part j holds e_j and the errors of later inputs only.

    Args:
        columns: Weights (groups, fan_in, rows).
        factor: L, lower triangular (groups, fan_in, fan_in).
        scale: (groups, rows).
        limit: Largest sum of a pair.

    Returns:
        Codes like ``columns``, and the cost of every row.
    """
    fan_in = columns.shape[1]
    codes, error, carried = np.empty_like(columns), np.empty_like(columns), np.zeros_like(columns)
    cost = np.zeros(scale.shape)
    for stop in range(fan_in, 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        for j in range(stop - 1, start - 1, -1):
            pivot = factor[:, j, j][:, None]
            wanted = np.rint((columns[:, j] - carried[:, j] / pivot) / scale)
            if j % 2:  # its partner comes next
                partner = _fair_share(wanted, np.rint(columns[:, j - 1] / scale), limit)
            else:
                partner = codes[:, j + 1] if j + 1 < fan_in else np.zeros_like(wanted)
            codes[:, j] = _within(wanted, partner, limit)
            error[:, j] = codes[:, j] * scale - columns[:, j]
            cost += np.square(pivot * error[:, j] + carried[:, j])
            carried[:, start:j] += factor[:, j, start:j, None] * error[:, j][:, None, :]
        carried[:, :start] += np.swapaxes(factor[:, start:stop, :start], 1, 2) @ error[:, start:stop]
    return codes, cost


def _fair_share(wanted: np.ndarray, partner: np.ndarray, limit: int) -> np.ndarray:
    """Return the code to leave to a partner not yet rounded: what is over the limit is taken from both alike."""
    both = np.clip(wanted, -WEIGHT_LIMIT, WEIGHT_LIMIT), np.clip(partner, -WEIGHT_LIMIT, WEIGHT_LIMIT)
    excess = np.maximum(np.abs(both[0] + both[1]) - limit, 0)
    return np.asarray(both[1] - np.sign(both[1]) * np.rint(excess / 2))


def _within(codes: np.ndarray, partner: np.ndarray, limit: int) -> np.ndarray:
    """Clip codes to int8 and to what their partners leave of the pair's limit."""
    lowest = np.maximum(-WEIGHT_LIMIT, -limit - partner)
    highest = np.minimum(WEIGHT_LIMIT, limit - partner)
    return np.asarray(np.clip(codes, lowest, highest))


def _descend(
    target: np.ndarray, codes: np.ndarray, covariance: np.ndarray, scale: np.ndarray, limit: int
) -> np.ndarray:
    """Move one code of every row after the other to its best value, the others fixed, a few times over."""
    codes = codes.copy()
    slope = (codes * scale[:, :, None] - target) @ covariance
    fan_in = target.shape[2]
    for _ in range(SWEEPS):
        moved = False
        for j in range(fan_in):
            step = np.rint(-slope[:, :, j] / (covariance[:, j, j][:, None] * scale))
            partner = codes[:, :, j ^ 1] if j ^ 1 < fan_in else np.zeros_like(step)
            change = _within(codes[:, :, j] + step, partner, limit) - codes[:, :, j]
            if not change.any():
                continue
            moved = True
            codes[:, :, j] += change
            if len(change) == 1:  # many rows, few of which move
                rows = np.flatnonzero(change[0])
                slope[0, rows] += (change * scale)[0, rows, None] * covariance[0, j]
            else:
                slope += (change * scale)[:, :, None] * covariance[:, None, j]
        if not moved:
            break
    return codes


def _fit_scale(
    target: np.ndarray, codes: np.ndarray, covariance: np.ndarray, scale: np.ndarray, floor: np.ndarray
) -> np.ndarray:
    """Return the scale of least cost for the codes; the old one where that would be less than half or over twice it."""
    product = codes @ covariance
    size = np.einsum("gri,gri->gr", product, codes)
    best = np.divide(np.einsum("gri,gri->gr", product, target), size, out=scale.copy(), where=size > 0)
    return _storable(np.where((best > scale / 2) & (best < scale * 2), best, scale), floor)


def _cost(error: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("gri,gri->gr", error @ covariance, error))
