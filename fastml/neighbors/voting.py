"""Votes and means of neighbours, with their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ..kernels.arguments import arrays
from ..kernels.distances import arguments as distances_arguments

__all__ = [
    "NeighborWeights",
    "are_large",
    "check_weights",
    "checked_metric",
    "class_factors",
    "effective_metric",
    "in_range",
    "mean_over_ranks",
    "most_votes",
    "numbered_labels",
    "vote_shares",
    "weights_of",
]

NeighborWeights = Literal["uniform", "distance"] | Callable[[NDArray[np.float64]], ArrayLike] | None

#: Votes, or sums over outputs, that are made at once: 512 KB, so that they stay in the cache.
_AT_ONCE = 1 << 16

#: Sums of fewer than 2^30 such targets stay in the range of float64, weighted by up to 2.
_LARGE = 2.0**990

#: Such a power of two keeps sums of the largest targets in range, whose weights add up to less than 2^62.
_SHIFT = 64

#: Up to so many classes for each neighbour, counting all of them costs less than sorting the neighbours' labels.
_CLASSES_PER_NEIGHBOR = 64

#: Metrics of models; the inner product is none, since the nearest row has the largest.
_METRICS = tuple(short for short in distances_arguments.DEFINITIONS if short != "inner_product")


def checked_metric(metric: str, p: float = 2) -> distances_arguments.Metric:
    """Return the kernels' name of a metric, for example "l2"."""
    if not (isinstance(metric, str) and metric == "minkowski"):
        try:
            return distances_arguments.metric(metric, _METRICS)
        except (TypeError, ValueError) as error:
            names = (name for name, short in distances_arguments.METRIC_NAMES.items() if short in _METRICS)
            known = ", ".join(map(repr, ("minkowski", *names)))
            kind = ValueError if callable(metric) else type(error)  # scikit-learn takes functions
            raise kind(f"metric is {metric!r}; it must be one of {known}") from None
    for power, name in ((1, "l1"), (2, "l2"), (np.inf, "linf")):
        if np.ndim(p) == 0 and p == power:
            return distances_arguments.metric(name)
    raise ValueError(f"p is {p!r}; it must be 1, 2 or infinity")


def effective_metric(short: distances_arguments.Metric) -> str:
    """Return the name by which scikit-learn knows a metric of the kernels."""
    return (*distances_arguments.DEFINITIONS[short].aliases, short)[0]


def check_weights(weights: NeighborWeights) -> None:
    """Refuse what cannot say how much a neighbour counts."""
    if isinstance(weights, str):
        came, known = repr(weights), weights in ("uniform", "distance")
    else:
        came, known = f"of type {type(weights).__name__}", weights is None or callable(weights)
    if not known:
        raise ValueError(f"weights is {came}; it must be 'uniform', 'distance', a callable or None")


def numbered_labels(
    targets: NDArray[Any], present: NDArray[np.bool_] | None = None
) -> tuple[list[NDArray[Any]], list[NDArray[np.intp]]]:
    """Return the sorted labels of each output, and the number of each row's label among them.

    Labels are those of the rows that are `present`; None means all. The others have the number 0.
    """
    outputs_2d = targets.ndim == 2 and targets.shape[1] > 1
    columns = targets if outputs_2d else column_or_1d(targets, warn=True)[:, np.newaxis]
    check_classification_targets(columns)
    labels, codes = [], []
    for column in columns.T:
        known, numbers = np.unique(column if present is None else column[present], return_inverse=True)
        labels.append(known)
        codes.append(numbers)
        if present is not None:
            codes[-1] = np.zeros(len(column), np.intp)
            codes[-1][present] = numbers
    return labels, codes


def class_factors(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights of classes in units of a power of two next to the largest, so that sums stay in range."""
    factors: NDArray[np.float64] = _in_units_near(weights.max(keepdims=True), weights)
    return factors


def weights_of(
    distances: NDArray[Any], weights: NeighborWeights, rows: NDArray[np.intp] | None = None
) -> NDArray[np.float64] | None:
    """Return what each neighbour counts, (n, k) like `distances`; None where all count the same.

    The weights of a row are divided by a power of two next to the largest of them, which changes no bit of a mean or
    of a share and keeps all sums in range. `rows` has the numbers of the rows for errors; None counts from 0.
    """
    if weights is None or weights == "uniform":
        return None
    if callable(weights):
        with np.errstate(divide="ignore", over="ignore"):  # weights may be infinite
            returned = weights(distances.astype(np.float64))  # a copy, which the function may write into
        found = arrays.real(returned, "weights(distances)").astype(np.float64)
        if found.shape != distances.shape:
            raise ValueError(f"weights returned shape {found.shape} for distances of shape {distances.shape}")
        wrong = ~(found >= 0)
        if wrong.any():
            i, rank = np.unravel_index(wrong.argmax(), wrong.shape)
            raise ValueError(
                f"weights returned {found[i, rank]} for the distance {distances[i, rank]} of row {_row(i, rows)}; "
                "a weight must be a number of at least 0"
            )
        largest = found.max(axis=1, keepdims=True)
        found = np.where(np.isinf(largest), np.isinf(found), _in_units_near(largest, found))
    else:
        distances = distances.astype(np.float64, copy=False)
        nearest = distances[:, :1]
        with np.errstate(divide="ignore", over="ignore"):
            found = np.where(nearest == 0, distances == 0, 1 / _in_units_near(nearest, distances))
    without = ~found.any(axis=1)
    if without.any():
        row = _row(without.argmax(), rows)
        raise ValueError(f"all neighbours of row {row} have weight 0; at least one must count")
    return found


def _row(place: np.intp, rows: NDArray[np.intp] | None) -> np.intp:
    return place if rows is None else rows[place]


def _in_units_near(size: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide each row by the power of two next to its `size` (n, 1): exact."""
    with np.errstate(over="ignore", under="ignore"):
        scaled: NDArray[np.float64] = np.ldexp(values, -np.frexp(size)[1])
    return scaled


def most_votes(
    codes: NDArray[np.intp],
    indices: NDArray[np.intp],
    n_classes: int,
    weights: NDArray[np.float64] | None,
    factors: NDArray[np.float64] | None = None,
) -> NDArray[np.intp]:
    """Return the class number (n,) with most votes, the smallest of equals.

    `codes` has the class number of each training row, `indices` (n, k) the neighbours, `factors` (n_classes,) what the
    votes of a class count. Where classes are many, only the labels among the neighbours are counted, so that neither
    time nor room grow with the number of classes.
    """
    n, k = indices.shape
    if k == 1 and factors is None:
        return codes[indices[:, 0]]
    winners = np.empty(n, np.intp)
    many = n_classes > _CLASSES_PER_NEIGHBOR * k
    for some in _blocks(n, k if many else max(k, n_classes)):
        votes_for, counted = codes[indices[some]], None if weights is None else weights[some]
        if not many:
            votes = _count_votes(votes_for, n_classes, counted)
            if factors is not None:
                votes = _times_factors(votes, factors, some.start)
            winners[some] = votes.argmax(axis=1)  # the first of equals
            continue
        # A stable sort: of equal labels the nearer neighbour stays first, so sums have the order that they have above.
        order = votes_for.argsort(axis=1, kind="stable")
        votes_for = np.take_along_axis(votes_for, order, axis=1)
        places = np.zeros_like(votes_for)  # of each label among the row's own labels
        np.cumsum(votes_for[:, 1:] != votes_for[:, :-1], axis=1, out=places[:, 1:])
        if counted is not None:
            counted = np.take_along_axis(counted, order, axis=1)
        votes = _count_votes(places, k, counted)
        if factors is not None:
            own = np.zeros_like(places)
            np.put_along_axis(own, places, votes_for, axis=1)
            votes = _times_factors(votes, factors[own], some.start)
        winning = votes.argmax(axis=1)
        first = (places == winning[:, np.newaxis]).argmax(axis=1)
        winners[some] = votes_for[np.arange(len(first)), first]
    return winners


def vote_shares(
    codes: NDArray[np.intp],
    indices: NDArray[np.intp],
    n_classes: int,
    weights: NDArray[np.float64] | None,
    factors: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return each class's share of the votes (n, n_classes); arguments as in `most_votes`."""
    n, k = indices.shape
    shares = np.empty((n, n_classes))
    for some in _blocks(n, max(k, n_classes)):
        votes = _count_votes(codes[indices[some]], n_classes, None if weights is None else weights[some])
        if factors is not None:
            votes = _times_factors(votes, factors, some.start)
        np.divide(votes, votes.sum(axis=1, keepdims=True), out=shares[some])
    return shares


def _count_votes(codes: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64] | None) -> NDArray[Any]:
    """Return the votes (n, n_classes), from the class numbers (n, k) of the neighbours, added up from near to far."""
    n = len(codes)
    places = codes + np.arange(0, n * n_classes, n_classes)[:, np.newaxis]
    counted = None if weights is None else weights.ravel()
    votes: NDArray[Any] = np.bincount(places.ravel(), counted, minlength=n * n_classes).reshape(n, n_classes)
    return votes


def _times_factors(votes: NDArray[Any], factors: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Return votes of rows, numbered from `first` on, times the factors of their classes."""
    counted: NDArray[np.float64] = votes * factors
    without = ~counted.any(axis=1)
    if without.any():
        raise ValueError(
            f"all neighbours of row {first + without.argmax()} have labels of class_weight 0; at least one must count"
        )
    return counted


def are_large(targets: NDArray[np.float64]) -> bool:
    """Whether sums of these may leave the range of float64; NaN among them do not matter."""
    largest = max(np.fmax.reduce(targets, axis=None, initial=0), -np.fmin.reduce(targets, axis=None, initial=0))
    return bool(largest > _LARGE)


def mean_over_ranks(
    targets: NDArray[np.float64],
    indices: NDArray[np.intp],
    weights: NDArray[np.float64] | None,
    large: bool,
) -> NDArray[np.float64]:
    """Return the weighted mean over each row's neighbours, summed from the nearest to the farthest.

    `targets` is (m,) or (m, outputs), `indices` (n, k); the result is (n,) or (n, outputs). Where targets are `large`
    (see `are_large`) and a sum leaves the range of float64, it is made of targets over a power of two.
    """
    if not large:
        return _means_over_ranks(targets, indices, weights)
    with np.errstate(over="ignore", invalid="ignore"):
        means = _means_over_ranks(targets, indices, weights)
    rows = ~np.isfinite(means).all(axis=tuple(range(1, means.ndim)))
    again = _means_over_ranks(np.ldexp(targets, -_SHIFT), indices[rows], None if weights is None else weights[rows])
    means[rows] = np.where(np.isfinite(means[rows]), means[rows], in_range(again, _SHIFT))
    return means


def in_range(means: NDArray[np.float64], shift: int) -> NDArray[np.float64]:
    """Multiply means by a power of two; one that rounding has moved out of the range of float64 is moved back."""
    most = np.finfo(np.float64).max
    with np.errstate(over="ignore"):
        multiplied: NDArray[np.float64] = np.clip(np.ldexp(means, shift), -most, most)
    return multiplied


def _means_over_ranks(
    targets: NDArray[np.float64], indices: NDArray[np.intp], weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    n, k = indices.shape
    means = np.empty((n, *targets.shape[1:]))
    for some in _blocks(n, k * targets[:1].size):
        values = targets[indices[some]]
        total: Any = float(k)
        if weights is not None:
            values *= weights[some].reshape(*values.shape[:2], *[1] * (targets.ndim - 1))
            total = _sum_over_ranks(weights[some]).reshape(-1, *[1] * (targets.ndim - 1))
        np.divide(_sum_over_ranks(values), total, out=means[some])
    return means


def _sum_over_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = values[:, 0].copy()
    for rank in range(1, values.shape[1]):
        total += values[:, rank]
    return total


def _blocks(n: int, entries: int) -> Iterator[slice]:
    """Yield blocks of n rows that have so many entries each."""
    step = max(1, _AT_ONCE // entries)
    for first in range(0, n, step):
        yield slice(first, first + step)
