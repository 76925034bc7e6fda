"""Nearest-neighbour models: exact, on `fastml.kernels.k_nearest`, with scikit-learn's interface.

Two decisions hold for all that is here. Neighbours are ordered by (distance, row of the training
data), so that a tie in distance is always settled the same way. And what is summed over neighbours is
summed in that order, one after the other, so that a prediction depends on its row alone: the same bits
in any batch, for any number of threads, and in `fastml.knn_cross_validation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from . import _estimators
from ._checks import unchanged_if_refused, validate_data
from .kernels import _validate, k_nearest

__all__ = ["KNeighborsClassifier", "KNeighborsRegressor"]

Weights = Literal["uniform", "distance"] | Callable[[NDArray[np.float64]], ArrayLike] | None

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

    def _fit(self, X: ArrayLike, y: ArrayLike, *, y_numeric: bool) -> NDArray[Any]:
        """Check all parameters, keep the rows, and return the targets as (n, outputs)."""
        _estimators.positive_integer(self.n_neighbors, "n_neighbors")
        check_weights(self.weights)
        _estimators.threads(self.n_jobs)
        self.effective_metric_ = _SCIKIT_LEARN_NAMES[settled_metric(self.metric, self.p)]
        rows, targets = validate_data(self, X, y, multi_output=True, y_numeric=y_numeric)
        # The dtype that the kernels work in, settled now and not at every call: uint8 stays uint8.
        self._fit_X, _, _ = _validate.pair(rows)
        self.n_samples_fit_ = len(self._fit_X)
        self.outputs_2d_ = targets.ndim == 2 and targets.shape[1] > 1
        columns: NDArray[Any] = targets if self.outputs_2d_ else column_or_1d(targets, warn=True)[:, np.newaxis]
        return columns

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

    def _one_or_several(self, outputs: list[NDArray[Any]]) -> NDArray[Any]:
        """Join one column per output as scikit-learn does: (n,) for a 1-D target."""
        return np.stack(outputs, axis=1) if self.outputs_2d_ else outputs[0]


class KNeighborsClassifier(ClassifierMixin, _KNeighbors):
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
        function makes of the distances, a float64 array (n, k), as an array of the same shape.
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
        y : array-like of shape (n,) or (n, outputs)
            Labels: numbers or strings.

        Returns
        -------
        self
        """
        targets = self._fit(X, y, y_numeric=False)
        check_classification_targets(targets)
        numbered = [np.unique(column, return_inverse=True) for column in targets.T]
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
        winners = [votes.argmax(axis=1) for votes in self._votes(X)]  # the first of equals
        return self._one_or_several([labels[w] for labels, w in zip(self._labels, winners, strict=True)])

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
        shares = [votes / votes.sum(axis=1, keepdims=True) for votes in self._votes(X)]
        return shares if self.outputs_2d_ else shares[0]

    def _votes(self, X: ArrayLike | None) -> list[NDArray[Any]]:
        weights, indices = self._weighted_neighbors(X)
        numbered = zip(self._labels, self._y, strict=True)
        return [count_votes(codes[indices], len(labels), weights) for labels, codes in numbered]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class KNeighborsRegressor(RegressorMixin, _KNeighbors):
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
        function makes of the distances, a float64 array (n, k), as an array of the same shape.
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
        Whether the targets had several columns.

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
        y : array-like of shape (n,) or (n, outputs)
            Targets, finite.

        Returns
        -------
        self
        """
        targets = self._fit(X, y, y_numeric=True)
        self._y = [np.ascontiguousarray(column, np.float64) for column in targets.T]
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
            The (weighted) mean over the neighbours.
        """
        weights, indices = self._weighted_neighbors(X)
        return self._one_or_several([mean_over_ranks(values[indices], weights) for values in self._y])


def settled_metric(metric: str, p: float = 2) -> _validate.Metric:
    """Return the kernels' name of a metric: "l1", "l2" or "linf"."""
    if metric != "minkowski":
        try:
            return _validate.metric(metric)
        except ValueError:
            known = ", ".join(map(repr, ("minkowski", *_validate.METRICS)))
            raise ValueError(f"metric is {metric!r}; it must be one of {known}") from None
    for power, name in ((1, "l1"), (2, "l2"), (np.inf, "linf")):
        if p == power:
            return _validate.metric(name)
    raise ValueError(f"p is {p!r}; it must be 1, 2 or infinity")


def check_weights(weights: Weights) -> None:
    """Refuse what cannot say how much a neighbour counts."""
    if not (weights is None or callable(weights) or weights in ("uniform", "distance")):
        raise ValueError(f"weights is {weights!r}; it must be 'uniform', 'distance', a callable or None")


def weights_of(distances: NDArray[Any], weights: Weights) -> NDArray[np.float64] | None:
    """Return what each neighbour counts, (n, k) like `distances`; None where all count the same."""
    if weights is None or weights == "uniform":
        return None
    distances = distances.astype(np.float64, copy=False)
    if callable(weights):
        found = np.asarray(weights(distances), np.float64)
        if found.shape != distances.shape:
            raise ValueError(f"weights returned shape {found.shape} for distances of shape {distances.shape}")
    else:
        with np.errstate(divide="ignore"):
            found = 1 / distances
        at_the_point = np.isinf(found)
        found = np.where(at_the_point.any(axis=1, keepdims=True), at_the_point, found)
    without = found.sum(axis=1) == 0
    if without.any():
        raise ValueError(f"all neighbours of row {without.argmax()} have weight 0; at least one must count")
    return found


def count_votes(codes: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64] | None) -> NDArray[Any]:
    """Return the votes (n, C) for each class number, from the class numbers (n, k) of the neighbours."""
    n = len(codes)
    places = codes + np.arange(0, n * n_classes, n_classes)[:, np.newaxis]
    counted = None if weights is None else weights.ravel()
    votes: NDArray[Any] = np.bincount(places.ravel(), counted, minlength=n * n_classes).reshape(n, n_classes)
    return votes


def mean_over_ranks(values: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return the weighted mean of each row of (n, k), summed from the first column to the last."""
    if weights is None:
        weights = np.ones(values.shape)
    mean: NDArray[np.float64] = _sum_over_ranks(values * weights) / _sum_over_ranks(weights)
    return mean


def _sum_over_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = values[:, 0].copy()
    for column in values.T[1:]:
        total += column
    return total
