"""Every kernel in NumPy, as one would write it for use.

Stable forms, no temporary larger than it must be, work cut into blocks that stay in cache, BLAS
where its result is exact enough. This is the yardstick that the compiled tier has to beat.

Distances between floats are computed by direct differences, in blocks: a temporary of
n × m × D is never made. The well-known way to fast L2 distances, ``|x|² + |y|² − 2 x·y`` by one
matrix product, is some twenty times faster, but it cancels: for two points at 10⁴ that are 10⁻³ apart
no digit is left in float32, it can come out negative, and its last bits depend on what else is in
the batch. `gemm_squared_l2` has it, for comparison. Between uint8 rows that same product is exact
in float64 (all sums are integers below 2⁵³), so there `pairwise_l2` uses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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

# Entries of a block of differences or rows: half a megabyte of float32, which stays in an L2 cache.
_BLOCK = 1 << 17
# Entries of a block of distances in `k_nearest`, and of a matrix product between uint8 rows.
_DISTANCES = 1 << 20
# Up to here rows are reduced column by column: NumPy's reduction costs some 50 ns for every row.
_NARROW = 32

# Infinities and NaN go through by IEEE arithmetic; both branches of a `where` are computed.
_quiet = np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")


# -- distances -------------------------------------------------------------------------------------


def _keys(X: Array, Y: Array, metric: distances_arguments.Metric, out: Array) -> None:
    """Write to `out` (n, m) what neighbours are ordered by: L1, L-inf, or the *squared* L2.

    Every entry is computed from its two rows by the same operations in the same order wherever
    it lies in a block: each reduction runs along the columns of one pair.
    """
    if X.dtype == np.uint8 and metric == "l2":
        _exact_squared_l2(X, Y, out)
        return
    n, m, columns = len(X), len(Y), X.shape[1]
    # As many rows of Y as fill a block, and if they all fit, several rows of X at once.
    height = max(1, min(m, _BLOCK // max(1, columns)))
    width = max(1, min(n, _BLOCK // max(1, height * columns)))
    buffer = np.empty((width, height, columns), X.dtype)
    lower = np.empty_like(buffer) if X.dtype == np.uint8 else buffer
    for j in range(0, m, height):
        y = Y[j : j + height]
        for i in range(0, n, width):
            x = X[i : i + width, None]
            difference = buffer[: len(x), : len(y)]
            if X.dtype == np.uint8:  # a plain difference would wrap around
                smaller = lower[: len(x), : len(y)]
                np.minimum(x, y, out=smaller)
                np.maximum(x, y, out=difference)
                np.subtract(difference, smaller, out=difference)
            else:
                np.subtract(x, y, out=difference)
            target = out[i : i + width, j : j + height]
            if metric == "l2":
                np.multiply(difference, difference, out=difference)
            else:
                np.abs(difference, out=difference)
            if metric == "linf":
                target[...] = np.maximum.reduce(difference, axis=-1, initial=0)
            else:  # pairwise summation; a BLAS dot product is faster, but free to look at alignment
                np.add.reduce(difference, axis=-1, dtype=out.dtype, out=target)


def _totals_again(X: Array, Y: Array, i: Array, j: Array, large: bool) -> Array:
    """Compute squared L2 distances of the pairs (X[i], Y[j]) in another scale, in float64."""
    totals = np.empty(i.size)
    step = max(1, _BLOCK // max(1, X.shape[1]))
    for first in range(0, i.size, step):
        some = slice(first, first + step)
        difference = scales.rescaled(X[i[some]], large) - scales.rescaled(Y[j[some]], large)
        totals[some] = np.add.reduce(difference * difference, axis=1)
    return totals


def _finish_l2(X: Array, Y: Array, keys: Array, squared: bool = False) -> dict[int, Array]:
    """Turn squared L2 distances between floats into distances, in place, or leave them `squared`.

    Those whose square left the range of the dtype are made again. Of the rows that have such pairs the order of all
    pairs is returned, as ranks: it is no longer that of the squares alone.
    """
    least, most = scales.ordinary(X.dtype, X.shape[1])
    odd = {large: np.nonzero(keys > most if large else keys < least) for large in (False, True)}
    totals = {large: _totals_again(X, Y, i, j, large) for large, (i, j) in odd.items()}
    kinds, values = {}, {}
    for large, (i, _) in odd.items():
        for row in np.unique(i[(totals[large] > 0) & (totals[large] < np.inf)]).tolist():  # not of equal rows
            kinds[row] = np.select([keys[row] < least, keys[row] <= most, keys[row] > most], [0, 1, 2], default=3)
            values[row] = keys[row].astype(np.float64)
    if not squared:
        np.sqrt(keys, out=keys)
    for large, (i, j) in odd.items():
        if not squared:
            keys[i, j] = scales.distances(totals[large], large, X.dtype, X.shape[1])
        elif not large:
            keys[i, j] = scales.squares(totals[large], X.dtype, X.shape[1])
        for row, value in values.items():
            value[j[i == row]] = totals[large][i == row]
    return {row: np.argsort(np.lexsort((values[row], kinds[row]))) for row in values}


def _exact_squared_l2(X: Array, Y: Array, out: Array) -> None:
    """Write squared distances between uint8 rows by a matrix product in float64, which is exact."""
    step = math.isqrt(_DISTANCES)
    for i in range(0, len(X), step):
        x = X[i : i + step].astype(np.float64)
        x_squares = np.vecdot(x, x)[:, None]
        for j in range(0, len(Y), step):
            y = Y[j : j + step].astype(np.float64)
            squares = x @ y.T
            squares *= -2
            squares += x_squares
            squares += np.vecdot(y, y)
            out[i : i + step, j : j + step] = squares


@_quiet
def _pairwise(
    X: ArrayLike, Y: ArrayLike | None, metric: distances_arguments.Metric, squared: bool, out: Array | None
) -> Array:
    x, y, kind = distances_arguments.pair(X, Y)
    columns = x.shape[1]
    dtype = distances_arguments.result_dtype(metric, x.dtype, columns, squared)
    out = arrays.out(out, (len(x), len(y)), dtype, X, Y)
    root = metric == "l2" and not squared
    if root and kind == "uint8":  # exact integers first, in blocks of rows
        exact = distances_arguments.result_dtype(metric, x.dtype, columns, squared=True)
        step = max(1, _DISTANCES // max(1, len(y)))
        for i in range(0, len(x), step):
            keys = np.empty((len(x[i : i + step]), len(y)), exact)
            _keys(x[i : i + step], y, metric, keys)
            out[i : i + step] = np.sqrt(keys, dtype=np.float64)
        return out
    _keys(x, y, metric, out)
    if metric == "l2" and kind != "uint8":
        step = max(1, _DISTANCES // max(1, len(y)))
        for i in range(0, len(x), step):
            _finish_l2(x[i : i + step], y, out[i : i + step], squared)
    return out


def pairwise_l1(X: ArrayLike, Y: ArrayLike | None = None, *, out: Array | None = None) -> Array:
    """Compute sums of absolute differences, ``out[i, j] = Σ_d |X[i, d] − Y[j, d]|``.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.pairwise_l1([[0, 0]], [[3, -4], [1, 1]])
    array([[7., 2.]])
    """
    return _pairwise(X, Y, "l1", False, out)


def pairwise_l2(X: ArrayLike, Y: ArrayLike | None = None, *, squared: bool = False, out: Array | None = None) -> Array:
    """Compute Euclidean distances, ``out[i, j] = √ Σ_d (X[i, d] − Y[j, d])²``.

    `squared` leaves out the root. Distances are right where their squares leave the range of the dtype, too.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.pairwise_l2([[0, 0]], [[3, -4]])
    array([[5.]])
    """
    return _pairwise(X, Y, "l2", scalars.flag(squared, "squared"), out)


def pairwise_linf(X: ArrayLike, Y: ArrayLike | None = None, *, out: Array | None = None) -> Array:
    """Compute largest absolute differences, ``out[i, j] = max_d |X[i, d] − Y[j, d]|``.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.pairwise_linf([[0, 0]], [[3, -4]])
    array([[4.]])
    """
    return _pairwise(X, Y, "linf", False, out)


@_quiet
def gemm_squared_l2(X: ArrayLike, Y: ArrayLike | None = None) -> Array:
    """Compute ``|x|² + |y|² − 2 x·y`` by one matrix product: fast, and inexact for near points.

    No twin of a kernel: it is here to be compared with. Its error is about
    ``eps · (|x|² + |y|²)``, whatever the distance; a negative result is cut to 0.

    Examples
    --------
    Two points 0.25 apart, at 10,000, in float32:

    >>> import numpy as np
    >>> from fastml.kernels.reference import vectorized
    >>> x, y = np.float32([[1e4, 1e4]]), np.float32([[1e4, 1e4 + 0.25]])
    >>> float(vectorized.pairwise_l2(x, y, squared=True)[0, 0])
    0.0625
    >>> float(vectorized.gemm_squared_l2(x, y)[0, 0]) in (0.0, 16.0)
    True
    """
    x, y, kind = distances_arguments.pair(X, Y)
    if kind == "uint8":
        x, y = x.astype(np.float64), y.astype(np.float64)
    squares = x @ y.T
    squares *= -2
    squares += np.vecdot(x, x)[:, None]
    squares += np.vecdot(y, y)
    return np.maximum(squares, 0, out=squares)


@_quiet
def k_nearest(
    X: ArrayLike, Y: ArrayLike | None, k: int, *, metric: str = "l2", exclude_self: bool = False
) -> tuple[Array, Array]:
    """Find the `k` rows of `Y` nearest to each row of `X`, by (distance, index), NaN last.

    Blocks of rows of X, so that at most about a million distances (or one row of them) exist at a
    time. L2 is ordered by the squared value, before the root; pairs whose square is below the range of the dtype
    come before all others, and those whose square is above it come last but for NaN.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.k_nearest([[0.0]], [[2.0], [-1.0], [1.0]], 2)
    (array([[1., 1.]]), array([[1, 2]]))
    """
    x, y, kind = distances_arguments.pair(X, Y)
    name = distances_arguments.metric(metric)
    n, m, columns = len(x), len(y), x.shape[1]
    k = distances_arguments.k(k, m, exclude_self, n)
    key_dtype = distances_arguments.result_dtype(name, x.dtype, columns, squared=True)
    distances = np.empty((n, k), distances_arguments.result_dtype(name, x.dtype, columns))
    indices = np.empty((n, k), np.intp)
    step = max(1, min(n, _DISTANCES // max(1, m)))
    block = np.empty((step, m), key_dtype)
    for i in range(0, n, step):
        keys = block[: len(x[i : i + step])]
        _keys(x[i : i + step], y, name, keys)
        own = keys
        if name == "l2" and kind != "uint8":
            own = keys.copy()
            if ranks := _finish_l2(x[i : i + step], y, own):
                keys = keys.astype(np.float64)
                for row, rank in ranks.items():
                    keys[row] = rank
        elif name == "l2":
            own = np.sqrt(keys, dtype=np.float64)
        if exclude_self:
            rows = np.arange(len(keys))
            others = np.ones(keys.shape, bool)
            others[rows, i + rows] = False
            keys = keys[others].reshape(len(keys), m - 1)
            nearest = _smallest(keys, k)
            nearest += nearest >= (i + rows)[:, None]  # to the right of the column left out
        else:
            nearest = _smallest(keys, k)
        indices[i : i + step] = nearest
        distances[i : i + step] = np.take_along_axis(own, nearest, axis=1)
    return distances, indices


def _smallest(keys: Array, k: int) -> Array:
    """Return the columns of the `k` smallest of each row, by (value, column), NaN last."""
    columns = np.argpartition(keys, k - 1, axis=1)[:, :k]
    columns.sort(axis=1)  # so that the stable sort below puts equal values in order of column
    values = np.take_along_axis(keys, columns, axis=1)
    order = np.argsort(values, axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    # Where the k-th value occurs more often than it was taken, the partition took any of its
    # columns; and NaN compares with nothing. Such rows are few: sort them in full.
    unclear = np.flatnonzero(np.count_nonzero(keys <= values[:, -1:], axis=1) != k)
    if unclear.size:
        columns[unclear] = np.argsort(keys[unclear], axis=1, kind="stable")[:, :k]
    return columns


# -- elementwise functions -------------------------------------------------------------------------


@_quiet
def exp(x: ArrayLike) -> Array:
    """Compute ``e^x`` of every entry; infinite where it overflows.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.exp([0.0, 1000.0])
    array([ 1., inf])
    """
    x = arrays.floating(x, "x")
    return np.exp(x, out=np.empty_like(x))


@_quiet
def sigmoid(z: ArrayLike) -> Array:
    """Compute ``1 / (1 + e^−z) = e^min(z, 0) / (1 + e^−|z|)`` of every entry.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.sigmoid([0.0, 1.0, -1000.0])
    array([0.5       , 0.73105858, 0.        ])
    """
    z = arrays.floating(z, "z")
    result, other = _exp_both_sides(z)
    other *= result
    other += 1
    result /= other
    return result


@_quiet
def softplus(z: ArrayLike) -> Array:
    """Compute ``log(1 + e^z) = max(z, 0) + log(1 + e^−|z|)`` of every entry.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.softplus([0.0, 1000.0])
    array([6.93147181e-01, 1.00000000e+03])
    """
    z = arrays.floating(z, "z")
    result = np.abs(z, out=np.empty_like(z))
    np.negative(result, out=result)
    np.exp(result, out=result)
    np.log1p(result, out=result)
    result += np.maximum(z, 0)
    return result


def _exp_both_sides(z: Array) -> tuple[Array, Array]:
    """Return e^min(z, 0) and e^min(−z, 0): one of each pair is 1, their product is e^−|z|.

    A second exponential costs less than a `where`, whose branches no predictor can guess.
    """
    up = np.minimum(z, 0, out=np.empty_like(z))
    np.exp(up, out=up)
    down = np.maximum(z, 0, out=np.empty_like(z))
    np.negative(down, out=down)
    np.exp(down, out=down)
    return up, down


# -- softmax family --------------------------------------------------------------------------------


@_quiet
def softmax(Z: ArrayLike) -> Array:
    """Compute ``e^Z[i, c] / Σ_j e^Z[i, j]``, row by row; infinities as `scipy.special.softmax`.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.softmax([[1000.0, 1000.0], [0.0, -1000.0]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty_like(Z)
    for rows in _row_blocks(Z):
        P = np.subtract(Z[rows], _row_max(Z[rows])[:, None], out=result[rows])
        np.exp(P, out=P)
        P /= _row_sum(P)[:, None]
    return result


@_quiet
def log_softmax(Z: ArrayLike) -> Array:
    """Compute ``Z[i, c] − log Σ_j e^Z[i, j]``; infinities as `scipy.special.log_softmax`.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.log_softmax([[0.0, -1000.0]])
    array([[    0., -1000.]])
    """
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty_like(Z)
    for rows in _row_blocks(Z):
        _, shift = _shift(Z[rows])
        block = np.subtract(Z[rows], shift, out=result[rows])
        block -= np.log(_row_sum(np.exp(block)))[:, None]
    return result


@_quiet
def logsumexp(Z: ArrayLike) -> Array:
    """Compute ``log Σ_j e^Z[i, j]`` of every row, ``−inf`` without columns.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.logsumexp([[1000.0, 1000.0]])
    array([1000.69314718])
    """
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty(len(Z), Z.dtype)
    for rows in _row_blocks(Z):
        _, shift = _shift(Z[rows])
        P = Z[rows] - shift
        np.exp(P, out=P)
        result[rows] = np.log(_row_sum(P)) + shift[:, 0]
    return result


def _row_blocks(x: Array) -> Iterator[slice]:
    """Yield slices of rows that have about _BLOCK entries together, and at least one row."""
    step = max(1, _BLOCK * len(x) // max(1, x.size))
    for i in range(0, len(x), step):
        yield slice(i, i + step)


def _row_max(Z: Array) -> Array:
    if 0 < Z.shape[1] <= _NARROW:
        largest = Z[:, 0].copy()
        for column in Z.T[1:]:
            np.maximum(largest, column, out=largest)
        return largest
    return np.max(Z, axis=1, initial=-np.inf)


def _row_sum(P: Array) -> Array:
    # einsum adds up in a plain loop, `sum` pairwise: more exact where there is much to add.
    return np.einsum("ij->i", P) if P.shape[1] <= _NARROW else P.sum(axis=1)


def _shift(Z: Array) -> tuple[Array, Array]:
    """Return the largest score of each row, and as a column the same with 0 if it is not finite.

    An infinite shift would turn infinities, which have a logarithm to be kept, into inf - inf.
    """
    largest = _row_max(Z)
    return largest, np.where(np.isfinite(largest), largest, 0)[:, None]


# -- terms: what each row adds to a loss, and its derivative if wanted -----------------------------

Terms = tuple[Array, Array | None]


def _binary_cross_entropy(z: Array, t: Array, gradient: bool) -> Terms:
    # log(1 + e^-|z|) + (1 - t) max(z, 0) + t max(-z, 0): summands >= 0, nothing cancels.
    up, down = _exp_both_sides(z)
    e = up * down
    losses = np.log1p(e)
    losses += (1 - t) * np.maximum(z, 0)
    losses -= t * np.minimum(z, 0)
    infinite = np.isinf(z)
    if infinite.any():  # 0 · inf counts as 0: an infinite score on the right side costs nothing
        wrong = np.where(z > 0, 1 - t, t) > 0
        losses[infinite] = np.where(wrong, np.inf, 0)[infinite]
    if not gradient:
        return losses, None
    # σ(z) - t over the common denominator, for full accuracy where t is 0 or 1.
    slopes = up
    slopes *= 1 - t
    down *= t
    slopes -= down
    e += 1
    slopes /= e
    return losses, slopes


def _hinge(z: Array, y: Array, gradient: bool) -> Terms:
    losses = np.maximum(1 - y * z, 0)
    if not gradient:
        return losses, None
    slopes = np.sign(losses)  # 1 within the margin, 0 from the kink on, NaN for NaN
    slopes *= y
    return losses, np.subtract(0, slopes, out=slopes)


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


def _softmax_cross_entropy(Z: Array, y: Array, gradient: bool) -> Terms:
    largest, shift = _shift(Z)
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
        linear = _row_sum(weighted)
        mass = _row_sum(y)  # 1, up to rounding
    np.exp(P, out=P)
    total = _row_sum(P)
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
    slopes = others  # no longer needed
    slopes[...] = 0
    violated = slack > 0
    slopes[rows, rival] = violated
    slopes[rows, y] -= violated
    slopes[np.isnan(slack)] = np.nan
    return losses, slopes


# -- mean losses -----------------------------------------------------------------------------------


def _sum(losses: Array, weights: Array | None) -> float:
    """Return Σ w·l in float64."""
    if weights is not None:
        losses = np.multiply(weights, losses, dtype=np.float64)
    return float(np.add.reduce(losses, dtype=np.float64))


def _mean(terms: Callable[..., Terms], z: Array, y: Array, sample_weight: ArrayLike | None, *args: Any) -> float:
    """Return Σ w·l / Σ w, in blocks of rows: temporaries stay in cache and are not paged in anew."""
    weights, total = checked_weights(sample_weight, len(z), z.dtype)
    value = 0.0
    for rows in _row_blocks(z):
        losses, _ = terms(z[rows], y[rows], False, *args)
        value += _sum(losses, None if weights is None else weights[rows])
    return value / total


def _mean_gradient(
    terms: Callable[..., Terms], z: Array, y: Array, sample_weight: ArrayLike | None, *args: Any
) -> tuple[float, Array]:
    weights, total = checked_weights(sample_weight, len(z), z.dtype)
    value = 0.0
    gradient = np.empty_like(z)
    for rows in _row_blocks(z):
        losses, slopes = terms(z[rows], y[rows], True, *args)
        assert slopes is not None
        if weights is None:
            value += _sum(losses, None)
            np.divide(slopes, total, out=gradient[rows])
        else:
            value += _sum(losses, weights[rows])
            shares = np.divide(weights[rows], total, dtype=np.float64).astype(z.dtype)
            np.multiply(slopes.T, shares, out=gradient[rows].T)
    return value / total, gradient


@_quiet
def binary_cross_entropy(z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``−t log σ(z) − (1−t) log(1−σ(z))``, logits `z`, targets `t` in [0, 1]."""
    z, t = losses_arguments.scores_and_target(z, t, "probability", "t")
    return _mean(_binary_cross_entropy, z, t, sample_weight)


@_quiet
def binary_cross_entropy_gradient(
    z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Compute `binary_cross_entropy` and its gradient ``(σ(z) − t) / n``.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.binary_cross_entropy_gradient([0.0, 1e4], [1, 1])
    (0.34657359027997264, array([-0.25,  0.  ]))
    """
    z, t = losses_arguments.scores_and_target(z, t, "probability", "t")
    return _mean_gradient(_binary_cross_entropy, z, t, sample_weight)


@_quiet
def softmax_cross_entropy(Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``−log softmax(Z)[i, y[i]]``; `y` class indices or target probabilities."""
    Z, y = losses_arguments.class_targets(Z, y, probabilities=True)
    return _mean(_softmax_cross_entropy, Z, y, sample_weight)


@_quiet
def softmax_cross_entropy_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Compute `softmax_cross_entropy` and its gradient ``(softmax(Z) − 1[c = y]) / n``.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.softmax_cross_entropy_gradient([[0.0, 0.0]], [1])
    (0.6931471805599453, array([[ 0.5, -0.5]]))
    """
    Z, y = losses_arguments.class_targets(Z, y, probabilities=True)
    return _mean_gradient(_softmax_cross_entropy, Z, y, sample_weight)


@_quiet
def hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``max(0, 1 − y·z)`` over scores `z` and labels `y` in {−1, +1}."""
    z, y = losses_arguments.scores_and_target(z, y, "sign")
    return _mean(_hinge, z, y, sample_weight)


@_quiet
def hinge_gradient(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> tuple[float, Array]:
    """Compute `hinge` and its subgradient: ``−y/n`` where ``y·z < 1``, else 0.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.hinge_gradient([0.5, 1.0], [1, 1])
    (0.25, array([-0.5,  0. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "sign")
    return _mean_gradient(_hinge, z, y, sample_weight)


@_quiet
def squared_hinge(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``max(0, 1 − y·z)²`` (no half), labels `y` in {−1, +1}."""
    z, y = losses_arguments.scores_and_target(z, y, "sign")
    return _mean(_squared_hinge, z, y, sample_weight)


@_quiet
def squared_hinge_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Compute `squared_hinge` and its gradient ``−2y·max(0, 1 − y·z) / n``.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.squared_hinge_gradient([0.5, -1.0], [1, -1])
    (0.125, array([-0.5,  0. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "sign")
    return _mean_gradient(_squared_hinge, z, y, sample_weight)


@_quiet
def multiclass_hinge(Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``max_j (Z[i, j] − Z[i, y] + 1[j ≠ y])`` over class indices `y`."""
    Z, y = losses_arguments.class_targets(Z, y)
    return _mean(_multiclass_hinge, Z, y, sample_weight)


@_quiet
def multiclass_hinge_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Compute `multiclass_hinge` and a subgradient (Crammer and Singer).

    A row adds +1/n at its highest wrong class (the lowest index of equals) and −1/n at the true
    one; nothing where the true class attains the maximum.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.multiclass_hinge_gradient([[0.0, 0.5, 0.5]], [0])
    (1.5, array([[-1.,  1.,  0.]]))
    """
    Z, y = losses_arguments.class_targets(Z, y)
    return _mean_gradient(_multiclass_hinge, Z, y, sample_weight)


@_quiet
def squared_error(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``(z − y)² / 2``."""
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean(_squared_error, z, y, sample_weight)


@_quiet
def squared_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Compute `squared_error` and its gradient ``(z − y) / n``.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.squared_error_gradient([3.0, 0.0], [1.0, 0.0])
    (1.0, array([1., 0.]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean_gradient(_squared_error, z, y, sample_weight)


@_quiet
def absolute_error(z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``|z − y|``."""
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean(_absolute_error, z, y, sample_weight)


@_quiet
def absolute_error_gradient(
    z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Compute `absolute_error` and its subgradient ``sign(z − y) / n``, 0 where ``z = y``.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.absolute_error_gradient([3.0, 0.0], [1.0, 0.0])
    (1.0, array([0.5, 0. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean_gradient(_absolute_error, z, y, sample_weight)


@_quiet
def huber(z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None) -> float:
    """Compute the mean of ``r²/2`` where ``|r| ≤ δ``, else ``δ(|r| − δ/2)``, for ``r = z − y``."""
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean(_huber, z, y, sample_weight, scalars.checked_delta(delta, z.dtype))


@_quiet
def huber_gradient(
    z: ArrayLike, y: ArrayLike, *, delta: float = 1.35, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Compute `huber` and its gradient, ``z − y`` cut to [−δ, δ], over n.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.huber_gradient([1.0, 5.0], [0.0, 0.0], delta=2.0)
    (4.25, array([0.5, 1. ]))
    """
    z, y = losses_arguments.scores_and_target(z, y, "real")
    return _mean_gradient(_huber, z, y, sample_weight, scalars.checked_delta(delta, z.dtype))


# -- linear models ---------------------------------------------------------------------------------

_TERMS: dict[str, Callable[[Array, Array, bool], Terms]] = {
    "binary_cross_entropy": _binary_cross_entropy,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "multiclass_hinge": _multiclass_hinge,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "huber": lambda z, y, gradient: _huber(z, y, gradient, z.dtype.type(1.35)),
}


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
    """Compute the loss of ``X @ W.T + b`` plus ``l2/2 · ‖W‖²``, with its gradient in `W` and `b`.

    Blocks of rows that stay in cache between the two products they take part in, so that `X` is
    read from memory once; sums over blocks are kept in float64. Huber has δ = 1.35.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.linear_loss_gradient("squared_error", [[1.0], [2.0]], [0.0, 0.0], [1.0], 0.0)
    (1.25, array([2.5]), 1.5)
    """
    x, targets, W, b, penalty, weights, total = linear_arguments.linear(loss, X, y, W, b, l2, sample_weight)
    terms = _TERMS[loss]
    value = 0.0
    dW = np.zeros(W.shape)
    db = np.zeros(np.shape(b))
    for rows in _row_blocks(x):
        block = x[rows]
        scores = block @ W.T
        scores += b
        losses, slopes = terms(scores, targets[rows], True)
        assert slopes is not None
        if weights is None:
            value += _sum(losses, None)
        else:
            value += _sum(losses, weights[rows])
            slopes = (slopes.T * weights[rows]).T
        dW += slopes.T @ block
        db += slopes.sum(axis=0, dtype=np.float64)
    value /= total
    dW /= total
    db /= total
    if penalty > 0:
        value += float(penalty) / 2 * float(np.sum(np.square(W, dtype=np.float64)))
        dW += penalty * W
    gradient = dW.astype(x.dtype)
    return value, gradient, float(db) if db.ndim == 0 else db.astype(x.dtype)


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

    The rows of a batch are copied into one buffer that is used again and again; all steps are in
    place. Step, penalties and what is returned: as in `loops.train_linear`.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> X, y = [[1.0], [2.0]], [1.0, 2.0]
    >>> vectorized.train_linear("squared_error", X, y, [0.0], 0.0, [1, 0], batch_size=1, steps=0.1)
    (array([0.44]), 0.24, array([2.  , 0.08]))
    """
    a = linear_arguments.training(
        loss, X, y, W, b, order, batch_size, steps, l2, l1, momentum, nesterov, sample_weight
    )  # fmt: skip
    x, targets, start, shift, ridge, weights, _ = a.linear
    terms, dtype = _TERMS[loss], x.dtype
    w, b = start.copy(), np.array(shift)
    velocity, velocity_b = np.zeros_like(w), np.zeros_like(b)
    buffer = np.empty((min(a.batch_size, len(a.order)), x.shape[1]), dtype)
    losses = np.empty(len(a.steps))
    for batch, step in enumerate(a.steps):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size]
        block = np.take(x, rows, axis=0, out=buffer[: len(rows)], mode="clip")  # "raise" would copy once more
        scores = block @ w.T
        scores += b
        batch_weights = None if weights is None else weights[rows]
        batch_losses, slopes = terms(scores, targets[rows], True)
        assert slopes is not None
        losses[batch] = _sum(batch_losses, batch_weights) / len(rows)
        slopes *= dtype.type(1 / len(rows))
        if batch_weights is not None:
            slopes = (slopes.T * batch_weights).T
        move, move_b = slopes.T @ block, slopes.sum(axis=0)
        if ridge > 0:
            move += ridge * w
        move *= step
        move_b = np.multiply(move_b, step, dtype=dtype)
        if a.momentum > 0:
            velocity *= a.momentum
            velocity -= move
            velocity_b *= a.momentum
            velocity_b -= move_b
            if a.nesterov:
                w += a.momentum * velocity
                b += a.momentum * velocity_b
            else:
                w += velocity
                b += velocity_b
        if a.momentum == 0 or a.nesterov:
            w -= move
            b -= move_b
        if a.l1 > 0:
            w = np.sign(w) * np.maximum(np.abs(w) - step * a.l1, 0)
    return w, b if b.ndim else float(b), losses


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
    """Compute mean losses (M,) and scores (M,) of M linear models ``W`` (M, C, D), ``b`` (M, C).

    One product of a block of rows with all models. The score is the share of right predictions, or
    for regression the mean squared residual; see `loops.linear_evaluation`.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.linear_evaluation("hinge", [[1.0], [-1.0]], [1, 1], [[[2.0]], [[0.0]]], [[0.0], [0.0]])
    (array([1.5, 1. ]), array([0.5, 1. ]))
    """
    a = linear_arguments.evaluation(loss, X, y, W, b, sample_weight, delta)
    models, classes, columns = a.W.shape
    multiclass = loss in ("softmax_cross_entropy", "multiclass_hinge")
    all_weights = np.ascontiguousarray(a.W.reshape(models * classes, columns).T)
    losses, marks = np.zeros(models), np.zeros(models)
    for rows in _row_blocks(a.X):
        scores = (a.X[rows] @ all_weights + a.b.reshape(-1)).reshape(-1, models, classes)
        target, weights = a.y[rows], None if a.weight is None else a.weight[rows]
        for m in range(models):
            z = np.ascontiguousarray(scores[:, m] if multiclass else scores[:, m, 0])
            terms = _huber(z, target, False, a.delta) if loss == "huber" else _TERMS[loss](z, target, False)
            losses[m] += _sum(terms[0], weights)
            if multiclass:
                true = target if target.ndim == 1 else target.argmax(axis=1)
                mark = (z.argmax(axis=1) == true) & ~np.isnan(z).any(axis=1)
            elif loss in _SIGN_OF_CLASS_1:
                mark = np.where(target >= _SIGN_OF_CLASS_1[loss], z >= 0, z < 0)
            else:
                mark = np.square(z - target)
            marks[m] += _sum(mark, weights)
    return losses / a.total, marks / a.total


# -- networks --------------------------------------------------------------------------------------

_NETWORK_TERMS: dict[str, Callable[[Array, Array, bool], Terms]] = {
    "softmax_cross_entropy": _softmax_cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "squared_error": _squared_error,
}


def _activate(Z: Array, activation: str) -> Array:
    """Apply an activation function in place."""
    if activation == "relu":
        return np.maximum(Z, 0, out=Z)
    if activation == "tanh":
        return np.tanh(Z, out=Z)
    if activation == "logistic":
        up, down = _exp_both_sides(Z)
        return np.divide(up, up + down, out=Z)
    return Z


def _times_slope(D: Array, A: Array, activation: str) -> Array:
    """Multiply by the derivative of the activation function, which is known from its values `A`."""
    if activation == "relu":
        D *= A > 0
    elif activation == "tanh":
        D *= 1 - A * A
    elif activation == "logistic":
        D *= A * (1 - A)
    return D


Norm = tuple[Array, Array, Array]


def _forward(
    X: Array,
    layers: list[tuple[Array, Array]],
    activation: str,
    norms: list[Norm] | None = None,
    kept: list[tuple[Array, Array]] | None = None,
    running_share: float = 0.0,
) -> list[Array]:
    """Return the values of all levels, from the rows to the scores.

    With `norms` hidden layers are normalised by their running statistics; with `kept`, a list, by those of the rows,
    and it gets normalised values and inverse deviations.
    """
    levels = [X]
    for place, (W, b) in enumerate(layers):
        values = levels[-1] @ W.T
        last = place == len(layers) - 1
        if norms is not None and not last:
            scale, mean, variance = norms[place]
            if kept is None:
                values -= mean
                inverse = 1 / np.sqrt(variance + values.dtype.type(networks_arguments.NORM_EPSILON))
            else:
                inverse = _normalise(values, norms[place], running_share)
            values *= inverse
            if kept is not None:
                kept.append((values.copy(), inverse))
            values *= scale
        values += b
        levels.append(values if last else _activate(values, activation))
    return levels


def _normalise(values: Array, norm: Norm, running_share: float) -> Array:
    """Take means off values in place; let running statistics follow; return inverse deviations."""
    n, dtype = len(values), values.dtype
    _, running_mean, running_variance = norm
    mean = values.mean(axis=0, dtype=np.float64).astype(dtype)
    values -= mean
    variance = np.square(values).mean(axis=0, dtype=np.float64).astype(dtype)
    if running_share > 0:
        share = dtype.type(running_share)
        running_mean += share * (mean - running_mean)
        if n > 1:
            running_variance += share * (variance * dtype.type(n / (n - 1)) - running_variance)
    return np.asarray(1 / np.sqrt(variance + dtype.type(networks_arguments.NORM_EPSILON)))


def _backward(
    loss: str,
    X: Array,
    y: Array,
    layers: list[tuple[Array, Array]],
    activation: str,
    shares: Array,
    norms: list[Norm] | None = None,
    running_share: float = 0.0,
) -> tuple[Array, list[Array]]:
    """Return the loss of each row, and the gradient of ``shares @ losses`` in weights and intercepts in turn.

    With `norms` that in shifts, in scales and in running statistics, which is 0, of each hidden layer too.
    """
    kept: list[tuple[Array, Array]] = []
    levels = _forward(X, layers, activation, norms, kept, running_share)
    losses, slopes = _NETWORK_TERMS[loss](levels[-1], y, True)
    assert slopes is not None
    if losses.ndim == 2:
        losses = losses.sum(axis=1)
    slopes = slopes * shares[:, None]
    gradients: list[Array] = []
    for place in range(len(layers) - 1, -1, -1):
        vectors = [slopes.sum(axis=0)]
        if norms is not None and place < len(layers) - 1:
            x, inverse = kept[place]
            scale, *running = norms[place]
            of_scale = (slopes * x).sum(axis=0)
            slopes = (scale * inverse) * (slopes - vectors[0] / len(x) - x * (of_scale / len(x)))
            vectors += [of_scale, *map(np.zeros_like, running)]
        gradients[:0] = [slopes.T @ levels[place], *vectors]
        if place > 0:
            slopes = _times_slope(slopes @ layers[place][0], levels[place], activation)
    return losses, gradients


@_quiet
def network_scores(
    X: ArrayLike, parameters: ArrayLike, units: Sequence[int], *, activation: str = "relu", batch_norm: bool = False
) -> Array:
    """Compute the scores of a network: a product of matrices for each layer.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.network_scores([[1.0], [-2.0]], [1.0, 0.0, 3.0, 1.0], (1, 1, 1))
    array([[4.],
           [1.]])
    """
    X, layers, norms = networks_arguments.network_model(X, parameters, units, activation, batch_norm)
    scores = np.empty((len(X), len(layers[-1][1])), X.dtype)
    for rows in _row_blocks(X):
        scores[rows] = _forward(X[rows], layers, activation, norms)[-1]
    return scores


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
    """Compute the loss of a network plus ``l2/2 · ‖W‖²``, and its gradient in all parameters.

    Blocks of rows; sums over blocks are kept in float64. With `batch_norm` all rows are one block.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.network_loss_gradient("squared_error", [[1.0], [2.0]], [0.0, 0.0], [1.0, 0.0], (1, 1))
    (1.25, array([2.5, 1.5]))
    """
    a = networks_arguments.network(loss, X, y, parameters, units, activation, l2, sample_weight, batch_norm)
    n = len(a.X)
    shares = np.ones(n, a.X.dtype) if a.weight is None else a.weight
    value = 0.0
    flat = np.zeros(np.size(parameters))
    parts = networks_arguments.parts(flat, units, batch_norm)
    totals = [part for layer in parts for part in layer]
    for rows in _row_blocks(a.X) if a.norms is None else [slice(n)]:
        losses, gradients = _backward(loss, a.X[rows], a.y[rows], a.layers, activation, shares[rows], a.norms)
        value += _sum(losses, shares[rows])
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient
    value /= n
    flat /= n
    if a.l2 > 0:
        for (W, _), (total, *_) in zip(a.layers, parts, strict=True):
            value += float(a.l2) / 2 * float(np.sum(np.square(W, dtype=np.float64)))
            total += a.l2 * W
    return value, flat.astype(a.X.dtype)


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

    All parameters, gradients and velocities are flat vectors, so that a step is a few operations. What is
    returned: as in `loops.train_network`.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> X, y = [[1.0], [2.0]], [1.0, 2.0]
    >>> vectorized.train_network("squared_error", X, y, [0.0, 0.0], (1, 1), [1, 0], batch_size=1, steps=0.1)
    (array([0.44, 0.24]), array([2.  , 0.08]))
    """
    a = networks_arguments.network_training(
        loss, X, y, parameters, units, order, batch_size, steps, activation, l2, momentum, nesterov, sample_weight,
        batch_norm,
    )  # fmt: skip
    x, y, _, penalty, weights, _ = a.network
    dtype = x.dtype
    flat = np.array(parameters, dtype)
    parts = networks_arguments.parts(flat, units, batch_norm)
    layers = networks_arguments.layers(flat, units, batch_norm)
    norms = networks_arguments.normalisations(flat, units) if batch_norm else None
    decay = np.concatenate(
        [np.full(part.size, penalty if part.ndim == 2 else 0, dtype) for layer in parts for part in layer]
    )
    velocity = np.zeros_like(flat)
    losses = np.empty(len(a.steps))
    for batch, step in enumerate(a.steps):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size]
        row_weights = np.ones(len(rows), dtype) if weights is None else weights[rows]
        shares = row_weights * dtype.type(1 / len(rows))
        row_losses, gradients = _backward(
            loss, x[rows], y[rows], layers, activation, shares, norms, networks_arguments.NORM_SHARE
        )
        losses[batch] = _sum(row_losses, row_weights) / len(rows)
        move = np.concatenate([gradient.ravel() for gradient in gradients])
        move += decay * flat
        move *= step
        velocity *= a.momentum
        velocity -= move
        if a.nesterov:
            flat += a.momentum * velocity - move
        else:
            flat += velocity
    return flat, losses


# -- images ----------------------------------------------------------------------------------------


def _windows(X: Array, size: int, stride: int) -> Array:
    """Return a view (n, C, places down, places to the right, size, size) of all windows."""
    return sliding_window_view(X, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def _padded(X: Array, zeros: int) -> Array:
    return np.pad(X, ((0, 0), (0, 0), (zeros, zeros), (zeros, zeros)))


@_quiet
def conv2d(X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, stride: int = 1, padding: int = 0) -> Array:
    """Compute a convolution as one product of matrices, of which one is a copy of all windows.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.conv2d([[[[1.0, 2.0, 4.0]]]], [[[[3.0]]]], [1.0])
    array([[[[ 4.,  7., 13.]]]])
    """
    a = convolution_arguments.convolution(X, W, b, stride, padding)
    windows = _windows(_padded(a.X, a.padding), a.W.shape[2], a.stride)
    z = np.tensordot(windows, a.W, axes=((1, 4, 5), (1, 2, 3)))
    z += a.b
    return np.ascontiguousarray(z.transpose(0, 3, 1, 2))


@_quiet
def conv2d_gradient(
    dZ: ArrayLike, X: ArrayLike, W: ArrayLike, *, stride: int = 1, padding: int = 0
) -> tuple[Array, Array, Array]:
    """Gradient in X, W and b: a product of matrices for each place of the kernel.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.conv2d_gradient([[[[1.0, 0.0, 2.0]]]], [[[[1.0, 2.0, 4.0]]]], [[[[3.0]]]])
    (array([[[[3., 0., 6.]]]]), array([[[[9.]]]]), array([3.]))
    """
    a = convolution_arguments.convolution(X, W, None, stride, padding)
    size, step = a.W.shape[2], a.stride
    windows = _windows(_padded(a.X, a.padding), size, step)
    height, width = windows.shape[2:4]
    d = convolution_arguments.output_gradient(dZ, (len(a.X), len(a.W), height, width), a.X.dtype)
    dW = np.tensordot(d, windows, axes=((0, 2, 3), (0, 2, 3)))
    back = np.zeros((*a.X.shape[:2], a.X.shape[2] + 2 * a.padding, a.X.shape[3] + 2 * a.padding), a.X.dtype)
    for dy in range(size):
        for dx in range(size):
            part = np.tensordot(d, a.W[:, :, dy, dx], axes=(1, 0)).transpose(0, 3, 1, 2)
            back[:, :, dy : dy + step * height : step, dx : dx + step * width : step] += part
    inside = slice(a.padding, a.padding + a.X.shape[2]), slice(a.padding, a.padding + a.X.shape[3])
    return np.ascontiguousarray(back[:, :, *inside]), np.ascontiguousarray(dW), d.sum(axis=(0, 2, 3))


@_quiet
def max_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Largest value of each window; NaN where there is one.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.max_pool2d([[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[4.]]]])
    """
    a = convolution_arguments.pooling(X, size, stride)
    return np.ascontiguousarray(_windows(a.X, a.size, a.stride).max(axis=(4, 5)))


@_quiet
def max_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X: a slope goes to the first of the largest values.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.max_pool2d_gradient([[[[5.0]]]], [[[[1.0, 2.0], [4.0, 4.0]]]])
    array([[[[0., 0.],
             [5., 0.]]]])
    """
    a = convolution_arguments.pooling(X, size, stride)
    windows = _windows(a.X, a.size, a.stride)
    height, width = windows.shape[2:4]
    d = convolution_arguments.output_gradient(dZ, windows.shape[:4], a.X.dtype)
    first = windows.reshape(*windows.shape[:4], a.size**2).argmax(axis=4)  # of NaN too
    result = np.zeros_like(a.X)
    for place in range(a.size**2):
        dy, dx = divmod(place, a.size)
        part = result[:, :, dy : dy + a.stride * height : a.stride, dx : dx + a.stride * width : a.stride]
        part += np.where(first == place, d, 0)
    return result


@_quiet
def avg_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Mean of each window.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.avg_pool2d([[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[2.5]]]])
    """
    a = convolution_arguments.pooling(X, size, stride)
    return np.ascontiguousarray(_windows(a.X, a.size, a.stride).mean(axis=(4, 5)))


@_quiet
def avg_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X, of which the shape matters only: a slope goes to all pixels of its window alike.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.avg_pool2d_gradient([[[[4.0]]]], [[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[1., 1.],
             [1., 1.]]]])
    """
    a = convolution_arguments.pooling(X, size, stride)
    height, width = _windows(a.X, a.size, a.stride).shape[2:4]
    share = convolution_arguments.output_gradient(dZ, (*a.X.shape[:2], height, width), a.X.dtype) / a.X.dtype.type(
        a.size**2
    )
    result = np.zeros_like(a.X)
    for dy in range(a.size):
        for dx in range(a.size):
            result[:, :, dy : dy + a.stride * height : a.stride, dx : dx + a.stride * width : a.stride] += share
    return result


def _standard(X: Array, epsilon: float) -> tuple[Array, Array]:
    """Return each channel less its mean, times a factor, and that."""
    centered = X - X.mean(axis=(0, 2, 3), dtype=np.float64, keepdims=True).astype(X.dtype)
    variance = np.square(centered).mean(axis=(0, 2, 3), dtype=np.float64, keepdims=True)
    factor = (1 / np.sqrt(variance + epsilon)).astype(X.dtype)
    return centered * factor, factor


@_quiet
def batch_norm(X: ArrayLike, gamma: ArrayLike, beta: ArrayLike, *, epsilon: float = 1e-5) -> Array:
    """Each channel less its mean, over the root of its variance and epsilon, times gamma plus beta.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> vectorized.batch_norm([[[[1.0, 3.0]]]], [2.0], [1.0], epsilon=1e-12).round(6)
    array([[[[-1.,  3.]]]])
    """
    a = convolution_arguments.normalization(X, gamma, beta, epsilon)
    return _standard(a.X, a.epsilon)[0] * a.gamma[:, None, None] + a.beta[:, None, None]


@_quiet
def batch_norm_gradient(
    dZ: ArrayLike, X: ArrayLike, gamma: ArrayLike, *, epsilon: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradient in X, gamma and beta.

    Examples
    --------
    >>> from fastml.kernels.reference import vectorized
    >>> dX, dgamma, dbeta = vectorized.batch_norm_gradient([[[[1.0, 2.0]]]], [[[[1.0, 3.0]]]], [2.0], epsilon=1e-12)
    >>> dX.round(6) + 0.0, dgamma.round(6), dbeta
    (array([[[[0., 0.]]]]), array([1.]), array([3.]))
    """
    a = convolution_arguments.normalization(X, gamma, None, epsilon)
    d, (standard, factor) = convolution_arguments.output_gradient(dZ, a.X.shape, a.X.dtype), _standard(a.X, a.epsilon)
    along = (d * standard).sum(axis=(0, 2, 3), dtype=np.float64).astype(a.X.dtype)
    total = d.sum(axis=(0, 2, 3), dtype=np.float64).astype(a.X.dtype)
    count = a.X.dtype.type(d.size // len(total))
    dX = (
        a.gamma[:, None, None]
        * factor
        * (d - (total / count)[:, None, None] - standard * (along / count)[:, None, None])
    )
    return dX, along, total
