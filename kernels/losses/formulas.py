"""The formulas of losses of one score: what a row adds to the loss, and its derivative with respect to the score.

Each is written once. The loops over arrays, the weighted ones, the pass over X and the training loops
all call these functions, so that a loss cannot drift away from its gradient.

Every function takes a score, a target and the loss's parameter delta (which most do not have) of one float type, and
returns ``(value, derivative)``. NaN in gives NaN in both.
"""

from __future__ import annotations

import numpy as np

from ..runtime.jit import scalar
from ..simd.functions import exp, like, log1p
from .table import OF_ONE_SCORE

__all__ = ["POINTWISE", "weighted_binary_cross_entropy"]


@scalar
def _binary_cross_entropy(z, t, _):  # type: ignore[no-untyped-def]
    """log(1 + e^-|z|) plus |z| times the target's share on the wrong side; sigmoid(z) - t.

    Both come from one exponential of a number <= 0, and nothing cancels: not the value for large |z|,
    not the derivative for a sure and right score.
    """
    magnitude = abs(z)
    e = exp(-magnitude)
    one, zero = like(z, 1), like(z, 0)
    right = z >= zero
    share = one - t if right else t
    wrong = share * magnitude if share > zero else zero  # 0 * inf counts as 0
    numerator = (one - t) - t * e if right else (one - t) * e - t
    return log1p(e) + wrong, numerator / (one + e)


@scalar
def weighted_binary_cross_entropy(z, t, pos_weight):  # type: ignore[no-untyped-def]
    """As `_binary_cross_entropy`, with the loss of class 1 times a weight; apart, for that takes more arithmetic."""
    magnitude = abs(z)
    e = exp(-magnitude)
    one, zero = like(z, 1), like(z, 0)
    right = z >= zero
    positive, negative = pos_weight * t, one - t
    share = negative if right else positive
    wrong = share * magnitude if share > zero else zero
    numerator = negative - positive * e if right else negative * e - positive
    return (positive + negative) * log1p(e) + wrong, numerator / (one + e)


@scalar
def _hinge(z, y, _):  # type: ignore[no-untyped-def]
    """max(0, 1 - y z); at the kink the subgradient is 0."""
    slack = like(z, 1) - y * z
    zero = like(z, 0)
    slope = -y if slack > zero else slack  # NaN stays
    return (zero, zero) if slack <= zero else (slack, slope)


@scalar
def _squared_hinge(z, y, _):  # type: ignore[no-untyped-def]
    """max(0, 1 - y z)^2, without a half."""
    slack = like(z, 1) - y * z
    slack = like(z, 0) if slack <= like(z, 0) else slack
    return slack * slack, like(z, -2) * y * slack


@scalar
def _squared_error(z, y, _):  # type: ignore[no-untyped-def]
    """(z - y)^2 / 2."""
    residual = z - y
    return like(z, 0.5) * residual * residual, residual


@scalar
def _sign(residual, size):  # type: ignore[no-untyped-def]
    """`size` with the sign of `residual`; `residual` itself where it is 0 or NaN."""
    return size if residual > like(size, 0) else (-size if residual < like(size, 0) else residual)


@scalar
def _absolute_error(z, y, _):  # type: ignore[no-untyped-def]
    """|z - y|; at 0 the subgradient is 0."""
    residual = z - y
    return abs(residual), _sign(residual, like(z, 1))


@scalar
def _huber(z, y, delta):  # type: ignore[no-untyped-def]
    """(z - y)^2 / 2 within delta, continued by its tangents."""
    residual = z - y
    size = abs(residual)
    half = like(z, 0.5)
    inside = size <= delta
    value = half * residual * residual if inside else delta * (size - half * delta)
    return value, residual if inside else _sign(residual, delta)


@scalar
def _poisson(z, y, _):  # type: ignore[no-untyped-def]
    """e^z - y z; where that is infinite minus something, and where y is 0, nothing is taken off."""
    e, zero = exp(z), like(z, 0)
    return e - (y * z if y > zero and e < like(z, np.inf) else zero), e - y


#: Loss -> ``formula(score, target, delta)``.
POINTWISE = {
    "binary_cross_entropy": _binary_cross_entropy,
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "huber": _huber,
    "poisson": _poisson,
}
assert tuple(POINTWISE) == OF_ONE_SCORE, "each loss of one score has its formula here, in the order of the table"
