"""Coordinate descent on the duals of support vector machines.

One row's dual variable is moved at a time to the minimum along it, and the coefficients, a sum of rows, follow. Both
are float64 whatever the rows are. A call does some rows of an epoch, so that none lasts long; the order is given.

Rows at a bound whose gradient keeps them there by a margin are left out of the following epochs (shrinking). The
margin is what the largest violation of the last epoch was.

Sources: C.-J. Hsieh, K.-W. Chang, C.-J. Lin, S. S. Keerthi and S. Sundararajan, A dual coordinate descent method for
large-scale linear SVM, ICML 2008; S. S. Keerthi, S. Sundararajan, K.-W. Chang, C.-J. Hsieh and C.-J. Lin, A
sequential dual method for large scale multi-class linear SVMs, KDD 2008.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.jit import inner, kernel, readonly

__all__ = ["crammer_singer_epoch", "hinge_epoch"]

Array = NDArray[np.float64]


def hinge_epoch(
    X: NDArray[Any],
    sign: Array,
    order: NDArray[np.intp],
    norms: Array,
    upper: Array,
    ridge: Array,
    bias: float,
    margins: tuple[float, float],
    alpha: Array,
    w: Array,
    active: NDArray[np.bool_],
    extremes: Array,
) -> None:
    """Move the dual variables `alpha` of the rows in `order`, one after the other, and with them `w`.

    The dual is ``‖w‖² / 2 + sum_i ridge_i alpha_i² / 2 - sum_i alpha_i`` over ``0 <= alpha_i <= upper_i`` with
    ``w = sum_i alpha_i sign_i (x_i, bias)``, plus whatever the last entry of `w` held at the start. `norms` are those
    of the rows with their bias, squared. `margins` are the two gradients beyond which a row at a bound is left out:
    `active` says which rows are in. `extremes` receives the smallest and largest projected gradient.
    """
    settled = readonly(X), readonly(sign), readonly(order), readonly(norms), readonly(upper), readonly(ridge)
    _hinge_epoch(*settled, bias, margins, alpha, w, active, extremes)


def crammer_singer_epoch(
    X: NDArray[Any],
    labels: NDArray[np.intp],
    order: NDArray[np.intp],
    norms: Array,
    upper: Array,
    bias: float,
    alpha: Array,
    W: Array,
) -> float:
    """Move the dual variables `alpha` (n, C) of the rows in `order`, all of a row together, and with them `W`.

    The dual is ``sum_c ‖w_c‖² / 2 + sum_ic alpha_ic [c != y_i]`` over ``alpha_ic <= upper_i [c == y_i]`` with rows
    that sum to 0, and ``w_c = sum_i alpha_ic (x_i, bias)``. Returned is the largest violation.
    """
    settled = readonly(X), readonly(labels), readonly(order), readonly(norms), readonly(upper)
    return float(_crammer_singer_epoch(*settled, bias, alpha, W))


@inner
def _score(row, w, bias):  # type: ignore[no-untyped-def]
    """Return ``row . w[:-1] + bias * w[-1]``."""
    total = 0.0
    for d in range(row.size):
        total += row[d] * w[d]
    return total + bias * w[row.size]


@inner
def _move(row, step, bias, w):  # type: ignore[no-untyped-def]
    """Add `step` times the row to the coefficients."""
    for d in range(row.size):
        w[d] += step * row[d]
    w[row.size] += step * bias


@kernel
def _hinge_epoch(X, sign, order, norms, upper, ridge, bias, margins, alpha, w, active, extremes):  # type: ignore[no-untyped-def]
    low, high = margins
    for i in order:
        row, y, curvature = X[i], sign[i], norms[i] + ridge[i]
        old, top = alpha[i], upper[i]
        gradient = y * _score(row, w, bias) - 1.0 + ridge[i] * old
        projected = gradient
        if old == 0.0:
            if gradient > high or top == 0.0:
                active[i] = False
                continue
            projected = min(gradient, 0.0)
        elif old == top:
            if gradient < low:
                active[i] = False
                continue
            projected = max(gradient, 0.0)
        extremes[0], extremes[1] = min(extremes[0], projected), max(extremes[1], projected)
        if projected != 0.0:
            # A row of zeros has no curvature: its variable goes to the bound.
            new = min(max(old - gradient / curvature, 0.0), top) if curvature > 0.0 else (top if gradient < 0 else 0.0)
            if new != old:
                alpha[i] = new
                _move(row, (new - old) * y, bias, w)


@kernel
def _crammer_singer_epoch(X, labels, order, norms, upper, bias, alpha, W):  # type: ignore[no-untyped-def]
    classes = W.shape[0]
    gradient, bound, sorted_ = np.empty(classes), np.empty(classes), np.empty(classes)
    worst = 0.0
    for i in order:
        row, a, true, curvature = X[i], alpha[i], labels[i], norms[i]
        if curvature <= 0.0 or upper[i] <= 0.0:
            continue
        least, most = np.inf, -np.inf
        for c in range(classes):
            gradient[c] = _score(row, W[c], bias) + (0.0 if c == true else 1.0)
            bound[c] = upper[i] if c == true else 0.0
            most = max(most, gradient[c])
            if a[c] < bound[c]:
                least = min(least, gradient[c])
        if most - least <= 0.0:
            continue
        worst = max(worst, most - least)
        # Minimise curvature / 2 ‖a‖² + b . a under the same constraints, b being the gradient less what a adds.
        for c in range(classes):
            gradient[c] -= curvature * a[c]
            sorted_[c] = gradient[c] + curvature * bound[c]
        level = _water_level(sorted_, curvature * upper[i])
        for c in range(classes):
            new = min(bound[c], (level - gradient[c]) / curvature)
            if new != a[c]:
                _move(row, new - a[c], bias, W[c])
                a[c] = new
    return worst


@inner
def _water_level(values, amount):  # type: ignore[no-untyped-def]
    """Return the level t with ``sum_c max(0, values_c - t) == amount``; sorts `values` in descending order."""
    n = values.size
    for i in range(1, n):
        value, at = values[i], i
        while at > 0 and values[at - 1] < value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value
    total = values[0] - amount
    used = 1
    while used < n and total < used * values[used]:
        total += values[used]
        used += 1
    return total / used
