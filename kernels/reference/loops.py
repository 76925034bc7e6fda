"""Every kernel as plain Python loops: the formula, one number at a time.

Made to be read beside the formula, and to be trusted: a value is computed in Python's float
(float64) from the given numbers and rounded once to the dtype of the result, so that float32
input gives the float32 number nearest to the truth (uint8 distances are exact integers). That
also makes these loops good oracles. They are slow (about 50 ns per term), and hold rows as Python
lists (about 32 bytes per number).

Conventions in the code: a lower-case ``x``, ``y`` or ``z`` is one row or one number; a *term* is
what one row adds to a loss, as ``(value, derivative with respect to the score)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..arguments import arrays, scalars
from ..arguments.arrays import Array
from ..arguments.targets import weights as checked_weights
from ..convolution import arguments as convolution_arguments
from ..distances import arguments as distances_arguments
from ..distances import scales
from ..linear import arguments as linear_arguments
from ..losses import arguments as losses_arguments
from ..networks import arguments as networks_arguments

__all__ = [
    "absolute_error",
    "absolute_error_gradient",
    "avg_pool2d",
    "avg_pool2d_gradient",
    "batch_norm",
    "batch_norm_gradient",
    "binary_cross_entropy",
    "binary_cross_entropy_gradient",
    "conv2d",
    "conv2d_gradient",
    "exp",
    "hinge",
    "hinge_gradient",
    "huber",
    "huber_gradient",
    "k_nearest",
    "linear_evaluation",
    "linear_loss_gradient",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "max_pool2d_gradient",
    "multiclass_hinge",
    "multiclass_hinge_gradient",
    "network_loss_gradient",
    "network_scores",
    "pairwise",
    "pairwise_l1",
    "pairwise_l2",
    "pairwise_linf",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "softplus",
    "squared_error",
    "squared_error_gradient",
    "squared_hinge",
    "squared_hinge_gradient",
    "train_linear",
    "train_network",
]

Row = Sequence[float]

# Rounding a large float64 to float32 gives infinity, as it should: no need for NumPy to warn.
_quiet = np.errstate(over="ignore", invalid="ignore", under="ignore")


# -- distances -------------------------------------------------------------------------------------


def _l1(x: Row, y: Row) -> float:
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total += abs(a - b)
    return total


def _squared_l2(x: Row, y: Row) -> float:
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total += (a - b) * (a - b)
    return total


def _linf(x: Row, y: Row) -> float:
    largest = 0.0
    for a, b in zip(x, y, strict=True):
        difference = abs(a - b)
        # NaN is larger than nothing: once it is in, it must stay in.
        if difference > largest or math.isnan(difference):
            largest = difference
    return largest


_TOTALS: dict[str, Callable[[Row, Row], float]] = {"l1": _l1, "l2": _squared_l2, "linf": _linf}

# Rows times this power of two, or over it, have squares within the range of float64.
_SCALE = {np.dtype(np.float32): 1.0, np.dtype(np.float64): 2.0**600}


class _Distance(NamedTuple):
    """What neighbours are ordered by, `kind` before `total`, and what is returned.

    The total of L2 is the square: the root would merge close values. Pairs whose square leaves the range of the
    dtype are of another kind, -1 if it is too small and 1 if it is too large, and their square is that of scaled rows.
    """

    kind: int
    total: float
    distance: float
    square: float


def _distance(x: Row, y: Row, metric: distances_arguments.Metric, dtype: np.dtype[Any]) -> _Distance:
    exact = dtype == np.uint8 or metric != "l2"
    total = float(distances_arguments.result_dtype(metric, dtype, len(x), squared=True).type(_TOTALS[metric](x, y)))
    if exact:
        return _Distance(0, total, math.sqrt(total) if metric == "l2" else total, total)
    least, most = scales.ordinary(dtype, len(x))
    scale = _SCALE[dtype]
    if total < least:
        total = _squared_l2([(a - b) * scale for a, b in zip(x, y, strict=True)], [0.0] * len(x))
        return _Distance(-1, total, min(math.sqrt(total) / scale, math.sqrt(least)), min(total / scale / scale, least))
    if total > most:
        total = _squared_l2([a / scale for a in x], [b / scale for b in y])
        return _Distance(1, total, max(math.sqrt(total) * scale, math.sqrt(most)), math.inf)
    return _Distance(0, total, math.sqrt(total), total)


@_quiet
def pairwise(X: ArrayLike, Y: ArrayLike | None, norm: Callable[[Array], float]) -> Array:
    """Compute distances between rows under any norm: ``out[i, j] = norm(X[i] - Y[j])``.

    Parameters
    ----------
    X : array_like of shape (n, D)
    Y : array_like of shape (m, D), or None for `X`
    norm : callable
        Takes one difference vector (D,), of the dtype of the result, and returns a number.

    Returns
    -------
    ndarray of shape (n, m)
        float32 where the dtypes of `X` and `Y` settle to float32, else float64 (also for uint8,
        as a norm may be any real number).

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.kernels.reference import loops
    >>> loops.pairwise([[0, 0]], [[3, 4], [1, 1]], np.linalg.norm)
    array([[5.        , 1.41421356]])
    >>> loops.pairwise([[0, 0]], [[3, 4], [1, 1]], lambda v: (abs(v) ** 3).sum() ** (1 / 3))
    array([[4.49794145, 1.25992105]])
    """
    if not callable(norm):
        raise TypeError(f"norm is a {type(norm).__name__}; it must be callable on a difference vector")
    x, y, kind = distances_arguments.pair(X, Y)
    if kind == "uint8":  # whose differences would wrap around
        x, y = x.astype(np.float64), y.astype(np.float64)
    distances = np.empty((len(x), len(y)), x.dtype)
    for i in range(len(x)):
        for j in range(len(y)):
            distances[i, j] = norm(x[i] - y[j])
    return distances


def _pairwise(
    X: ArrayLike, Y: ArrayLike | None, metric: distances_arguments.Metric, squared: bool, out: Array | None
) -> Array:
    x, y, _ = distances_arguments.pair(X, Y)
    dtype = distances_arguments.result_dtype(metric, x.dtype, x.shape[1], squared)
    out = arrays.out(out, (len(x), len(y)), dtype, X, Y)
    rows, others = x.tolist(), y.tolist()
    for i, row in enumerate(rows):
        for j, other in enumerate(others):
            found = _distance(row, other, metric, x.dtype)
            out[i, j] = found.square if squared else found.distance
    return out


@_quiet
def pairwise_l1(X: ArrayLike, Y: ArrayLike | None = None, *, out: Array | None = None) -> Array:
    """Compute sums of absolute differences, ``out[i, j] = Σ_d |X[i, d] − Y[j, d]|``.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.pairwise_l1([[0, 0]], [[3, -4], [1, 1]])
    array([[7., 2.]])
    """
    return _pairwise(X, Y, "l1", False, out)


@_quiet
def pairwise_l2(X: ArrayLike, Y: ArrayLike | None = None, *, squared: bool = False, out: Array | None = None) -> Array:
    """Compute Euclidean distances, ``out[i, j] = √ Σ_d (X[i, d] − Y[j, d])²``.

    `squared` leaves out the root. Distances are right where their squares leave the range of the dtype, too.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.pairwise_l2([[0, 0]], [[3, -4]])
    array([[5.]])
    """
    return _pairwise(X, Y, "l2", scalars.flag(squared, "squared"), out)


@_quiet
def pairwise_linf(X: ArrayLike, Y: ArrayLike | None = None, *, out: Array | None = None) -> Array:
    """Compute largest absolute differences, ``out[i, j] = max_d |X[i, d] − Y[j, d]|``, 0 without columns.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.pairwise_linf([[0, 0]], [[3, -4]])
    array([[4.]])
    """
    return _pairwise(X, Y, "linf", False, out)


@_quiet
def k_nearest(
    X: ArrayLike, Y: ArrayLike | None, k: int, *, metric: str = "l2", exclude_self: bool = False
) -> tuple[Array, Array]:
    """Find the `k` rows of `Y` nearest to each row of `X`, by (distance, index), NaN last.

    L2 is ordered by the squared value, before the root; pairs whose square is below the range of the dtype
    come before all others, and those whose square is above it come last but for NaN. With `exclude_self`
    row i of `Y` is no neighbour of row i of `X`.

    Returns
    -------
    distances, indices : ndarrays of shape (n, k)

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.k_nearest([[0.0]], [[2.0], [-1.0], [1.0]], 2)
    (array([[1., 1.]]), array([[1, 2]]))
    """
    x, y, _ = distances_arguments.pair(X, Y)
    name = distances_arguments.metric(metric)
    k = distances_arguments.k(k, len(y), exclude_self, len(x))
    distances = np.empty((len(x), k), distances_arguments.result_dtype(name, x.dtype, x.shape[1]))
    indices = np.empty((len(x), k), np.intp)
    rows, others = x.tolist(), y.tolist()
    for i, row in enumerate(rows):
        keys = [_distance(row, other, name, x.dtype) for other in others]
        candidates = [j for j in range(len(others)) if not (exclude_self and j == i)]
        # The sort keeps the order of what is equal, so ties stay ordered by index. NaN compares
        # with nothing: it is sorted by being NaN, and then by index.
        candidates.sort(key=lambda j: (2, 0.0) if math.isnan(keys[j].total) else keys[j][:2])
        for rank, j in enumerate(candidates[:k]):
            indices[i, rank] = j
            distances[i, rank] = keys[j].distance
    return distances, indices


# -- elementwise functions -------------------------------------------------------------------------


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:  # Python raises where IEEE arithmetic says infinity
        return math.inf


def _log(x: float) -> float:
    return math.log(x) if x != 0 else -math.inf


def _sigmoid(z: float) -> float:
    # Only ever the exponential of a number <= 0, which cannot overflow.
    if z >= 0:
        return 1 / (1 + _exp(-z))
    e = _exp(z)
    return e / (1 + e)


def _softplus(z: float) -> float:
    # log(1 + e^z) = max(z, 0) + log(1 + e^-|z|): two summands >= 0, nothing cancels.
    return max(z, 0.0) + math.log1p(_exp(-abs(z)))


@_quiet
def _elementwise(function: Callable[[float], float], x: ArrayLike, name: str) -> Array:
    array = arrays.floating(x, name)
    values = [function(value) for value in array.ravel().tolist()]
    return np.array(values, array.dtype).reshape(array.shape)


def exp(x: ArrayLike) -> Array:
    """``e^x`` of every entry; infinite where it overflows.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.exp([0.0, 1000.0])
    array([ 1., inf])
    """
    return _elementwise(_exp, x, "x")


def sigmoid(z: ArrayLike) -> Array:
    """``1 / (1 + e^−z)`` of every entry.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.sigmoid([0.0, 1.0, -1000.0])
    array([0.5       , 0.73105858, 0.        ])
    """
    return _elementwise(_sigmoid, z, "z")


def softplus(z: ArrayLike) -> Array:
    """``log(1 + e^z)`` of every entry.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.softplus([0.0, 1000.0])
    array([6.93147181e-01, 1.00000000e+03])
    """
    return _elementwise(_softplus, z, "z")


# -- softmax family --------------------------------------------------------------------------------


def _softmax(z: Row) -> list[float]:
    # Taking the largest score off first changes nothing, and no exponential can overflow. A row
    # with +inf, or with nothing but -inf, has inf - inf here: NaN, in all entries.
    largest = max(z, default=0.0)
    exponentials = [_exp(score - largest) for score in z]
    total = sum(exponentials)
    return [e / total for e in exponentials]


def _log_sum_exp(z: Row) -> tuple[float, float]:
    """Return (shift, log Σ e^(z − shift)); their sum is log Σ e^z."""
    shift = max(z, default=-math.inf)
    if not math.isfinite(shift):
        shift = 0.0  # infinities have to stay what they are: inf - inf would be NaN
    total = 0.0
    for score in z:
        total += _exp(score - shift)
    return shift, _log(total)


def _log_softmax(z: Row) -> list[float]:
    shift, log_total = _log_sum_exp(z)
    return [(score - shift) - log_total for score in z]


def softmax(Z: ArrayLike) -> Array:
    """``e^Z[i, c] / Σ_j e^Z[i, j]``, row by row; infinities as `scipy.special.softmax`.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.softmax([[1000.0, 1000.0], [0.0, -1000.0]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    return _by_rows(_softmax, Z)


def log_softmax(Z: ArrayLike) -> Array:
    """``Z[i, c] − log Σ_j e^Z[i, j]``, row by row; infinities as `scipy.special.log_softmax`.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.log_softmax([[0.0, -1000.0]])
    array([[    0., -1000.]])
    """
    return _by_rows(_log_softmax, Z)


@_quiet
def _by_rows(function: Callable[[Row], list[float]], Z: ArrayLike) -> Array:
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty_like(Z)
    for i, z in enumerate(Z.tolist()):
        result[i] = function(z)
    return result


@_quiet
def logsumexp(Z: ArrayLike) -> Array:
    """``log Σ_j e^Z[i, j]`` of every row, ``−inf`` without columns; as `scipy.special.logsumexp`.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.logsumexp([[1000.0, 1000.0]])
    array([1000.69314718])
    """
    Z = arrays.floating(Z, "Z", 2)
    return np.array([sum(_log_sum_exp(z)) for z in Z.tolist()], Z.dtype)


# -- terms: what one row adds to a loss, and its derivative ----------------------------------------


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


# -- mean losses -----------------------------------------------------------------------------------

Term = Callable[[Any, Any], tuple[float, Any]]


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


@_quiet
def binary_cross_entropy_gradient(
    z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Mean of ``−t log σ(z) − (1−t) log(1−σ(z))``, and its gradient ``(σ(z) − t) / n``.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.binary_cross_entropy_gradient([0.0, 1e4], [1, 1])
    (0.34657359027997264, array([-0.25,  0.  ]))
    """
    z, t = losses_arguments.scores_and_target(z, t, "probability", "t")
    return _mean(_binary_cross_entropy, z, t, sample_weight)


def binary_cross_entropy(z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``−t log σ(z) − (1−t) log(1−σ(z))`` over logits `z` and targets `t` in [0, 1]."""
    return binary_cross_entropy_gradient(z, t, sample_weight=sample_weight)[0]


@_quiet
def softmax_cross_entropy_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Mean of ``−log softmax(Z)[i, y[i]]`` and its gradient ``(softmax(Z) − 1[c = y]) / n``.

    With target probabilities ``y`` (n, C): mean of ``−Σ_c y[i, c] log softmax(Z)[i, c]``.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.softmax_cross_entropy_gradient([[0.0, 0.0]], [1])
    (0.6931471805599453, array([[ 0.5, -0.5]]))
    """
    Z, y = losses_arguments.class_targets(Z, y, probabilities=True)
    return _mean(_softmax_cross_entropy, Z, y, sample_weight)


def softmax_cross_entropy(Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``−log softmax(Z)[i, y[i]]``; `y` class indices or target probabilities."""
    return softmax_cross_entropy_gradient(Z, y, sample_weight=sample_weight)[0]


@_quiet
def hinge_gradient(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> tuple[float, Array]:
    """Mean of ``max(0, 1 − y·z)`` and its subgradient: ``−y/n`` where ``y·z < 1``, else 0.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.hinge_gradient([0.5, 1.0], [1, 1])
    (0.25, array([-0.5,  0. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "sign")
    return _mean(_hinge, z, y, sample_weight)


def hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``max(0, 1 − y·z)`` over scores `z` and labels `y` in {−1, +1}."""
    return hinge_gradient(z, y, sample_weight=sample_weight)[0]


@_quiet
def squared_hinge_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Mean of ``max(0, 1 − y·z)²`` and its gradient ``−2y·max(0, 1 − y·z) / n``.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.squared_hinge_gradient([0.5, 1.0], [1, 1])
    (0.125, array([-0.5,  0. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "sign")
    return _mean(_squared_hinge, z, y, sample_weight)


def squared_hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``max(0, 1 − y·z)²`` (no half) over scores `z` and labels `y` in {−1, +1}."""
    return squared_hinge_gradient(z, y, sample_weight=sample_weight)[0]


@_quiet
def multiclass_hinge_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Mean of ``max_j (Z[i, j] − Z[i, y] + 1[j ≠ y])`` and a subgradient (Crammer and Singer).

    A row adds +1/n at its highest wrong class (the lowest index of equals) and −1/n at the true
    one; nothing where the true class attains the maximum.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.multiclass_hinge_gradient([[0.0, 0.5, 0.5]], [0])
    (1.5, array([[-1.,  1.,  0.]]))
    """
    Z, y = losses_arguments.class_targets(Z, y)
    return _mean(_multiclass_hinge, Z, y, sample_weight)


def multiclass_hinge(Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``max_j (Z[i, j] − Z[i, y] + 1[j ≠ y])`` over class indices `y`."""
    return multiclass_hinge_gradient(Z, y, sample_weight=sample_weight)[0]


@_quiet
def squared_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Mean of ``(z − y)² / 2`` and its gradient ``(z − y) / n``.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.squared_error_gradient([3.0, 0.0], [1.0, 0.0])
    (1.0, array([1., 0.]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean(_squared_error, z, y, sample_weight)


def squared_error(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``(z − y)² / 2``."""
    return squared_error_gradient(z, y, sample_weight=sample_weight)[0]


@_quiet
def absolute_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Mean of ``|z − y|`` and its subgradient ``sign(z − y) / n``, 0 where ``z = y``.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.absolute_error_gradient([3.0, 0.0], [1.0, 0.0])
    (1.0, array([0.5, 0. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean(_absolute_error, z, y, sample_weight)


def absolute_error(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``|z − y|``."""
    return absolute_error_gradient(z, y, sample_weight=sample_weight)[0]


@_quiet
def huber_gradient(
    z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Mean of ``r²/2`` where ``|r| ≤ δ``, else ``δ(|r| − δ/2)``, for ``r = z − y``; and its gradient.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.huber_gradient([1.0, 5.0], [0.0, 0.0], delta=2.0)
    (4.25, array([0.5, 1. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "real")
    threshold = float(scalars.checked_delta(delta, z.dtype))
    return _mean(lambda score, target: _huber(score, target, threshold), z, y, sample_weight)


def huber(z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None) -> float:
    """Mean of ``r²/2`` where ``|r| ≤ δ``, else ``δ(|r| − δ/2)``, for ``r = z − y``."""
    return huber_gradient(z, y, delta=delta, sample_weight=sample_weight)[0]


# -- linear models ---------------------------------------------------------------------------------

_TERMS: dict[str, Term] = {
    "binary_cross_entropy": _binary_cross_entropy,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "multiclass_hinge": _multiclass_hinge,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "huber": lambda z, y: _huber(z, y, 1.35),
}


def _dot(x: Row, w: Row) -> float:
    total = 0.0
    for a, b in zip(x, w, strict=True):
        total += a * b
    return total


@_quiet
def linear_loss_gradient(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
) -> tuple[float, Array, Any]:
    """Loss of the scores ``X @ W.T + b`` plus ``l2/2 · ‖W‖²``, with its gradient in `W` and `b`.

    For the losses over classes `W` is (C, D) and `b` (C,), for the others (D,) and a scalar; the
    gradients have the same shapes (a scalar is returned as a float). Huber has δ = 1.35.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.linear_loss_gradient("squared_error", [[1.0], [2.0]], [0.0, 0.0], [1.0], 0.0)
    (1.25, array([2.5]), 1.5)
    """
    x, targets, W, intercept, penalty, weights, total = linear_arguments.linear(loss, X, y, W, b, l2, sample_weight)
    term = _TERMS[loss]
    multiclass = W.ndim == 2
    # One row of weights per score; a binary or regression model has a single one.
    coefficients: list[list[float]] = W.tolist() if multiclass else [W.tolist()]
    intercepts: list[float] = intercept.tolist() if multiclass else [float(intercept)]
    classes, columns = len(coefficients), x.shape[1]
    value, dW, db = 0.0, [[0.0] * columns for _ in range(classes)], [0.0] * classes
    for i in range(len(x)):
        row, target = x[i].tolist(), targets[i].tolist()
        scores = [_dot(row, w) + shift for w, shift in zip(coefficients, intercepts, strict=True)]
        if multiclass:
            row_value, derivatives = term(scores, target)
        else:
            row_value, derivative = term(scores[0], target)
            derivatives = [derivative]
        share = (1.0 if weights is None else float(weights[i])) / total
        value += share * row_value
        for c in range(classes):
            slope = share * derivatives[c]
            db[c] += slope
            for d in range(columns):
                dW[c][d] += slope * row[d]
    if penalty > 0:
        for c in range(classes):
            for d in range(columns):
                value += float(penalty) / 2 * coefficients[c][d] * coefficients[c][d]
                dW[c][d] += float(penalty) * coefficients[c][d]
    if multiclass:
        return value, np.array(dW, x.dtype).reshape(W.shape), np.array(db, x.dtype)
    return value, np.array(dW[0], x.dtype), db[0]


# -- training --------------------------------------------------------------------------------------


@_quiet
def train_linear(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    order: ArrayLike,
    *,
    batch_size: int,
    steps: ArrayLike,
    l2: float = 0.0,
    l1: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    sample_weight: ArrayLike | None = None,
) -> tuple[Array, Any, Array]:
    """Train a linear model on ``X[order[:batch_size]]``, ``X[order[batch_size:2 * batch_size]]``, ….

    With the gradient g of a batch's mean loss plus ``l2/2 · ‖W‖²``: ``v ← momentum·v − step·g``, then
    ``W ← W + v`` (Nesterov: ``W ← W + momentum·v − step·g``), then every weight moves ``step·l1``
    towards zero, at most to it. `b` likewise, without penalties. Returns W, b and the batches' losses
    before their steps, without penalties.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.train_linear("squared_error", [[1.0], [2.0]], [1.0, 2.0], [0.0], 0.0, [1, 0], batch_size=1, steps=0.1)
    (array([0.44]), 0.24, array([2.  , 0.08]))
    """
    a = linear_arguments.training(
        loss, X, y, W, b, order, batch_size, steps, l2, l1, momentum, nesterov, sample_weight
    )  # fmt: skip
    x, targets, W, b, ridge, weights, _ = a.linear
    term, multiclass = _TERMS[loss], W.ndim == 2
    lasso, friction = float(a.l1), float(a.momentum)
    # The intercept is one more coefficient, of a column of ones.
    model: list[list[float]] = np.column_stack((W, b)).tolist() if multiclass else [[*W.tolist(), np.asarray(b).item()]]
    velocity = [[0.0] * len(row) for row in model]
    columns, losses = x.shape[1], []
    for batch, step in enumerate(a.steps.tolist()):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size].tolist()
        value, gradient = 0.0, [[0.0] * len(row) for row in model]
        for i in rows:
            row, target = [*x[i].tolist(), 1.0], targets[i].tolist()
            scores = [_dot(row, w) for w in model]
            if multiclass:
                row_value, derivatives = term(scores, target)
            else:
                row_value, derivative = term(scores[0], target)
                derivatives = [derivative]
            share = (1.0 if weights is None else float(weights[i])) / len(rows)
            value += share * row_value
            for c, derivative in enumerate(derivatives):
                for d, number in enumerate(row):
                    gradient[c][d] += share * derivative * number
        losses.append(value)
        for w, g, v in zip(model, gradient, velocity, strict=True):
            for d in range(columns + 1):
                penalised = d < columns
                move = step * (g[d] + float(ridge) * w[d] if penalised else g[d])
                v[d] = friction * v[d] - move
                w[d] += friction * v[d] - move if a.nesterov else v[d]
                if penalised and lasso > 0:
                    w[d] = _towards_zero(w[d], step * lasso)
    trained = np.array(model, x.dtype).reshape(len(model), columns + 1)
    coefficients = np.ascontiguousarray(trained[:, :columns])
    if multiclass:
        return coefficients, trained[:, columns].copy(), np.array(losses, np.float64)
    return coefficients[0], model[0][columns], np.array(losses, np.float64)


def _towards_zero(w: float, by: float) -> float:
    if math.isnan(w) or math.isnan(by):
        return math.nan
    return math.copysign(abs(w) - by, w) if abs(w) > by else 0.0


_SIGN_OF_CLASS_1 = {"binary_cross_entropy": 0.5, "hinge": 0.0, "squared_hinge": 0.0}


@_quiet
def linear_evaluation(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    delta: float = 1.35,
) -> tuple[Array, Array]:
    """Mean losses (M,) and scores (M,) of M linear models ``W`` (M, C, D), ``b`` (M, C).

    The score is the share of right predictions, or for regression the mean squared residual. Two
    classes: 1 where a row's score is 0 or more. More classes: the largest score, the lowest index of
    equals. A row with a NaN score is not right.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.linear_evaluation("hinge", [[1.0], [-1.0]], [1, 1], [[[2.0]], [[0.0]]], [[0.0], [0.0]])
    (array([1.5, 1. ]), array([0.5, 1. ]))
    """
    a = linear_arguments.evaluation(loss, X, y, W, b, sample_weight, delta)
    threshold = float(a.delta)
    term: Term = (lambda z, t: _huber(z, t, threshold)) if loss == "huber" else _TERMS[loss]
    models = a.W.tolist()
    losses, marks = [0.0] * len(models), [0.0] * len(models)
    for i in range(len(a.X)):
        row, target = a.X[i].tolist(), a.y[i].tolist()
        share = (1.0 if a.weight is None else float(a.weight[i])) / a.total
        for m, coefficients in enumerate(models):
            scores = [_dot(row, w) + float(shift) for w, shift in zip(coefficients, a.b[m], strict=True)]
            multiclass = loss in ("softmax_cross_entropy", "multiclass_hinge")
            losses[m] += share * term(scores if multiclass else scores[0], target)[0]
            if multiclass:
                true = target if isinstance(target, int) else target.index(max(target))
                mark = float(not any(math.isnan(z) for z in scores) and scores.index(max(scores)) == true)
            elif loss in _SIGN_OF_CLASS_1:
                positive = target >= _SIGN_OF_CLASS_1[loss]
                mark = float(scores[0] >= 0 if positive else scores[0] < 0)
            else:
                residual = scores[0] - target
                mark = residual * residual
            marks[m] += share * mark
    return np.array(losses, np.float64), np.array(marks, np.float64)


# -- networks --------------------------------------------------------------------------------------

#: Weights, one row for each unit, and intercepts of a layer.
Layer = tuple[list[list[float]], list[float]]

#: Scales, running means and running variances of the units of a normalised layer.
LoopNorm = tuple[list[float], list[float], list[float]]


def _activation(z: float, name: str) -> float:
    if name == "relu":
        return z if z > 0 or math.isnan(z) else 0.0
    if name == "tanh":
        return math.tanh(z)
    return _sigmoid(z) if name == "logistic" else z


def _slope(a: float, name: str) -> float:
    """Return the derivative of an activation function where its value is a."""
    if name == "relu":
        return float(a > 0)
    if name == "tanh":
        return 1 - a * a
    return a * (1 - a) if name == "logistic" else 1.0


def _network_term(loss: str, scores: list[float], target: Any) -> tuple[float, list[float]]:
    """Return the loss of a row, and its derivatives with respect to the scores."""
    if loss == "softmax_cross_entropy":
        return _softmax_cross_entropy(scores, target)
    terms = [_TERMS[loss](z, t) for z, t in zip(scores, target, strict=True)]
    return sum(value for value, _ in terms), [derivative for _, derivative in terms]


def _forward(
    row: list[float], layers: list[Layer], activation: str, norms: list[LoopNorm] | None = None
) -> list[list[float]]:
    """Return the values of all levels, from the row to the scores.

    With `norms` hidden layers are normalised by running means and variances.
    """
    levels = [row]
    for place, (W, b) in enumerate(layers):
        values = [_dot(levels[-1], w) for w in W]
        if norms is not None and place < len(layers) - 1:
            scales, means, variances = norms[place]
            for k in range(len(values)):
                values[k] = (
                    scales[k] * (values[k] - means[k]) / math.sqrt(variances[k] + networks_arguments.NORM_EPSILON)
                )
        values = [value + shift for value, shift in zip(values, b, strict=True)]
        last = place == len(layers) - 1
        levels.append(values if last else [_activation(z, activation) for z in values])
    return levels


def _add_gradient(
    loss: str, row: list[float], target: Any, layers: list[Layer], activation: str, share: float, gradient: list[Layer]
) -> float:
    """Add ``share`` times the gradient of a row's loss to `gradient`; return the loss."""
    levels = _forward(row, layers, activation)
    value, slopes = _network_term(loss, levels[-1], target)
    for place in range(len(layers) - 1, -1, -1):
        (W, _), (dW, db), inputs = layers[place], gradient[place], levels[place]
        below = [0.0] * len(inputs)
        for unit, slope in enumerate(slopes):
            db[unit] += share * slope
            for d, a in enumerate(inputs):
                dW[unit][d] += share * slope * a
                below[d] += slope * W[unit][d]
        if place > 0:
            slopes = [total * _slope(a, activation) for total, a in zip(below, inputs, strict=True)]
    return value


def _add_normalised_gradient(
    loss: str,
    rows: list[list[float]],
    targets: list[Any],
    layers: list[Layer],
    norms: list[LoopNorm],
    activation: str,
    shares: list[float],
    gradient: list[Layer],
    of_scales: list[list[float]],
    running_share: float,
) -> float:
    """As `_add_gradient` for rows of a batch over which hidden layers are normalised: all rows, level by level."""
    n, levels, kept = len(rows), [rows], []
    for place, (W, b) in enumerate(layers):
        values = [[_dot(row, w) for w in W] for row in levels[-1]]
        if place < len(layers) - 1:
            deviations = _normalise(values, norms[place], running_share)
            kept.append(([list(row) for row in values], deviations))
            for row in values:
                for k, (scale, shift) in enumerate(zip(norms[place][0], b, strict=True)):
                    row[k] = _activation(scale * row[k] + shift, activation)
        else:
            values = [[value + shift for value, shift in zip(row, b, strict=True)] for row in values]
        levels.append(values)
    total, slopes = 0.0, []
    for scores, target, share in zip(levels[-1], targets, shares, strict=True):
        value, of_row = _network_term(loss, scores, target)
        total += share * value
        slopes.append([share * slope for slope in of_row])
    for place in range(len(layers) - 1, -1, -1):
        (W, _), (dW, db) = layers[place], gradient[place]
        for k in range(len(W)):
            shift_slope = sum(row[k] for row in slopes)
            db[k] += shift_slope
            if place < len(layers) - 1:
                x, deviations = kept[place]
                scale_slope = sum(row[k] * x_row[k] for row, x_row in zip(slopes, x, strict=True))
                of_scales[place][k] += scale_slope
                factor = norms[place][0][k] / deviations[k]
                for row, x_row in zip(slopes, x, strict=True):
                    row[k] = factor * (row[k] - shift_slope / n - x_row[k] * scale_slope / n)
            for row, inputs in zip(slopes, levels[place], strict=True):
                for d, a in enumerate(inputs):
                    dW[k][d] += row[k] * a
        if place > 0:
            slopes = [
                [sum(slope * w[d] for slope, w in zip(row, W, strict=True)) * _slope(a, activation)
                 for d, a in enumerate(inputs)]
                for row, inputs in zip(slopes, levels[place], strict=True)
            ]  # fmt: skip
    return total


def _normalise(values: list[list[float]], norm: LoopNorm, running_share: float) -> list[float]:
    """Normalise each unit's values over the rows; let running statistics follow; return the deviations."""
    n, deviations = len(values), []
    _, running_means, running_variances = norm
    for k in range(len(running_means)):
        mean = sum(row[k] for row in values) / n
        for row in values:
            row[k] -= mean
        squares = sum(row[k] * row[k] for row in values)
        deviations.append(math.sqrt(squares / n + networks_arguments.NORM_EPSILON))
        for row in values:
            row[k] /= deviations[-1]
        running_means[k] += running_share * (mean - running_means[k])
        if n > 1:
            running_variances[k] += running_share * (squares / (n - 1) - running_variances[k])
    return deviations


def _zeros(layers: list[Layer]) -> list[Layer]:
    return [([[0.0] * len(w) for w in W], [0.0] * len(b)) for W, b in layers]


def _lists(layers: list[tuple[Array, Array]]) -> list[Layer]:
    return [(W.tolist(), b.tolist()) for W, b in layers]


def _norm_lists(norms: list[tuple[Array, Array, Array]] | None) -> list[LoopNorm] | None:
    return None if norms is None else [tuple(part.tolist() for part in norm) for norm in norms]


def _norm_zeros(norms: list[LoopNorm] | None) -> list[LoopNorm] | None:
    return None if norms is None else [tuple([0.0] * len(part) for part in norm) for norm in norms]  # type: ignore[misc]


def _flat(layers: list[Layer], dtype: Any, norms: list[LoopNorm] | None = None) -> Array:
    numbers = []
    for place, (W, b) in enumerate(layers):
        more = norms[place] if norms is not None and place < len(norms) else ()
        numbers += [number for row in (*W, b, *more) for number in row]
    return np.array(numbers, np.float64).astype(dtype)


@_quiet
def network_scores(
    X: ArrayLike, parameters: ArrayLike, units: Sequence[int], *, activation: str = "relu", batch_norm: bool = False
) -> Array:
    """Scores (n, C) of a network of fully connected layers.

    `units` are D, the units of each hidden layer, and C; `parameters` holds for each layer the weights (units,
    inputs), row by row, then the intercepts. Hidden layers apply `activation` to their values; with `batch_norm` to
    ``scale (z - mean) / sqrt(variance + 1e-5) + shift``: then the shifts stand for the intercepts, and scales, running
    means and running variances follow.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.network_scores([[1.0], [-2.0]], [1.0, 0.0, 3.0, 1.0], (1, 1, 1))
    array([[4.],
           [1.]])
    """
    X, found, normalised = networks_arguments.network_model(X, parameters, units, activation, batch_norm)
    layers, norms = _lists(found), _norm_lists(normalised)
    scores = [_forward(row, layers, activation, norms)[-1] for row in X.tolist()]
    return np.array(scores, np.float64).reshape(len(X), len(layers[-1][1])).astype(X.dtype)


@_quiet
def network_loss_gradient(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: Sequence[int],
    *,
    activation: str = "relu",
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    batch_norm: bool = False,
) -> tuple[float, Array]:
    """Loss of a network plus ``l2/2 · ‖W‖²``, and its gradient in all parameters, by backpropagation.

    With slopes s of a layer's units and its inputs a, ``dW = s aᵀ`` and ``db = s``; the slopes of the layer before are
    ``Wᵀ s`` times the derivative of the activation. Binary cross-entropy and squared error are summed over the scores.

    With `batch_norm` hidden layers are normalised over the rows: with x = (z - mean(z)) / d and d = sqrt(variance +
    1e-5), slopes s in ``scale x + shift`` become ``scale / d (s - mean(s) - x mean(s x))`` in z.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.network_loss_gradient("squared_error", [[1.0], [2.0]], [0.0, 0.0], [1.0, 0.0], (1, 1))
    (1.25, array([2.5, 1.5]))
    """
    a = networks_arguments.network(loss, X, y, parameters, units, activation, l2, sample_weight, batch_norm)
    layers, norms, n, penalty = _lists(a.layers), _norm_lists(a.norms), len(a.X), float(a.l2)
    gradient, value, of_norms = _zeros(layers), 0.0, _norm_zeros(norms)
    shares = [(1.0 if a.weight is None else float(a.weight[i])) / n for i in range(n)]
    if norms is not None and of_norms is not None:
        of_scales = [scales for scales, _, _ in of_norms]
        value = _add_normalised_gradient(
            loss, a.X.tolist(), a.y.tolist(), layers, norms, activation, shares, gradient, of_scales, 0.0
        )
    else:
        for row, target, share in zip(a.X.tolist(), a.y.tolist(), shares, strict=True):
            value += share * _add_gradient(loss, row, target, layers, activation, share, gradient)
    for (W, _), (dW, _) in zip(layers, gradient, strict=True):
        for w, dw in zip(W, dW, strict=True):
            for d, number in enumerate(w):
                value += penalty / 2 * number * number
                dw[d] += penalty * number
    return value, _flat(gradient, a.X.dtype, of_norms)


@_quiet
def train_network(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: Sequence[int],
    order: ArrayLike,
    *,
    batch_size: int,
    steps: ArrayLike,
    activation: str = "relu",
    l2: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    sample_weight: ArrayLike | None = None,
    batch_norm: bool = False,
) -> tuple[Array, Array]:
    """Train a network on ``X[order[:batch_size]]``, ``X[order[batch_size:2 * batch_size]]``, ….

    With the gradient g of a batch's mean loss plus ``l2/2 · ‖W‖²``: ``v ← momentum·v − step·g``, then ``p ← p + v``
    (Nesterov: ``p ← p + momentum·v − step·g``). Returns the parameters, and the batches' losses before their steps,
    without penalty. With `batch_norm` running means and variances move a tenth of the way to those of each batch.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> X, y = [[1.0], [2.0]], [1.0, 2.0]
    >>> loops.train_network("squared_error", X, y, [0.0, 0.0], (1, 1), [1, 0], batch_size=1, steps=0.1)
    (array([0.44, 0.24]), array([2.  , 0.08]))
    """
    a = networks_arguments.network_training(
        loss, X, y, parameters, units, order, batch_size, steps, activation, l2, momentum, nesterov, sample_weight,
        batch_norm,
    )  # fmt: skip
    x, y, given, ridge, weights, normalised = a.network
    layers, norms, friction = _lists(given), _norm_lists(normalised), float(a.momentum)
    velocity, of_norms, losses = _zeros(layers), _norm_zeros(norms), []
    for batch, step in enumerate(a.steps.tolist()):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size].tolist()
        gradient, value = _zeros(layers), 0.0
        shares = [(1.0 if weights is None else float(weights[i])) / len(rows) for i in rows]
        scales: list[tuple[list[list[float]], ...]] = []
        if norms is not None and of_norms is not None:
            of_scales = [[0.0] * len(part) for part, _, _ in norms]
            value = _add_normalised_gradient(
                loss, x[rows].tolist(), y[rows].tolist(), layers, norms, activation, shares, gradient, of_scales,
                networks_arguments.NORM_SHARE,
            )  # fmt: skip
            scales = [([part], [g], [v]) for (part, *_), g, (v, *_) in zip(norms, of_scales, of_norms, strict=True)]
        else:
            for i, share in zip(rows, shares, strict=True):
                value += share * _add_gradient(loss, x[i].tolist(), y[i].tolist(), layers, activation, share, gradient)
        losses.append(value)
        parts = [
            ([*W, b], [*dW, db], [*vW, vb])
            for (W, b), (dW, db), (vW, vb) in zip(layers, gradient, velocity, strict=True)
        ]
        for ws, gs, vs in [*parts, *scales]:
            penalties = [*[float(ridge)] * (len(ws) - 1), 0.0]
            for w, g, v, penalty in zip(ws, gs, vs, penalties, strict=True):
                for d in range(len(w)):
                    move = step * (g[d] + penalty * w[d])
                    v[d] = friction * v[d] - move
                    w[d] += friction * v[d] - move if a.nesterov else v[d]
    return _flat(layers, x.dtype, norms), np.array(losses, np.float64)


# -- images ----------------------------------------------------------------------------------------


def _terms(
    a: convolution_arguments.Convolution,
) -> Iterator[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]:
    """Yield for each product of a convolution (channel out, y, x, dy) and (channel in, row, column, dx)."""
    channels, channels_in, size, _ = a.W.shape
    height, width = _places(a.X.shape, size, a.stride, a.padding)
    for o, c, dy, dx in product(range(channels), range(channels_in), range(size), range(size)):
        for y, x in product(range(height), range(width)):
            row, column = y * a.stride + dy - a.padding, x * a.stride + dx - a.padding
            if 0 <= row < a.X.shape[2] and 0 <= column < a.X.shape[3]:
                yield (o, y, x, dy), (c, row, column, dx)


def _places(shape: tuple[int, ...], size: int, stride: int, padding: int = 0) -> tuple[int, int]:
    """Return how many places a window has, down and to the right."""
    height, width = ((length + 2 * padding - size) // stride + 1 for length in shape[2:])
    return height, width


def _nested(*shape: int) -> Any:
    """Return nested lists of 0."""
    return [_nested(*shape[1:]) for _ in range(shape[0])] if len(shape) > 1 else [0.0] * shape[0]


def _images(values: list[Any], shape: tuple[int, ...], dtype: Any) -> Array:
    return np.array(values, np.float64).reshape(shape).astype(dtype)


@_quiet
def conv2d(X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, stride: int = 1, padding: int = 0) -> Array:
    """Each pixel of the result is a sum over the pixels that the kernel lies on, and all channels.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.conv2d([[[[1.0, 2.0, 4.0]]]], [[[[3.0]]]], [1.0])
    array([[[[ 4.,  7., 13.]]]])
    """
    a = convolution_arguments.convolution(X, W, b, stride, padding)
    shape = (len(a.X), len(a.W), *_places(a.X.shape, a.W.shape[2], a.stride, a.padding))
    weights, shifts, terms, result = a.W.tolist(), a.b.tolist(), list(_terms(a)), []
    for image in a.X.tolist():
        z = [[[shift] * shape[3] for _ in range(shape[2])] for shift in shifts]
        for (o, y, x, dy), (c, row, column, dx) in terms:
            z[o][y][x] += weights[o][c][dy][dx] * image[c][row][column]
        result.append(z)
    return _images(result, shape, a.X.dtype)


@_quiet
def conv2d_gradient(
    dZ: ArrayLike, X: ArrayLike, W: ArrayLike, *, stride: int = 1, padding: int = 0
) -> tuple[Array, Array, Array]:
    """Gradient in X, W and b: each product of `conv2d` is a term of two of them.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.conv2d_gradient([[[[1.0, 0.0, 2.0]]]], [[[[1.0, 2.0, 4.0]]]], [[[[3.0]]]])
    (array([[[[3., 0., 6.]]]]), array([[[[9.]]]]), array([3.]))
    """
    a = convolution_arguments.convolution(X, W, None, stride, padding)
    shape = (len(a.X), len(a.W), *_places(a.X.shape, a.W.shape[2], a.stride, a.padding))
    weights, terms = a.W.tolist(), list(_terms(a))
    dX, dW, db = [], _nested(*a.W.shape), [0.0] * len(a.W)
    slopes = convolution_arguments.output_gradient(dZ, shape, a.X.dtype).tolist()
    for image, of_image in zip(a.X.tolist(), slopes, strict=True):
        dx_image = _nested(*a.X.shape[1:])
        for (o, y, x, dy), (c, row, column, dx) in terms:
            d = of_image[o][y][x]
            dx_image[c][row][column] += weights[o][c][dy][dx] * d
            dW[o][c][dy][dx] += image[c][row][column] * d
        for o, lines in enumerate(of_image):
            db[o] += sum(map(sum, lines))
        dX.append(dx_image)
    dtype = a.X.dtype
    return _images(dX, a.X.shape, dtype), _images(dW, a.W.shape, dtype), np.array(db, np.float64).astype(dtype)


def _windows(a: convolution_arguments.Pooling) -> Iterator[tuple[int, int, int, list[tuple[int, int]]]]:
    """Yield channel and place of each window, and the pixels in it."""
    height, width = _places(a.X.shape, a.size, a.stride)
    for c, y, x in product(range(a.X.shape[1]), range(height), range(width)):
        yield c, y, x, [(y * a.stride + dy, x * a.stride + dx) for dy in range(a.size) for dx in range(a.size)]


def _first_largest(values: list[float]) -> int:
    """Return the place of the first NaN, else of the first of the largest."""
    for place, value in enumerate(values):
        if value != value:
            return place
    return values.index(max(values))


def _pool(a: convolution_arguments.Pooling, of_window: Callable[[list[float]], float]) -> Array:
    shape = (*a.X.shape[:2], *_places(a.X.shape, a.size, a.stride))
    windows, result = list(_windows(a)), []
    for image in a.X.tolist():
        result.append([of_window([image[c][row][column] for row, column in pixels]) for c, _, _, pixels in windows])
    return _images(result, shape, a.X.dtype)


def _pool_gradient(
    dZ: ArrayLike, a: convolution_arguments.Pooling, shares: Callable[[list[float]], list[float | None]]
) -> Array:
    shape = (*a.X.shape[:2], *_places(a.X.shape, a.size, a.stride))
    windows, result = list(_windows(a)), []
    slopes = convolution_arguments.output_gradient(dZ, shape, a.X.dtype).tolist()
    for image, of_image in zip(a.X.tolist(), slopes, strict=True):
        dx_image = _nested(*a.X.shape[1:])
        for c, y, x, pixels in windows:
            of_pixels = shares([image[c][row][column] for row, column in pixels])
            for (row, column), share in zip(pixels, of_pixels, strict=True):
                if share is not None:
                    dx_image[c][row][column] += share * of_image[c][y][x]
        result.append(dx_image)
    return _images(result, a.X.shape, a.X.dtype)


@_quiet
def max_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Largest value of each window; NaN where there is one.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.max_pool2d([[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[4.]]]])
    """
    return _pool(convolution_arguments.pooling(X, size, stride), lambda values: values[_first_largest(values)])


@_quiet
def max_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X: a slope goes to the first of the largest values.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.max_pool2d_gradient([[[[5.0]]]], [[[[1.0, 2.0], [4.0, 4.0]]]])
    array([[[[0., 0.],
             [5., 0.]]]])
    """

    def shares(values: list[float]) -> list[float | None]:
        largest = _first_largest(values)
        return [1.0 if place == largest else None for place in range(len(values))]

    return _pool_gradient(dZ, convolution_arguments.pooling(X, size, stride), shares)


@_quiet
def avg_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Mean of each window.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.avg_pool2d([[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[2.5]]]])
    """
    return _pool(convolution_arguments.pooling(X, size, stride), lambda values: sum(values) / len(values))


@_quiet
def avg_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X, of which the shape matters only: a slope goes to all pixels of its window alike.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.avg_pool2d_gradient([[[[4.0]]]], [[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[1., 1.],
             [1., 1.]]]])
    """
    return _pool_gradient(
        dZ, convolution_arguments.pooling(X, size, stride), lambda values: [1 / len(values)] * len(values)
    )


def _of_channels(X: Array) -> list[list[float]]:
    """Return the values of each channel."""
    values: list[list[float]] = X.transpose(1, 0, 2, 3).reshape(X.shape[1], -1).tolist()
    return values


def _as_images(channels: list[list[float]], like: Array) -> Array:
    shape = (like.shape[1], like.shape[0], *like.shape[2:])
    return np.ascontiguousarray(np.array(channels, np.float64).reshape(shape).transpose(1, 0, 2, 3).astype(like.dtype))


def _standard(values: list[float], epsilon: float) -> tuple[list[float], float]:
    """Return values less their mean, times a factor, and that."""
    mean = math.fsum(values) / len(values)
    factor = 1 / math.sqrt(math.fsum((x - mean) ** 2 for x in values) / len(values) + epsilon)
    return [(x - mean) * factor for x in values], factor


@_quiet
def batch_norm(X: ArrayLike, gamma: ArrayLike, beta: ArrayLike, *, epsilon: float = 1e-5) -> Array:
    """Each channel less its mean, over the root of its variance and epsilon, times gamma plus beta.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> loops.batch_norm([[[[1.0, 3.0]]]], [2.0], [1.0], epsilon=1e-12).round(6)
    array([[[[-1.,  3.]]]])
    """
    a = convolution_arguments.normalization(X, gamma, beta, epsilon)
    result = []
    for values, factor, shift in zip(_of_channels(a.X), a.gamma.tolist(), a.beta.tolist(), strict=True):
        result.append([factor * x + shift for x in _standard(values, a.epsilon)[0]])
    return _as_images(result, a.X)


@_quiet
def batch_norm_gradient(
    dZ: ArrayLike, X: ArrayLike, gamma: ArrayLike, *, epsilon: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradient in X, gamma and beta.

    Examples
    --------
    >>> from fastml.kernels.reference import loops
    >>> dX, dgamma, dbeta = loops.batch_norm_gradient([[[[1.0, 2.0]]]], [[[[1.0, 3.0]]]], [2.0], epsilon=1e-12)
    >>> dX.round(6) + 0.0, dgamma.round(6), dbeta
    (array([[[[0., 0.]]]]), array([1.]), array([3.]))
    """
    a = convolution_arguments.normalization(X, gamma, None, epsilon)
    dZ = convolution_arguments.output_gradient(dZ, a.X.shape, a.X.dtype)
    dX, dgamma, dbeta = [], [], []
    for values, slopes, weight in zip(_of_channels(a.X), _of_channels(dZ), a.gamma.tolist(), strict=True):
        standard, factor = _standard(values, a.epsilon)
        dgamma.append(math.fsum(d * x for d, x in zip(slopes, standard, strict=True)))
        dbeta.append(math.fsum(slopes))
        mean, along = dbeta[-1] / len(values), dgamma[-1] / len(values)
        dX.append([weight * factor * (d - mean - x * along) for d, x in zip(slopes, standard, strict=True)])
    dtype = a.X.dtype
    return _as_images(dX, a.X), np.array(dgamma).astype(dtype), np.array(dbeta).astype(dtype)
