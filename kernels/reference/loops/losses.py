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
    "poisson",
    "poisson_gradient",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "squared_error",
    "squared_error_gradient",
    "squared_hinge",
    "squared_hinge_gradient",
]

Term = Callable[[Any, Any], tuple[float, Any]]


def _binary_cross_entropy(z: float, t: float, pos_weight: float = 1.0) -> tuple[float, float]:
    # -p t log σ(z) - (1 - t) log(1 - σ(z)) = (p t + 1 - t) log(1 + e^-|z|) + (1 - t)|z|   for z >= 0
    #                                       = (p t + 1 - t) log(1 + e^-|z|) +     p t |z|   for z <  0
    # and its derivative (1 - t) σ(z) - p t σ(-z) likewise over the common denominator 1 + e^-|z|.
    e = _exp(-abs(z))
    positive, negative = pos_weight * t, 1 - t
    if z >= 0:
        share, derivative = negative, (negative - positive * e) / (1 + e)
    else:
        share, derivative = positive, (negative * e - positive) / (1 + e)
    # An infinite score on the right side costs nothing: 0 · inf counts as 0.
    return (positive + negative) * math.log1p(e) + (share * abs(z) if share > 0 else 0.0), derivative


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


def _poisson(z: float, y: float) -> tuple[float, float]:
    e = _exp(z)
    # Neither infinity less infinity nor 0 · inf: e^z outgrows y z, and nothing is expected of y = 0.
    return e - (y * z if y > 0 and e < math.inf else 0.0), e - y


_TERMS: dict[str, Term] = {
    "binary_cross_entropy": _binary_cross_entropy,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "multiclass_hinge": _multiclass_hinge,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "huber": lambda z, y: _huber(z, y, DELTA),
    "poisson": _poisson,
}


def _of_one_score(
    term: Term, z: ArrayLike, y: ArrayLike, target: str, sample_weight: ArrayLike | None, reduction: str
) -> tuple[Any, Array]:
    mean = arguments.is_mean(reduction)
    z, y = arguments.scores_and_target(z, y, target, mean=mean)
    return _reduced(term, z, y, *checked_weights(sample_weight, len(z), z.dtype, mean=mean), reduction)


def _reduced(term: Term, z: Array, y: Array, w: Array | None, total: float, reduction: str) -> tuple[Any, Array]:
    """Return Σ w·value / total, or w·value of every row, and the derivative of the sum by `z`, over total."""
    loss, values = 0.0, np.empty(len(z), z.dtype)
    gradient = np.empty_like(z)
    scores, targets = z.tolist(), y.tolist()
    for i, (score, target) in enumerate(zip(scores, targets, strict=True)):
        weight = 1.0 if w is None else float(w[i])
        value, derivative = term(score, target)
        loss += weight * value
        values[i] = weight * value
        if z.ndim == 1:
            gradient[i] = weight * derivative / total
        else:
            gradient[i] = [weight * part / total for part in derivative]
    return values if reduction == "none" else loss / total, gradient


@quiet
def binary_cross_entropy_gradient(
    z: ArrayLike,
    t: ArrayLike,
    *,
    pos_weight: float | None = None,
    label_smoothing: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> tuple[Any, Array]:
    """`binary_cross_entropy` and its gradient ``(σ(z) − t) / n``; see `kernels.binary_cross_entropy_gradient`."""
    a = arguments.binary_cross_entropy(z, t, pos_weight, label_smoothing, sample_weight, reduction)
    factor = 1.0 if a.pos_weight is None else float(a.pos_weight)
    return _reduced(lambda z, t: _binary_cross_entropy(z, t, factor), a.z, a.t, a.weight, a.total, reduction)


def binary_cross_entropy(
    z: ArrayLike,
    t: ArrayLike,
    *,
    pos_weight: float | None = None,
    label_smoothing: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """Mean of ``−t log σ(z) − (1−t) log(1−σ(z))``; see `kernels.binary_cross_entropy`."""
    return binary_cross_entropy_gradient(
        z,
        t,
        pos_weight=pos_weight,
        label_smoothing=label_smoothing,
        sample_weight=sample_weight,
        reduction=reduction,
    )[0]


def _smoothed(y: int | Row, classes: int, smoothing: float, class_weight: Row | None) -> int | Row:
    """Return the target of a row: smoothed probabilities, weighted by class, or a class where that says all."""
    if isinstance(y, int):
        if smoothing == 0:  # the row has its class's weight
            return y
        y = [float(c == y) for c in range(classes)]
    target = [(1 - smoothing) * p + smoothing / classes for p in y]
    return target if class_weight is None else [w * p for w, p in zip(class_weight, target, strict=True)]


@quiet
def softmax_cross_entropy_gradient(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    class_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> tuple[Any, Array]:
    """As `softmax_cross_entropy`, and ``(softmax(Z) − 1[c = y]) / n``; see `kernels.softmax_cross_entropy_gradient`."""
    settled = arguments.cross_entropy(Z, y, class_weight, label_smoothing, ignore_index, sample_weight, reduction)
    Z, y, weight, divisor, options = settled
    smoothing, of_classes = 0.0, None
    if options is not None:
        smoothing = float(options.label_smoothing)
        of_classes = None if options.class_weight is None else options.class_weight.tolist()

    def term(z: Row, y: int | Row) -> tuple[float, list[float]]:
        if y == -1:  # a row that is not there
            return 0.0, [0.0] * len(z)
        return _softmax_cross_entropy(z, _smoothed(y, len(z), smoothing, of_classes))

    return _reduced(term, Z, y, weight, divisor, reduction)


def softmax_cross_entropy(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    class_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """Mean of ``−log softmax(Z)[i, y[i]]``, or by target probabilities; see `kernels.softmax_cross_entropy`."""
    return softmax_cross_entropy_gradient(
        Z,
        y,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        sample_weight=sample_weight,
        reduction=reduction,
    )[0]


@quiet
def hinge_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """`hinge` and its subgradient, ``−y/n`` where ``y·z < 1``, else 0; see `kernels.hinge_gradient`."""
    return _of_one_score(_hinge, z, y, "sign", sample_weight, reduction)


def hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean") -> Any:
    """Mean of ``max(0, 1 − y·z)``; see `kernels.hinge`."""
    return hinge_gradient(z, y, sample_weight=sample_weight, reduction=reduction)[0]


@quiet
def squared_hinge_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """`squared_hinge` and its gradient ``−2y·max(0, 1 − y·z) / n``; see `kernels.squared_hinge_gradient`."""
    return _of_one_score(_squared_hinge, z, y, "sign", sample_weight, reduction)


def squared_hinge(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Mean of ``max(0, 1 − y·z)²``, without a half; see `kernels.squared_hinge`."""
    return squared_hinge_gradient(z, y, sample_weight=sample_weight, reduction=reduction)[0]


@quiet
def multiclass_hinge_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """`multiclass_hinge` and a subgradient (Crammer and Singer); see `kernels.multiclass_hinge_gradient`."""
    mean = arguments.is_mean(reduction)
    Z, y = arguments.class_targets(Z, y, mean=mean)
    weights = checked_weights(sample_weight, len(Z), Z.dtype, mean=mean)
    return _reduced(_multiclass_hinge, Z, y, *weights, reduction)


def multiclass_hinge(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Mean of ``max_j (Z[i, j] − Z[i, y] + 1[j ≠ y])``; see `kernels.multiclass_hinge`."""
    return multiclass_hinge_gradient(Z, y, sample_weight=sample_weight, reduction=reduction)[0]


@quiet
def squared_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """`squared_error` and its gradient ``(z − y) / n``; see `kernels.squared_error_gradient`."""
    return _of_one_score(_squared_error, z, y, "real", sample_weight, reduction)


def squared_error(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Mean of ``(z − y)² / 2``; see `kernels.squared_error`."""
    return squared_error_gradient(z, y, sample_weight=sample_weight, reduction=reduction)[0]


@quiet
def absolute_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """`absolute_error` and its subgradient ``sign(z − y) / n``; see `kernels.absolute_error_gradient`."""
    return _of_one_score(_absolute_error, z, y, "real", sample_weight, reduction)


def absolute_error(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Mean of ``|z − y|``; see `kernels.absolute_error`."""
    return absolute_error_gradient(z, y, sample_weight=sample_weight, reduction=reduction)[0]


@quiet
def huber_gradient(
    z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """`huber` and its gradient, ``z − y`` cut to [−δ, δ], over n; see `kernels.huber_gradient`."""
    z, y = arguments.scores_and_target(z, y, "real", mean=arguments.is_mean(reduction))
    threshold = float(scalars.checked_delta(delta, z.dtype))
    return _of_one_score(lambda z, y: _huber(z, y, threshold), z, y, "real", sample_weight, reduction)


def huber(
    z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Mean of ``r²/2`` where ``|r| ≤ δ``, else ``δ(|r| − δ/2)``, for ``r = z − y``; see `kernels.huber`."""
    return huber_gradient(z, y, delta=delta, sample_weight=sample_weight, reduction=reduction)[0]


@quiet
def poisson_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """`poisson` and its gradient ``(e^z − y) / n``; see `kernels.poisson_gradient`."""
    return _of_one_score(_poisson, z, y, "from 0", sample_weight, reduction)


def poisson(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean") -> Any:
    """Mean of ``e^z − y·z``; see `kernels.poisson`."""
    return poisson_gradient(z, y, sample_weight=sample_weight, reduction=reduction)[0]
