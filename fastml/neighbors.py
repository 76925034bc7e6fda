"""Nearest-neighbour models: exact, on `fastml.kernels.k_nearest`, with scikit-learn's interface.

Two decisions hold for all that is here. Neighbours are ordered by (distance, row of the training
data), so that a tie in distance is always settled the same way. And what is summed over neighbours is
summed in that order, one after the other, so that a prediction depends on its row alone: the same bits
in any batch, for any number of threads, and in `fastml.knn_cross_validation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from . import _estimators
from ._checks import CheckedScore, unchanged_if_refused, validate_data
from .kernels import k_nearest
from .kernels.arguments import arrays
from .kernels.distances import arguments as distances_arguments

__all__ = ["KNeighborsClassifier", "KNeighborsRegressor"]

Weights = Literal["uniform", "distance"] | Callable[[NDArray[np.float64]], ArrayLike] | None

#: Votes, or sums over outputs, that are made at once: 512 KB, so that they stay in the cache.
_AT_ONCE = 1 << 16

#: Up to so many classes for each neighbour, counting all of them costs less than sorting the neighbours' labels.
_CLASSES_PER_NEIGHBOR = 64

_SCIKIT_LEARN_NAMES = {"l1": "manhattan", "l2": "euclidean", "linf": "chebyshev"}


class _KNeighbors(MultiOutputMixin, BaseEstimator):
    """The search for neighbours, which classifier and regressor share."""

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        weights: Weights = "uniform",
        p: float = 2,
        metric: str = "minkowski",
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.p = p
        self.metric = metric
        self.n_jobs = n_jobs

    def _fit(self, X: ArrayLike, y: Any, *, y_numeric: bool) -> NDArray[Any]:
        """Check all parameters, keep the rows, and return the targets as a dense array."""
        _estimators.positive_integer(self.n_neighbors, "n_neighbors")
        check_weights(self.weights)
        _estimators.threads(self.n_jobs)
        self.effective_metric_ = _SCIKIT_LEARN_NAMES[settled_metric(self.metric, self.p)]
        y = y.toarray() if issparse(y) else y
        rows, targets = validate_data(self, X, y, multi_output=True, y_numeric=y_numeric)
        # The dtype that the kernels work in, settled now and not at every call: uint8 stays uint8.
        self._fit_X, _, _ = distances_arguments.pair(rows)
        self.n_samples_fit_ = len(self._fit_X)
        checked: NDArray[Any] = targets
        return checked

    def kneighbors(
        self, X: ArrayLike | None = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[NDArray[Any], NDArray[np.intp]] | NDArray[np.intp]:
        """Find the nearest training rows.

        Parameters
        ----------
        X : array-like of shape (n, D), optional
            The queries; None means the training rows, each without itself.
        n_neighbors : int, optional
            How many; None means the parameter of that name.
        return_distance : bool, default=True
            Whether to return the distances as well.

        Returns
        -------
        distances : ndarray of shape (n, k)
            Ascending; dtype as in `fastml.kernels.k_nearest` (exact int32 for uint8 data and L1 or
            L-infinity). Only with `return_distance`.
        indices : ndarray of shape (n, k), intp
            Rows of the training data; the smaller first where distances are equal.
        """
        distances, indices = self._search(X, n_neighbors)
        return (distances, indices) if return_distance else indices

    def _search(self, X: ArrayLike | None, n_neighbors: int | None = None) -> tuple[NDArray[Any], NDArray[np.intp]]:
        check_is_fitted(self)
        k = _estimators.positive_integer(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors")
        queries = self._fit_X if X is None else validate_data(self, X, reset=False)
        if k > self.n_samples_fit_ - (X is None):
            left_out = ", of which each query leaves out one (itself)" if X is None else ""
            raise ValueError(f"n_neighbors is {k}; there are {self.n_samples_fit_} training rows{left_out}")
        return k_nearest(
            queries,
            self._fit_X,
            k,
            metric=self.effective_metric_,
            exclude_self=X is None,
            n_threads=_estimators.threads(self.n_jobs),
        )

    def kneighbors_graph(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        mode: Literal["connectivity", "distance"] = "connectivity",
    ) -> csr_matrix:
        """Return the neighbours as a sparse matrix.

        Parameters
        ----------
        X, n_neighbors
            As in `kneighbors`.
        mode : {"connectivity", "distance"}, default="connectivity"
            What stands at (query, neighbour): 1.0, or the distance.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, number of training rows)
            With k entries in a row, from near to far.
        """
        if mode not in ("connectivity", "distance"):
            raise ValueError(f"mode is {mode!r}; it must be 'connectivity' or 'distance'")
        distances, indices = self._search(X, n_neighbors)
        n, k = indices.shape
        values = distances.ravel() if mode == "distance" else np.ones(n * k)
        return csr_matrix((values, indices.ravel(), np.arange(0, n * k + 1, k)), (n, self.n_samples_fit_))

    def _weighted_neighbors(self, X: ArrayLike | None) -> tuple[NDArray[np.float64] | None, NDArray[np.intp]]:
        distances, indices = self._search(X)
        return weights_of(distances, self.weights), indices


class KNeighborsClassifier(CheckedScore, ClassifierMixin, _KNeighbors):
    """Classification by a vote of the nearest neighbours.

    The label with most votes wins; of labels with equally many, the smallest. scikit-learn's parameters
    of the same names mean the same; its `algorithm`, `leaf_size` and `metric_params` do not exist
    here, because the search is always exact and by brute force.

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours that take part in a prediction.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a neighbour counts: all the same (None means that too); the inverse of its distance,
        where neighbours at distance 0, if there are any, are the only ones to count; or what a
        function makes of the distances, a float64 array (n, k), as an array of the same shape, not
        negative and not NaN. Where some of its weights are infinite, these alone count, all the same.
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or
        "chebyshev".
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see
        `fastml.kernels`); negative numbers count from there, -1 is all, -2 all but one.

    Attributes
    ----------
    classes_ : ndarray of shape (C,), or a list of them for several outputs
        The labels, sorted.
    effective_metric_ : {"manhattan", "euclidean", "chebyshev"}
        The metric in use.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.
    outputs_2d_ : bool
        Whether the targets had several columns.

    Notes
    -----
    uint8 data stay uint8: an eighth of the memory of float64, exact distances, and several times the
    speed. `fit` keeps a reference to `X` where its dtype and layout suit the kernels (C order; uint8,
    float32 or float64), a copy otherwise. Data and queries of different dtypes are brought to a common
    one at every call.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import KNeighborsClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = KNeighborsClassifier(n_neighbors=3).fit(X[:1500], y[:1500])
    >>> round(model.score(X[1500:], y[1500:]), 3)
    0.96
    >>> model.predict(X[1500:1505])
    array([1, 7, 4, 6, 3])
    """

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Keep the training rows and number their labels.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like or sparse matrix of shape (n,) or (n, outputs)
            Labels: numbers or strings. A sparse matrix is made dense. One column (n, 1) is taken as (n,), with
            scikit-learn's warning.

        Returns
        -------
        self
        """
        targets = self._fit(X, y, y_numeric=False)
        self.outputs_2d_ = targets.ndim == 2 and targets.shape[1] > 1
        columns = targets if self.outputs_2d_ else column_or_1d(targets, warn=True)[:, np.newaxis]
        check_classification_targets(columns)
        numbered = [np.unique(column, return_inverse=True) for column in columns.T]
        self._labels = [labels for labels, _ in numbered]
        self._y = [codes for _, codes in numbered]
        self.classes_ = self._labels if self.outputs_2d_ else self._labels[0]
        return self

    def predict(self, X: ArrayLike | None) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, D), or None
            The queries; None predicts each training row from the others.

        Returns
        -------
        ndarray of shape (n,) or (n, outputs)
            The label with most votes, the smallest on a tie.
        """
        weights, indices = self._weighted_neighbors(X)
        predicted = np.empty((len(indices), len(self._labels)), self._labels[0].dtype)
        for output, (labels, codes) in enumerate(zip(self._labels, self._y, strict=True)):
            predicted[:, output] = labels[most_votes(codes, indices, len(labels), weights)]
        return predicted if self.outputs_2d_ else predicted[:, 0]

    def predict_proba(self, X: ArrayLike | None) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """Predict each label's share of the votes.

        Parameters
        ----------
        X : array-like of shape (n, D), or None
            The queries; None predicts each training row from the others.

        Returns
        -------
        ndarray of shape (n, C), or a list of them for several outputs
            Columns in the order of `classes_`; rows sum to 1.
        """
        weights, indices = self._weighted_neighbors(X)
        numbered = zip(self._labels, self._y, strict=True)
        shares = [vote_shares(codes, indices, len(labels), weights) for labels, codes in numbered]
        return shares if self.outputs_2d_ else shares[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class KNeighborsRegressor(CheckedScore, RegressorMixin, _KNeighbors):
    """Regression by the mean over the nearest neighbours.

    scikit-learn's parameters of the same names mean the same; its `algorithm`, `leaf_size` and
    `metric_params` do not exist here, because the search is always exact and by brute force.

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours that take part in a prediction.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a neighbour counts: all the same (None means that too); the inverse of its distance,
        where neighbours at distance 0, if there are any, are the only ones to count; or what a
        function makes of the distances, a float64 array (n, k), as an array of the same shape, not
        negative and not NaN. Where some of its weights are infinite, these alone count, all the same.
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or
        "chebyshev".
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see
        `fastml.kernels`); negative numbers count from there, -1 is all, -2 all but one.

    Attributes
    ----------
    effective_metric_ : {"manhattan", "euclidean", "chebyshev"}
        The metric in use.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.
    outputs_2d_ : bool
        Whether the targets had columns, be it one.

    Notes
    -----
    What is said of data and dtypes at `KNeighborsClassifier` holds here.

    Examples
    --------
    >>> from fastml import KNeighborsRegressor
    >>> model = KNeighborsRegressor(n_neighbors=2).fit([[0.0], [1.0], [2.0]], [0.0, 10.0, 40.0])
    >>> model.predict([[1.6]])
    array([25.])
    """

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Keep the training rows and their targets.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like or sparse matrix of shape (n,) or (n, outputs)
            Targets, finite. A sparse matrix is made dense.

        Returns
        -------
        self
        """
        targets = self._fit(X, y, y_numeric=True)
        self.outputs_2d_ = targets.ndim == 2
        self._y = np.ascontiguousarray(targets, np.float64)
        return self

    def predict(self, X: ArrayLike | None) -> NDArray[np.float64]:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n, D), or None
            The queries; None predicts each training row from the others.

        Returns
        -------
        ndarray of shape (n,) or (n, outputs), float64
            The (weighted) mean over the neighbours, in the shape of the targets: (n, 1) for (n, 1).
        """
        weights, indices = self._weighted_neighbors(X)
        return mean_over_ranks(self._y, indices, weights)


def settled_metric(metric: str, p: float = 2) -> distances_arguments.Metric:
    """Return the kernels' name of a metric: "l1", "l2" or "linf"."""
    if not (isinstance(metric, str) and metric == "minkowski"):
        try:
            return distances_arguments.metric(metric)
        except (TypeError, ValueError) as error:
            known = ", ".join(map(repr, ("minkowski", *distances_arguments.METRICS)))
            raise type(error)(f"metric is {metric!r}; it must be one of {known}") from None
    for power, name in ((1, "l1"), (2, "l2"), (np.inf, "linf")):
        if np.ndim(p) == 0 and p == power:
            return distances_arguments.metric(name)
    raise ValueError(f"p is {p!r}; it must be 1, 2 or infinity")


def check_weights(weights: Weights) -> None:
    """Refuse what cannot say how much a neighbour counts."""
    if isinstance(weights, str):
        came, known = repr(weights), weights in ("uniform", "distance")
    else:
        came, known = f"of type {type(weights).__name__}", weights is None or callable(weights)
    if not known:
        raise ValueError(f"weights is {came}; it must be 'uniform', 'distance', a callable or None")


def weights_of(
    distances: NDArray[Any], weights: Weights, rows: NDArray[np.intp] | None = None
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
    codes: NDArray[np.intp], indices: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64] | None
) -> NDArray[np.intp]:
    """Return the class number (n,) with most votes, the smallest of equals.

    `codes` has the class number of each training row, `indices` (n, k) the neighbours. Where classes are many, only the
    labels among the neighbours are counted, so that neither time nor room grow with the number of classes.
    """
    n, k = indices.shape
    if k == 1:
        return codes[indices[:, 0]]
    winners = np.empty(n, np.intp)
    many = n_classes > _CLASSES_PER_NEIGHBOR * k
    for some in _blocks(n, k if many else max(k, n_classes)):
        votes_for, counted = codes[indices[some]], None if weights is None else weights[some]
        if not many:
            winners[some] = _count_votes(votes_for, n_classes, counted).argmax(axis=1)  # the first of equals
            continue
        # A stable sort: of equal labels the nearer neighbour stays first, so sums have the order that they have above.
        order = votes_for.argsort(axis=1, kind="stable")
        votes_for = np.take_along_axis(votes_for, order, axis=1)
        places = np.zeros_like(votes_for)  # of each label among the row's own labels
        np.cumsum(votes_for[:, 1:] != votes_for[:, :-1], axis=1, out=places[:, 1:])
        if counted is not None:
            counted = np.take_along_axis(counted, order, axis=1)
        winning = _count_votes(places, k, counted).argmax(axis=1)
        first = (places == winning[:, np.newaxis]).argmax(axis=1)
        winners[some] = votes_for[np.arange(len(first)), first]
    return winners


def vote_shares(
    codes: NDArray[np.intp], indices: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return each class's share of the votes (n, n_classes); arguments as in `most_votes`."""
    n, k = indices.shape
    shares = np.empty((n, n_classes))
    for some in _blocks(n, max(k, n_classes)):
        votes = _count_votes(codes[indices[some]], n_classes, None if weights is None else weights[some])
        np.divide(votes, votes.sum(axis=1, keepdims=True), out=shares[some])
    return shares


def _count_votes(codes: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64] | None) -> NDArray[Any]:
    """Return the votes (n, n_classes), from the class numbers (n, k) of the neighbours, added up from near to far."""
    n = len(codes)
    places = codes + np.arange(0, n * n_classes, n_classes)[:, np.newaxis]
    counted = None if weights is None else weights.ravel()
    votes: NDArray[Any] = np.bincount(places.ravel(), counted, minlength=n * n_classes).reshape(n, n_classes)
    return votes


def mean_over_ranks(
    targets: NDArray[np.float64], indices: NDArray[np.intp], weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the weighted mean over each row's neighbours, summed from the nearest to the farthest.

    `targets` is (m,) or (m, outputs), `indices` (n, k); the result is (n,) or (n, outputs).
    """
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
