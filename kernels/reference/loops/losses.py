"""Losses and their gradients.

A *term* is what one row adds to a loss, as ``(value, derivative with respect to the score)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...arguments import scalars
from ...arguments.arrays import Array
from ...arguments.targets import weights as checked_weights
from ...losses import arguments
from ...losses.table import DELTA
from ._common import Row, quiet
from .elementwise import _exp, _log_sum_exp, _softmax

__all__ = [
    "absolute_error",
    "absolute_error_gradient",
    "binary_cross_entropy",
    "binary_cross_entropy_gradient",
    "hinge",
    "hinge_gradient",
    "huber",
    "huber_gradient",
    "multiclass_hinge",
    "multiclass_hinge_gradient",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "squared_error",
    "squared_error_gradient",
    "squared_hinge",
    "squared_hinge_gradient",
]

Term = Callable[[Any, Any], tuple[float, Any]]


def _binary_cross_entropy(z: float, t: float) -> tuple[float, float]:
    # -t log σ(z) - (1 - t) log(1 - σ(z)) = log(1 + e^-|z|) + (1 - t)|z|   for z >= 0
    #                                     = log(1 + e^-|z|) +      t |z|   for z <  0
    # and its derivative σ(z) - t likewise over the common denominator 1 + e^-|z|.
    e = _exp(-abs(z))
    if z >= 0:
        share, derivative = 1 - t, ((1 - t) - t * e) / (1 + e)
    else:
        share, derivative = t, ((1 - t) * e - t) / (1 + e)
    # An infinite score on the right side costs nothing: 0 · inf counts as 0.
    return math.log1p(e) + (share * abs(z) if share > 0 else 0.0), derivative


def _hinge(z: float, y: float) -> tuple[float, float]:
    slack = 1 - y * z
    if math.isnan(slack):
        return slack, slack
    if slack > 0:
        return slack, -y
    return 0.0, 0.0  # at the kink (slack 0) too


def _squared_hinge(z: float, y: float) -> tuple[float, float]:
    slack = 1 - y * z
    if slack <= 0:
        return 0.0, 0.0
    return slack * slack, -2 * y * slack


def _squared_error(z: float, y: float) -> tuple[float, float]:
    residual = z - y
    return residual * residual / 2, residual


def _absolute_error(z: float, y: float) -> tuple[float, float]:
    residual = z - y
    if math.isnan(residual) or residual == 0:
        return residual, residual
    return abs(residual), math.copysign(1.0, residual)


def _huber(z: float, y: float, delta: float) -> tuple[float, float]:
    residual = z - y
    if math.isnan(residual):
        return residual, residual
    if abs(residual) <= delta:
        return residual * residual / 2, residual
    return delta * (abs(residual) - delta / 2), math.copysign(delta, residual)


def _softmax_cross_entropy(z: Row, y: int | Row) -> tuple[float, list[float]]:
    shift, log_total = _log_sum_exp(z)
    probabilities = _softmax(z)
    if isinstance(y, int):
        derivative = probabilities
        derivative[y] -= 1
        return log_total - (z[y] - shift), derivative
    value = 0.0
    for target, score in zip(y, z, strict=True):
        if target > 0:  # a class without weight costs nothing, also where its score is -inf
            value += target * (log_total - (score - shift))
    mass = sum(y)  # 1, up to rounding: kept, so that this is the gradient of the value above
    return value, [mass * p - target for p, target in zip(probabilities, y, strict=True)]


def _multiclass_hinge(z: Row, y: int) -> tuple[float, list[float]]:
    # max_j (z_j + 1[j != y] - z_y) is 0 for j = y: what matters is the best of the others.
    rival, best = y, -math.inf
    for j, score in enumerate(z):
        if math.isnan(score):
            return math.nan, [math.nan] * len(z)
        if j != y and (score > best or rival == y):  # the first of equals stays
            rival, best = j, score
    slack = (best - z[y]) + 1
    if math.isnan(slack):  # inf - inf
        return slack, [slack] * len(z)
    derivative = [0.0] * len(z)
    if slack <= 0:
        return 0.0, derivative
    derivative[rival] = 1.0
    derivative[y] = -1.0
    return slack, derivative


_TERMS: dict[str, Term] = {
    "binary_cross_entropy": _binary_cross_entropy,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "multiclass_hinge": _multiclass_hinge,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "huber": lambda z, y: _huber(z, y, DELTA),
}


def _mean(term: Term, z: Array, y: Array, sample_weight: ArrayLike | None) -> tuple[float, Array]:
    """Return Σ w·value / Σ w and its derivative with respect to `z`."""
    w, total = checked_weights(sample_weight, len(z), z.dtype)
    loss = 0.0
    gradient = np.empty_like(z)
    scores, targets = z.tolist(), y.tolist()
    for i, (score, target) in enumerate(zip(scores, targets, strict=True)):
        weight = 1.0 if w is None else float(w[i])
        value, derivative = term(score, target)
        loss += weight * value
        if z.ndim == 1:
            gradient[i] = weight * derivative / total
        else:
            gradient[i] = [weight * part / total for part in derivative]
    return loss / total, gradient


@quiet
def binary_cross_entropy_gradient(
    z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """`binary_cross_entropy` and its gradient ``(σ(z) − t) / n``; see `kernels.binary_cross_entropy_gradient`."""
    z, t = arguments.scores_and_target(z, t, "probability", "t")
    return _mean(_binary_cross_entropy, z, t, sample_weight)


def binary_cross_entropy(z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``−t log σ(z) − (1−t) log(1−σ(z))``; see `kernels.binary_cross_entropy`."""
    return binary_cross_entropy_gradient(z, t, sample_weight=sample_weight)[0]


@quiet
def softmax_cross_entropy_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """As `softmax_cross_entropy`, and ``(softmax(Z) − 1[c = y]) / n``; see `kernels.softmax_cross_entropy_gradient`."""
    Z, y = arguments.class_targets(Z, y, probabilities=True)
    return _mean(_softmax_cross_entropy, Z, y, sample_weight)


def softmax_cross_entropy(Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``−log softmax(Z)[i, y[i]]``, or by target probabilities; see `kernels.softmax_cross_entropy`."""
    return softmax_cross_entropy_gradient(Z, y, sample_weight=sample_weight)[0]


@quiet
def hinge_gradient(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> tuple[float, Array]:
    """`hinge` and its subgradient, ``−y/n`` where ``y·z < 1``, else 0; see `kernels.hinge_gradient`."""
    z, y = arguments.scores_and_target(z, y, "sign")
    return _mean(_hinge, z, y, sample_weight)


def hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``max(0, 1 − y·z)``; see `kernels.hinge`."""
    return hinge_gradient(z, y, sample_weight=sample_weight)[0]


@quiet
def squared_hinge_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """`squared_hinge` and its gradient ``−2y·max(0, 1 − y·z) / n``; see `kernels.squared_hinge_gradient`."""
    z, y = arguments.scores_and_target(z, y, "sign")
    return _mean(_squared_hinge, z, y, sample_weight)


def squared_hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``max(0, 1 − y·z)²``, without a half; see `kernels.squared_hinge`."""
    return squared_hinge_gradient(z, y, sample_weight=sample_weight)[0]


@quiet
def multiclass_hinge_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """`multiclass_hinge` and a subgradient (Crammer and Singer); see `kernels.multiclass_hinge_gradient`."""
    Z, y = arguments.class_targets(Z, y)
    return _mean(_multiclass_hinge, Z, y, sample_weight)


def multiclass_hinge(Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``max_j (Z[i, j] − Z[i, y] + 1[j ≠ y])``; see `kernels.multiclass_hinge`."""
    return multiclass_hinge_gradient(Z, y, sample_weight=sample_weight)[0]


@quiet
def squared_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """`squared_error` and its gradient ``(z − y) / n``; see `kernels.squared_error_gradient`."""
    z, y = arguments.scores_and_target(z, y, "real")
    return _mean(_squared_error, z, y, sample_weight)


def squared_error(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``(z − y)² / 2``; see `kernels.squared_error`."""
    return squared_error_gradient(z, y, sample_weight=sample_weight)[0]


@quiet
def absolute_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """`absolute_error` and its subgradient ``sign(z − y) / n``; see `kernels.absolute_error_gradient`."""
    z, y = arguments.scores_and_target(z, y, "real")
    return _mean(_absolute_error, z, y, sample_weight)


def absolute_error(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``|z − y|``; see `kernels.absolute_error`."""
    return absolute_error_gradient(z, y, sample_weight=sample_weight)[0]


@quiet
def huber_gradient(
    z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """`huber` and its gradient, ``z − y`` cut to [−δ, δ], over n; see `kernels.huber_gradient`."""
    z, y = arguments.scores_and_target(z, y, "real")
    threshold = float(scalars.checked_delta(delta, z.dtype))
    return _mean(lambda score, target: _huber(score, target, threshold), z, y, sample_weight)


def huber(z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``r²/2`` where ``|r| ≤ δ``, else ``δ(|r| − δ/2)``, for ``r = z − y``; see `kernels.huber`."""
    return huber_gradient(z, y, delta=delta, sample_weight=sample_weight)[0]
