"""Coordinate descent on quadratics with an L1 penalty: the steps of Newton's method where coefficients may be 0.

What is minimized is ``g . d + d . H d / 2 + sum_j strength_j |x_j + d_j|`` over the change d of coefficients x, one
entry after the other, each to the minimum along it. H comes as it is, or as the rows whose products it is. All numbers
are float64.

Source: J. Friedman, T. Hastie and R. Tibshirani, Regularization paths for generalized linear models via coordinate
descent, Journal of Statistical Software 33 (2010).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..runtime.jit import inner, kernel, readonly

__all__ = ["descend_products", "descend_rows"]

Array = NDArray[np.float64]


def descend_products(H: Array, strength: Array, x: Array, gradient: Array, sweeps: int, goal: float) -> float:
    """Pass over the coefficients `x` until none moves far, with the matrix (m, m) of the quadratic.

    Parameters
    ----------
    H : ndarray of shape (m, m)
        Symmetric, with a diagonal above 0.
    strength : ndarray of shape (m,)
        What the sizes of the coefficients are multiplied by.
    x, gradient : ndarray of shape (m,)
        Coefficients and the gradient of the quadratic there; both are changed.
    sweeps : int
        Most passes.
    goal : float
        A pass is the last if no step, times the curvature along it, is larger.

    Returns
    -------
    float
        The largest such product of the last pass.
    """
    return float(_descend_products(readonly(H), readonly(strength), x, gradient, sweeps, goal))


def descend_rows(
    Z: Array, curvature: Array, ridge: Array, strength: Array, x: Array, start: Array, gradient: Array,
    residual: Array, sweeps: int, goal: float,
) -> float:  # fmt: skip
    """Pass over the coefficients `x` as `descend_products` does, with ``H = Z @ Z.T + diag(ridge)``, `Z` (m, n).

    `gradient` is that at the coefficients `start`, and `residual` (n,) is ``(x - start) @ Z``; it follows. `curvature`
    (m,) is the diagonal of H, and `ridge` is part of it.
    """
    settled = readonly(Z), readonly(curvature), readonly(ridge), readonly(strength)
    return float(_descend_rows(*settled, x, readonly(start), readonly(gradient), residual, sweeps, goal))


@inner
def _minimum(old, gradient, curvature, strength):  # type: ignore[no-untyped-def]
    """Return where along a coordinate the minimum is."""
    pull = curvature * old - gradient
    if pull > strength:
        return (pull - strength) / curvature
    if pull < -strength:
        return (pull + strength) / curvature
    return 0.0


@kernel
def _descend_products(H, strength, x, gradient, sweeps, goal):  # type: ignore[no-untyped-def]
    worst = 0.0
    for _ in range(sweeps):
        worst = 0.0
        for j in range(x.size):
            row = H[j]
            new = _minimum(x[j], gradient[j], row[j], strength[j])
            step = new - x[j]
            if step != 0.0:
                x[j] = new
                for k in range(row.size):
                    gradient[k] += step * row[k]
                worst = max(worst, abs(step) * row[j])
        if worst <= goal:
            break
    return worst


@kernel
def _descend_rows(Z, curvature, ridge, strength, x, start, gradient, residual, sweeps, goal):  # type: ignore[no-untyped-def]
    worst = 0.0
    for _ in range(sweeps):
        worst = 0.0
        for j in range(x.size):
            row = Z[j]
            slope = 0.0
            for i in range(row.size):
                slope += row[i] * residual[i]
            slope += gradient[j] + ridge[j] * (x[j] - start[j])
            new = _minimum(x[j], slope, curvature[j], strength[j])
            step = new - x[j]
            if step != 0.0:
                x[j] = new
                for i in range(row.size):
                    residual[i] += step * row[i]
                worst = max(worst, abs(step) * curvature[j])
        if worst <= goal:
            break
    return worst
