"""Distances of rows, and the nearest rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...arguments import arrays, scalars
from ...arguments.arrays import Array
from ...distances import arguments, scales
from ...neighbors import candidates
from ._common import BLOCK, quiet

__all__ = [
    "k_nearest",
    "pairwise_argmin",
    "pairwise_argmin_min",
    "pairwise_l1",
    "pairwise_l2",
    "pairwise_linf",
    "radius_counts",
    "radius_neighbors",
]

# Entries of a block of distances in `k_nearest`, and of a matrix product between uint8 rows.
_DISTANCES = 1 << 20


def _keys(X: Array, Y: Array, metric: arguments.Metric, out: Array) -> None:
    """Write to `out` (n, m) what neighbours are ordered by: L1, L-inf, or the *squared* L2.

    Every entry is computed from its two rows by the same operations in the same order wherever
    it lies in a block: each reduction runs along the columns of one pair.
    """
    if metric not in arguments.METRICS:
        _keys_of_variant(X, Y, metric, out)
        return
    if X.dtype == np.uint8 and metric == "l2":
        _exact_squared_l2(X, Y, out)
        return
    n, m, columns = len(X), len(Y), X.shape[1]
    # As many rows of Y as fill a block, and if they all fit, several rows of X at once.
    height = max(1, min(m, BLOCK // max(1, columns)))
    width = max(1, min(n, BLOCK // max(1, height * columns)))
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


def _keys_of_variant(X: Array, Y: Array, metric: arguments.Metric, out: Array) -> None:
    """Write to `out` (n, m) the keys of metrics that are none of differences: of a product, its negative."""
    if metric == "cosine":
        _keys(_directions(X), _directions(Y), "l2", out)
        np.minimum(out / 2, 2, out=out)
        without = (X == 0).all(axis=1, keepdims=True) | (Y == 0).all(axis=1)
        out[without & ~np.isnan(out)] = 1
        return
    for i, x in enumerate(X):
        if metric == "inner_product":
            np.negative(np.add.reduce(x * Y, axis=1), out=out[i])
        else:
            differing = np.bitwise_count(x ^ Y).sum(axis=1, dtype=np.int64)
            either = np.maximum(np.bitwise_count(x | Y).sum(axis=1), 1)
            out[i] = differing if metric == "hamming" else differing / either


def _directions(X: Array) -> Array:
    """Divide rows by their lengths; of float64 a power of two near the largest entry keeps squares in range."""
    wide = X.astype(np.float64)
    wide = np.ldexp(wide, -np.frexp(np.abs(wide).max(axis=1, keepdims=True, initial=0))[1])
    lengths = np.sqrt(np.add.reduce(wide * wide, axis=1, keepdims=True))
    lengths[lengths == 0] = 1
    return (wide / lengths).astype(X.dtype)


def _totals_again(X: Array, Y: Array, i: Array, j: Array, large: bool) -> Array:
    """Compute squared L2 distances of the pairs (X[i], Y[j]) in another scale, in float64."""
    totals = np.empty(i.size)
    step = max(1, BLOCK // max(1, X.shape[1]))
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


@quiet
def _pairwise(X: ArrayLike, Y: ArrayLike | None, metric: arguments.Metric, squared: bool, out: Array | None) -> Array:
    x, y, kind = arguments.pair(X, Y)
    columns = x.shape[1]
    dtype = arguments.result_dtype(metric, x.dtype, columns, squared)
    out = arrays.out(out, (len(x), len(y)), dtype, X, Y)
    root = metric == "l2" and not squared
    if root and kind == "uint8":  # exact integers first, in blocks of rows
        exact = arguments.result_dtype(metric, x.dtype, columns, squared=True)
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
    """Compute sums of absolute differences, ``Σ_d |X[i, d] − Y[j, d]|``; see `kernels.pairwise_l1`."""
    return _pairwise(X, Y, "l1", False, out)


def pairwise_l2(X: ArrayLike, Y: ArrayLike | None = None, *, squared: bool = False, out: Array | None = None) -> Array:
    """Compute Euclidean distances, ``√ Σ_d (X[i, d] − Y[j, d])²``; see `kernels.pairwise_l2`."""
    return _pairwise(X, Y, "l2", scalars.flag(squared, "squared"), out)


def pairwise_linf(X: ArrayLike, Y: ArrayLike | None = None, *, out: Array | None = None) -> Array:
    """Compute largest absolute differences, ``max_d |X[i, d] − Y[j, d]|``; see `kernels.pairwise_linf`."""
    return _pairwise(X, Y, "linf", False, out)


@quiet
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
    x, y, kind = arguments.pair(X, Y)
    if kind == "uint8":
        x, y = x.astype(np.float64), y.astype(np.float64)
    squares = x @ y.T
    squares *= -2
    squares += np.vecdot(x, x)[:, None]
    squares += np.vecdot(y, y)
    return np.maximum(squares, 0, out=squares)


@quiet
def k_nearest(
    X: ArrayLike,
    Y: ArrayLike | None,
    k: int,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    exclude_self: bool = False,
    offset: int | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    within_groups: bool = False,
    where: ArrayLike | None = None,
    algorithm: arguments.Algorithm = "auto",
) -> tuple[Array, Array]:
    """Find the `k` rows of `Y` nearest to each row of `X`, by (distance, index); see `kernels.k_nearest`.

    Blocks of rows of X, so that at most about a million distances (or one row of them) exist at a time. All pairs are
    looked at, whatever `algorithm` says.
    """
    name = arguments.metric(metric)
    x, y = arguments.sides(name, metric_params, X, Y)
    n, m = len(x), len(y)
    k, chosen = candidates.checked(k, n, m, exclude_self, offset, groups, within_groups, where)
    arguments.algorithm(algorithm)
    dtype = arguments.result_dtype(name, x.dtype, x.shape[1])
    distances = np.full((n, k), candidates.nothing_found(name, dtype), dtype)
    indices = np.full((n, k), candidates.NO_ROW, np.intp)
    for i, keys, own in _blocks(x, y, name):
        if chosen.is_all:
            nearest = _smallest(keys, k)
            indices[i : i + len(keys)] = nearest
            distances[i : i + len(keys)] = np.take_along_axis(own, nearest, axis=1)
            continue
        for row in range(len(keys)):
            places = chosen.of(i + row, m)
            if count := min(k, places.size):
                found = places[_smallest(keys[row : row + 1, places], count)[0]]
                indices[i + row, :count], distances[i + row, :count] = found, own[row, found]
    return distances, indices


def pairwise_argmin(
    X: ArrayLike,
    Y: ArrayLike | None,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    exclude_self: bool = False,
    offset: int | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    within_groups: bool = False,
    where: ArrayLike | None = None,
    algorithm: arguments.Algorithm = "auto",
) -> Array:
    """Find the row of `Y` nearest to each row of `X`; see `kernels.pairwise_argmin`."""
    options: dict[str, Any] = {"metric": metric, "metric_params": metric_params, "algorithm": algorithm}
    options |= {"exclude_self": exclude_self, "offset": offset}
    options |= {"groups": groups, "within_groups": within_groups, "where": where}
    return pairwise_argmin_min(X, Y, **options)[0]


def pairwise_argmin_min(
    X: ArrayLike,
    Y: ArrayLike | None,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    exclude_self: bool = False,
    offset: int | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    within_groups: bool = False,
    where: ArrayLike | None = None,
    algorithm: arguments.Algorithm = "auto",
) -> tuple[Array, Array]:
    """Find the row of `Y` nearest to each row of `X`, and its distance; see `kernels.pairwise_argmin_min`."""
    options: dict[str, Any] = {"metric": metric, "metric_params": metric_params, "algorithm": algorithm}
    options |= {"exclude_self": exclude_self, "offset": offset}
    options |= {"groups": groups, "within_groups": within_groups, "where": where}
    distances, indices = k_nearest(X, Y, 1, **options)
    return indices[:, 0], distances[:, 0]


def _blocks(x: Array, y: Array, metric: arguments.Metric) -> Iterator[tuple[int, Array, Array]]:
    """Yield the first row of each block of X, what its pairs are ordered by, and their distances."""
    m, columns = len(y), x.shape[1]
    of = "l2" if metric == "sqeuclidean" else metric
    step = max(1, min(len(x), _DISTANCES // max(1, m)))
    block = np.empty((step, m), arguments.result_dtype(metric, x.dtype, columns, squared=True))
    for i in range(0, len(x), step):
        rows = x[i : i + step]
        keys = block[: len(rows)]
        _keys(rows, y, of, keys)
        distances = 0 - keys if metric == "inner_product" else keys
        if of == "l2" and x.dtype != np.uint8:
            distances = keys.copy()
            if ranks := _finish_l2(rows, y, distances, squared=metric != "l2"):
                keys = keys.astype(np.float64)
                for row, rank in ranks.items():
                    keys[row] = rank
        elif metric == "l2":
            distances = np.sqrt(keys, dtype=np.float64)
        yield i, keys, distances.astype(arguments.result_dtype(metric, x.dtype, columns), copy=False)


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


@quiet
def radius_neighbors(
    X: ArrayLike,
    Y: ArrayLike | None,
    radius: ArrayLike,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    exclude_self: bool = False,
    offset: int | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    within_groups: bool = False,
    where: ArrayLike | None = None,
    algorithm: arguments.Algorithm = "auto",
) -> tuple[Array, Array, Array]:
    """Find the rows of `Y` at most `radius` away from each row of `X`, in order; see `kernels.radius_neighbors`.

    Blocks of rows of X, as in `k_nearest`. All pairs are looked at, whatever `algorithm` says.
    """
    name = arguments.metric(metric)
    x, y = arguments.sides(name, metric_params, X, Y)
    chosen = candidates.allowed(len(x), len(y), exclude_self, offset, groups, within_groups, where)
    radii = np.broadcast_to(arguments.radius(radius, len(x), name), len(x))
    arguments.algorithm(algorithm)
    counts, indices = np.zeros(len(x), np.intp), [np.empty(0, np.intp)]
    distances = [np.empty(0, arguments.result_dtype(name, x.dtype, x.shape[1]))]
    for i, keys, own in _blocks(x, y, name):
        limits = radii[i : i + len(own), None]  # in float64, and so they are compared
        inside = own >= limits if name == "inner_product" else own <= limits
        if not chosen.is_all:
            for row in range(len(own)):
                may = np.zeros(len(y), np.bool_)
                may[chosen.of(i + row, len(y))] = True
                inside[row] &= may
        rows, columns = np.nonzero(inside)
        order = np.lexsort((keys[rows, columns], rows))  # stable: of equal keys the first column
        counts[i : i + len(own)] = np.count_nonzero(inside, axis=1)
        indices.append(columns[order])
        distances.append(own[rows, columns][order])
    return np.concatenate([[0], np.cumsum(counts)]), np.concatenate(indices), np.concatenate(distances)


def radius_counts(
    X: ArrayLike,
    Y: ArrayLike | None,
    radius: ArrayLike,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    exclude_self: bool = False,
    offset: int | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    within_groups: bool = False,
    where: ArrayLike | None = None,
    algorithm: arguments.Algorithm = "auto",
) -> Array:
    """Count the rows of `Y` at most `radius` away from each row of `X`; see `kernels.radius_counts`."""
    options: dict[str, Any] = {"metric": metric, "metric_params": metric_params, "algorithm": algorithm}
    options |= {"exclude_self": exclude_self, "offset": offset}
    options |= {"groups": groups, "within_groups": within_groups, "where": where}
    return np.diff(radius_neighbors(X, Y, radius, **options)[0])
