"""Losses and their gradients.

*Terms* are what each row adds to a loss, and the derivatives if they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...arguments import scalars
from ...arguments.arrays import Array
from ...arguments.targets import weights as checked_weights
from ...losses import arguments
from ...losses.table import DELTA
from ._common import quiet, row_blocks, row_max_and_shift, row_sum
from .elementwise import _exp_both_sides

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

Terms = tuple[Array, Array | None]


def _binary_cross_entropy(z: Array, t: Array, gradient: bool, pos_weight: Any = None) -> Terms:
    # log(1 + e^-|z|) + (1 - t) max(z, 0) + t max(-z, 0): summands >= 0, nothing cancels.
    up, down = _exp_both_sides(z)
    e = up * down
    losses = np.log1p(e)
    positive, negative = t, 1 - t
    if pos_weight is not None:
        positive = pos_weight * t
        losses *= positive + negative
    losses += negative * np.maximum(z, 0)
    losses -= positive * np.minimum(z, 0)
    infinite = np.isinf(z)
    if infinite.any():  # 0 · inf counts as 0: an infinite score on the right side costs nothing
        wrong = np.where(z > 0, negative, positive) > 0
        losses[infinite] = np.where(wrong, np.inf, 0)[infinite]
    if not gradient:
        return losses, None
    # σ(z) - t over the common denominator, for full accuracy where t is 0 or 1.
    grads = up
    grads *= negative
    down *= positive
    grads -= down
    e += 1
    grads /= e
    return losses, grads


def _hinge(z: Array, y: Array, gradient: bool) -> Terms:
    losses = np.maximum(1 - y * z, 0)
    if not gradient:
        return losses, None
    grads = np.sign(losses)  # 1 within the margin, 0 from the kink on, NaN for NaN
    grads *= y
    return losses, np.subtract(0, grads, out=grads)


def _squared_hinge(z: Array, y: Array, gradient: bool) -> Terms:
    slack = np.maximum(1 - y * z, 0)
    return slack * slack, (-2 * y * slack if gradient else None)


def _squared_error(z: Array, y: Array, gradient: bool) -> Terms:
    residual = z - y
    losses = residual * residual
    losses *= 0.5
    return losses, (residual if gradient else None)


def _absolute_error(z: Array, y: Array, gradient: bool) -> Terms:
    residual = z - y
    return np.abs(residual), (np.sign(residual) if gradient else None)


def _huber(z: Array, y: Array, gradient: bool, delta: Any) -> Terms:
    residual = z - y
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    # Both branches at once: inside · (size - inside / 2).
    losses = inside * -0.5
    losses += size
    losses *= inside
    return losses, (np.clip(residual, -delta, delta) if gradient else None)


def _poisson(z: Array, y: Array, gradient: bool) -> Terms:
    e = np.exp(z)
    linear = y * z
    linear[(y == 0) | np.isposinf(e)] = 0  # e^z outgrows y z, and 0 · inf counts as 0
    losses = np.subtract(e, linear, out=linear)
    return losses, (np.subtract(e, y, out=e) if gradient else None)


def _softmax_cross_entropy(Z: Array, y: Array, gradient: bool) -> Terms:
    largest, shift = row_max_and_shift(Z)
    P = Z - shift
    rows = np.arange(len(Z))
    mass: Any = 1
    if y.ndim == 1:
        linear = P[rows, y]
    else:
        # 0 · -inf counts as 0: a class without weight costs nothing.
        weighted = y * P
        if np.isinf(P).any():  # 0 · inf counts as 0: a class without weight costs nothing
            weighted[y == 0] = 0
        linear = row_sum(weighted)
        mass = row_sum(y)  # 1, up to rounding
    np.exp(P, out=P)
    total = row_sum(P)
    losses = mass * np.log(total) - linear  # log(total) >= 0 >= linear: nothing cancels
    if not gradient:
        return losses, None
    total[largest == np.inf] = np.nan  # softmax has no value there
    P *= np.divide(mass, total)[:, None]
    if y.ndim == 1:
        P[rows, y] -= 1
    else:
        P -= y
    return losses, P


def _multiclass_hinge(Z: Array, y: Array, gradient: bool) -> Terms:
    rows = np.arange(len(Z))
    own = Z[rows, y]
    others = Z.copy()
    others[rows, y] = -np.inf
    rival = np.argmax(others, axis=1)  # the first of equals, and NaN before all
    slack = others[rows, rival] - own
    slack += 1
    losses = np.maximum(slack, 0)
    if not gradient:
        return losses, None
    grads = others  # no longer needed
    grads[...] = 0
    violated = slack > 0
    grads[rows, rival] = violated
    grads[rows, y] -= violated
    grads[np.isnan(slack)] = np.nan
    return losses, grads


_TERMS: dict[str, Callable[[Array, Array, bool], Terms]] = {
    "binary_cross_entropy": _binary_cross_entropy,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "multiclass_hinge": _multiclass_hinge,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "huber": lambda z, y, gradient: _huber(z, y, gradient, z.dtype.type(DELTA)),
    "poisson": _poisson,
}


def _sum(losses: Array, weights: Array | None) -> float:
    """Return Σ w·l in float64."""
    if weights is not None:
        losses = np.multiply(weights, losses, dtype=np.float64)
    return float(np.add.reduce(losses, dtype=np.float64))


def _of_one_score(
    terms: Callable[..., Terms],
    z: ArrayLike,
    y: ArrayLike,
    target: str,
    sample_weight: ArrayLike | None,
    reduction: str,
    *args: Any,
    gradient: bool = False,
) -> tuple[Any, Array]:
    mean = arguments.is_mean(reduction)
    z, y = arguments.scores_and_target(z, y, target, mean=mean)
    weights, total = checked_weights(sample_weight, len(z), z.dtype, mean=mean)
    return _reduced(terms, z, y, weights, total, reduction, *args, gradient=gradient)


def _reduced(
    terms: Callable[..., Terms],
    z: Array,
    y: Array,
    weights: Array | None,
    total: float,
    reduction: str,
    *args: Any,
    gradient: bool,
) -> tuple[Any, Array]:
    """Return Σ w·l / total, or w·l of every row, and the gradient of the sum over total, empty if not asked for.

    In blocks of rows: temporaries stay in cache and are not paged in anew.
    """
    of_rows = reduction == "none"
    value, values = 0.0, np.empty(len(z) if of_rows else 0, z.dtype)
    derivatives = np.empty(z.shape if gradient else 0, z.dtype)
    for rows in row_blocks(z):
        losses, grads = terms(z[rows], y[rows], gradient, *args)
        w = None if weights is None else weights[rows]
        if of_rows:
            values[rows] = losses if w is None else w * losses
        else:
            value += _sum(losses, w)
        if grads is None:
            continue
        if w is None:
            np.divide(grads, total, out=derivatives[rows])
        else:
            shares = np.divide(w, total, dtype=np.float64).astype(z.dtype)
            np.multiply(grads.T, shares, out=derivatives[rows].T)
    return values if of_rows else value / total, derivatives


@quiet
def binary_cross_entropy(
    z: ArrayLike,
    t: ArrayLike,
    *,
    pos_weight: float | None = None,
    label_smoothing: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Any:
    """Compute the mean of ``−t log σ(z) − (1−t) log(1−σ(z))``; see `kernels.binary_cross_entropy`."""
    return _logistic(z, t, pos_weight, label_smoothing, sample_weight, reduction, gradient=False)[0]


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
    """Compute `binary_cross_entropy` and ``(σ(z) − t) / n``; see `kernels.binary_cross_entropy_gradient`."""
    return _logistic(z, t, pos_weight, label_smoothing, sample_weight, reduction, gradient=True)


def _logistic(
    z: ArrayLike,
    t: ArrayLike,
    pos_weight: float | None,
    label_smoothing: float,
    sample_weight: ArrayLike | None,
    reduction: str,
    *,
    gradient: bool,
) -> tuple[Any, Array]:
    a = arguments.binary_cross_entropy(z, t, pos_weight, label_smoothing, sample_weight, reduction)
    return _reduced(_binary_cross_entropy, a.z, a.t, a.weight, a.total, reduction, a.pos_weight, gradient=gradient)


@quiet
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
    """Compute the mean of ``−log softmax(Z)[i, y[i]]``; see `kernels.softmax_cross_entropy`."""
    settled = arguments.cross_entropy(Z, y, class_weight, label_smoothing, ignore_index, sample_weight, reduction)
    Z, y, weight, divisor, options = settled
    return _reduced(_cross_entropy_of_options, Z, y, weight, divisor, reduction, options, gradient=False)[0]


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
    """Compute `softmax_cross_entropy` and its gradient; see `kernels.softmax_cross_entropy_gradient`."""
    settled = arguments.cross_entropy(Z, y, class_weight, label_smoothing, ignore_index, sample_weight, reduction)
    Z, y, weight, divisor, options = settled
    return _reduced(_cross_entropy_of_options, Z, y, weight, divisor, reduction, options, gradient=True)


def _cross_entropy_of_options(Z: Array, y: Array, gradient: bool, options: arguments.TargetOptions | None) -> Terms:
    if options is None:
        return _softmax_cross_entropy(Z, y, gradient)
    class_weight, smoothing, ignores = options
    if y.ndim == 2:
        T = y * (1 - smoothing)
    else:
        T = labels = np.maximum(y, 0)
        if smoothing > 0:
            T = np.zeros_like(Z)
            T[np.arange(len(T)), labels] = 1 - smoothing
    if T.ndim == 2:
        T += smoothing / Z.dtype.type(Z.shape[1])
        if class_weight is not None:
            T *= class_weight
    losses, grads = _softmax_cross_entropy(Z, T, gradient)
    if ignores:
        losses[y < 0] = 0
        if grads is not None:
            grads[y < 0] = 0
    return losses, grads


@quiet
def hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean") -> Any:
    """Compute the mean of ``max(0, 1 − y·z)``; see `kernels.hinge`."""
    return _of_one_score(_hinge, z, y, "sign", sample_weight, reduction)[0]


@quiet
def hinge_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """Compute `hinge` and its subgradient, ``−y/n`` where ``y·z < 1``, else 0; see `kernels.hinge_gradient`."""
    return _of_one_score(_hinge, z, y, "sign", sample_weight, reduction, gradient=True)


@quiet
def squared_hinge(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Compute the mean of ``max(0, 1 − y·z)²``, without a half; see `kernels.squared_hinge`."""
    return _of_one_score(_squared_hinge, z, y, "sign", sample_weight, reduction)[0]


@quiet
def squared_hinge_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """Compute `squared_hinge` and its gradient ``−2y·max(0, 1 − y·z) / n``; see `kernels.squared_hinge_gradient`."""
    return _of_one_score(_squared_hinge, z, y, "sign", sample_weight, reduction, gradient=True)


@quiet
def multiclass_hinge(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Compute the mean of ``max_j (Z[i, j] − Z[i, y] + 1[j ≠ y])``; see `kernels.multiclass_hinge`."""
    return _crammer_singer(Z, y, sample_weight, reduction, gradient=False)[0]


@quiet
def multiclass_hinge_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """Compute `multiclass_hinge` and a subgradient (Crammer and Singer); see `kernels.multiclass_hinge_gradient`."""
    return _crammer_singer(Z, y, sample_weight, reduction, gradient=True)


def _crammer_singer(
    Z: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, reduction: str, *, gradient: bool
) -> tuple[Any, Array]:
    mean = arguments.is_mean(reduction)
    Z, y = arguments.class_targets(Z, y, mean=mean)
    weights, total = checked_weights(sample_weight, len(Z), Z.dtype, mean=mean)
    return _reduced(_multiclass_hinge, Z, y, weights, total, reduction, gradient=gradient)


@quiet
def squared_error(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Compute the mean of ``(z − y)² / 2``; see `kernels.squared_error`."""
    return _of_one_score(_squared_error, z, y, "real", sample_weight, reduction)[0]


@quiet
def squared_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """Compute `squared_error` and its gradient ``(z − y) / n``; see `kernels.squared_error_gradient`."""
    return _of_one_score(_squared_error, z, y, "real", sample_weight, reduction, gradient=True)


@quiet
def absolute_error(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Compute the mean of ``|z − y|``; see `kernels.absolute_error`."""
    return _of_one_score(_absolute_error, z, y, "real", sample_weight, reduction)[0]


@quiet
def absolute_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """Compute `absolute_error` and its subgradient ``sign(z − y) / n``; see `kernels.absolute_error_gradient`."""
    return _of_one_score(_absolute_error, z, y, "real", sample_weight, reduction, gradient=True)


@quiet
def huber(
    z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> Any:
    """Compute the mean of ``r²/2`` where ``|r| ≤ δ``, else ``δ(|r| − δ/2)``, for ``r = z − y``; see `kernels.huber`."""
    z, y = arguments.scores_and_target(z, y, "real", mean=arguments.is_mean(reduction))
    threshold = scalars.checked_delta(delta, z.dtype)
    return _of_one_score(_huber, z, y, "real", sample_weight, reduction, threshold)[0]


@quiet
def huber_gradient(
    z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """Compute `huber` and its gradient, ``z − y`` cut to [−δ, δ], over n; see `kernels.huber_gradient`."""
    z, y = arguments.scores_and_target(z, y, "real", mean=arguments.is_mean(reduction))
    threshold = scalars.checked_delta(delta, z.dtype)
    return _of_one_score(_huber, z, y, "real", sample_weight, reduction, threshold, gradient=True)


@quiet
def poisson(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean") -> Any:
    """Compute the mean of ``e^z − y·z``; see `kernels.poisson`."""
    return _of_one_score(_poisson, z, y, "from 0", sample_weight, reduction)[0]


@quiet
def poisson_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, reduction: str = "mean"
) -> tuple[Any, Array]:
    """Compute `poisson` and its gradient ``(e^z − y) / n``; see `kernels.poisson_gradient`."""
    return _of_one_score(_poisson, z, y, "from 0", sample_weight, reduction, gradient=True)
