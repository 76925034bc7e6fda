"""Distances of rows, and the nearest rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...arguments import arrays, scalars
from ...arguments.arrays import Array
from ...distances import arguments, scales
from ...neighbors import candidates
from ._common import Row, quiet

__all__ = [
    "k_nearest",
    "pairwise",
    "pairwise_argmin",
    "pairwise_argmin_min",
    "pairwise_l1",
    "pairwise_l2",
    "pairwise_linf",
    "radius_counts",
    "radius_neighbors",
]


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


def _cosine(x: Row, y: Row) -> float:
    u, v = _direction(x), _direction(y)
    if not u or not v:
        return 1.0 + 0.0 * sum(u + v)  # NaN stays
    return min(_squared_l2(u, v) / 2, 2.0)


def _direction(x: Row) -> list[float]:
    """Divide a row by its length; zeros have no direction."""
    length = math.hypot(*x)
    return [a / length for a in x] if length != 0 else []


def _inner_product(x: Row, y: Row) -> float:
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total += a * b
    return total


def _hamming(x: Row, y: Row) -> float:
    return sum((int(a) ^ int(b)).bit_count() for a, b in zip(x, y, strict=True))


def _jaccard(x: Row, y: Row) -> float:
    either = sum((int(a) | int(b)).bit_count() for a, b in zip(x, y, strict=True))
    return _hamming(x, y) / either if either else 0.0


_TOTALS: dict[str, Callable[[Row, Row], float]] = {
    "l1": _l1,
    "l2": _squared_l2,
    "linf": _linf,
    "cosine": _cosine,
    "inner_product": _inner_product,
    "hamming": _hamming,
    "jaccard": _jaccard,
}


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


def _distance(x: Row, y: Row, metric: arguments.Metric, dtype: np.dtype[Any]) -> _Distance:
    if metric == "sqeuclidean":
        found = _distance(x, y, "l2", dtype)
        return found._replace(distance=found.square)
    exact = dtype == np.uint8 or metric != "l2"
    total = float(arguments.result_dtype(metric, dtype, len(x), squared=True).type(_TOTALS[metric](x, y)))
    if metric == "inner_product":
        return _Distance(0, -total, total, total)
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


@quiet
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
    x, y, kind = arguments.pair(X, Y)
    if kind == "uint8":  # whose differences would wrap around
        x, y = x.astype(np.float64), y.astype(np.float64)
    distances = np.empty((len(x), len(y)), x.dtype)
    for i in range(len(x)):
        for j in range(len(y)):
            distances[i, j] = norm(x[i] - y[j])
    return distances


def _pairwise(X: ArrayLike, Y: ArrayLike | None, metric: arguments.Metric, squared: bool, out: Array | None) -> Array:
    x, y, _ = arguments.pair(X, Y)
    dtype = arguments.result_dtype(metric, x.dtype, x.shape[1], squared)
    out = arrays.out(out, (len(x), len(y)), dtype, X, Y)
    rows, others = x.tolist(), y.tolist()
    for i, row in enumerate(rows):
        for j, other in enumerate(others):
            found = _distance(row, other, metric, x.dtype)
            out[i, j] = found.square if squared else found.distance
    return out


@quiet
def pairwise_l1(X: ArrayLike, Y: ArrayLike | None = None, *, out: Array | None = None) -> Array:
    """Compute sums of absolute differences, ``Σ_d |X[i, d] − Y[j, d]|``; see `kernels.pairwise_l1`."""
    return _pairwise(X, Y, "l1", False, out)


@quiet
def pairwise_l2(X: ArrayLike, Y: ArrayLike | None = None, *, squared: bool = False, out: Array | None = None) -> Array:
    """Compute Euclidean distances, ``√ Σ_d (X[i, d] − Y[j, d])²``; see `kernels.pairwise_l2`."""
    return _pairwise(X, Y, "l2", scalars.flag(squared, "squared"), out)


@quiet
def pairwise_linf(X: ArrayLike, Y: ArrayLike | None = None, *, out: Array | None = None) -> Array:
    """Compute largest absolute differences, ``max_d |X[i, d] − Y[j, d]|``; see `kernels.pairwise_linf`."""
    return _pairwise(X, Y, "linf", False, out)


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

    All pairs are looked at, whatever `algorithm` says.
    """
    name = arguments.metric(metric)
    x, y = arguments.sides(name, metric_params, X, Y)
    k, chosen = candidates.checked(k, len(x), len(y), exclude_self, offset, groups, within_groups, where)
    arguments.algorithm(algorithm)
    dtype = arguments.result_dtype(name, x.dtype, x.shape[1])
    distances = np.full((len(x), k), candidates.nothing_found(name, dtype), dtype)
    indices = np.full((len(x), k), candidates.NO_ROW, np.intp)
    rows, others = x.tolist(), y.tolist()
    for i, row in enumerate(rows):
        keys = [_distance(row, other, name, x.dtype) for other in others]
        for rank, j in enumerate(_in_order(keys, chosen.of(i, len(others)).tolist())[:k]):
            indices[i, rank] = j
            distances[i, rank] = keys[j].distance
    return distances, indices


def _in_order(keys: list[_Distance], places: list[int]) -> list[int]:
    """Return some rows of Y, given in the order of their indices, from near to far."""
    # The sort keeps the order of what is equal, so ties stay ordered by index. NaN compares
    # with nothing: it is sorted by being NaN, and then by index.
    return sorted(places, key=lambda j: (2, 0.0) if math.isnan(keys[j].total) else keys[j][:2])


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

    All pairs are looked at, whatever `algorithm` says.
    """
    name = arguments.metric(metric)
    x, y = arguments.sides(name, metric_params, X, Y)
    chosen = candidates.allowed(len(x), len(y), exclude_self, offset, groups, within_groups, where)
    radii = np.broadcast_to(arguments.radius(radius, len(x), name), len(x)).tolist()
    arguments.algorithm(algorithm)
    dtype = arguments.result_dtype(name, x.dtype, x.shape[1])
    rows, others = x.tolist(), y.tolist()
    indptr, indices, distances = [0], [], []
    for i, row in enumerate(rows):
        keys = [_distance(row, other, name, x.dtype) for other in others]
        for j in _in_order(keys, chosen.of(i, len(others)).tolist()):
            distance = dtype.type(keys[j].distance)  # as it is returned, so as it is compared
            if (float(distance) >= radii[i]) if name == "inner_product" else (float(distance) <= radii[i]):
                indices.append(j)
                distances.append(distance)
        indptr.append(len(indices))
    return np.array(indptr, np.intp), np.array(indices, np.intp), np.array(distances, dtype)


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
