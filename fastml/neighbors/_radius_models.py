"""Classification, regression and a graph, of the neighbours within a radius."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse
from sklearn.base import (
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    MultiOutputMixin,
    RegressorMixin,
    TransformerMixin,
)

from ..utils import parameters
from ..utils.validation import CheckedScore, unchanged_if_refused
from ._radius import RadiusNeighborsMixin, blocks_of_rows, checked_radius, owners, weights_within
from .voting import NeighborWeights, are_large, check_weights, in_range, numbered_labels

__all__ = ["RadiusNeighborsClassifier", "RadiusNeighborsRegressor", "RadiusNeighborsTransformer"]


class _WithTargets(MultiOutputMixin, RadiusNeighborsMixin):
    """What classifier and regressor share."""

    weights: NeighborWeights

    def _fit(self, X: ArrayLike, y: Any, *, y_numeric: bool) -> NDArray[Any]:
        check_weights(self.weights)
        checked_radius(self.radius)
        y = y.toarray() if issparse(y) else y
        checked: NDArray[Any] = self._fit_rows(X, y, multi_output=True, y_numeric=y_numeric)
        return checked

    def _weighted(self, X: ArrayLike | None) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64] | None]:
        indptr, indices, distances = self._search_within(X)
        return indptr, indices, weights_within(distances, indptr, self.weights)


class RadiusNeighborsClassifier(CheckedScore, ClassifierMixin, _WithTargets):
    """Classification by a vote of all neighbours within a radius.

    The label with most votes wins; of labels with equally many, the smallest. scikit-learn's parameters
    of the same names mean the same.

    Parameters
    ----------
    radius : float, default=1.0
        The largest distance of a neighbour.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a neighbour counts, as in `KNeighborsClassifier`. A function gets an array of arrays of float64, the
        distances of each query that has neighbours, and returns as many numbers for each.
    algorithm : {"auto", "brute", "kd_tree", "ball_tree"}, default="auto"
        How neighbours are looked for, as of `KNeighborsClassifier`; they are the same.
    leaf_size : int, default=30
        Accepted, since scikit-learn has it, and not used: results do not depend on how large the leaves of a tree are.
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or "chebyshev";
        "sqeuclidean"; "cosine"; of packed bits (uint8) "hamming" and "jaccard".
    outlier_label : label, "most_frequent", list of labels or None, default=None
        What a query without neighbours is predicted as: a label, one for each output, or the most frequent one. None
        refuses such queries.
    metric_params : dict or None, default=None
        ``{"w": weights}`` of the columns, see `fastml.kernels.k_nearest`.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use; negative numbers count from there.

    Attributes
    ----------
    classes_ : ndarray of shape (C,), or a list of them for several outputs
        The labels, sorted.
    outlier_label_ : list or None
        The label of queries without neighbours, for each output.
    effective_metric_ : str
        The metric in use: "manhattan", "euclidean", "chebyshev", "sqeuclidean", "cosine", "hamming" or "jaccard"; of
        weighted columns and ``metric="minkowski"`` this name.
    effective_metric_params_ : dict
        The weights of the columns, and what "minkowski" needs, where there are weights.
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
    >>> from fastml import RadiusNeighborsClassifier
    >>> model = RadiusNeighborsClassifier(1.5, outlier_label=-1).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    >>> model.predict([[0.9], [2.2], [9.0]])
    array([ 0,  1, -1])
    >>> model.predict_proba([[0.9]])
    array([[0.66666667, 0.33333333]])
    """

    def __init__(
        self,
        radius: float = 1.0,
        *,
        weights: NeighborWeights = "uniform",
        algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"] = "auto",
        leaf_size: int = 30,
        p: float = 2,
        metric: str = "minkowski",
        outlier_label: Any = None,
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.radius = radius
        self.weights = weights
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.p = p
        self.metric = metric
        self.outlier_label = outlier_label
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Keep the training rows and number their labels.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like or sparse matrix of shape (n,) or (n, outputs)
            Labels, as in `KNeighborsClassifier.fit`.

        Returns
        -------
        self
        """
        targets = self._fit(X, y, y_numeric=False)
        self.outputs_2d_ = targets.ndim == 2 and targets.shape[1] > 1
        self._labels, self._y = numbered_labels(targets)
        self.classes_ = self._labels if self.outputs_2d_ else self._labels[0]
        self.outlier_label_ = self._checked_outlier_labels()
        return self

    def _checked_outlier_labels(self) -> list[Any] | None:
        label = self.outlier_label
        if label is None:
            return None
        if isinstance(label, str) and label == "most_frequent":
            numbered = zip(self._labels, self._y, strict=True)
            return [labels[np.bincount(codes).argmax()] for labels, codes in numbered]
        labels = [label] * len(self._labels) if np.ndim(label) == 0 else list(label)
        if len(labels) != len(self._labels):
            raise ValueError(f"outlier_label has {len(labels)} entries, y has {len(self._labels)} outputs")
        for own, known in zip(labels, self._labels, strict=True):
            if np.ndim(own):
                raise TypeError(f"outlier_label is {own!r} for one output; it must be a single label")
            if np.append(known, own).dtype != known.dtype:
                raise TypeError(f"outlier_label is {own!r}; labels of y are {known.dtype}")
        return labels

    def predict(self, X: ArrayLike | None) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, D), or None
            The queries; None predicts each training row from the others.

        Returns
        -------
        ndarray of shape (n,) or (n, outputs)
            The label with most votes, the smallest on a tie; without neighbours that of `outlier_label`.
        """
        indptr, indices, weights = self._of_all(X)
        lonely = np.diff(indptr) == 0
        predicted = np.empty((len(lonely), len(self._labels)), self._labels[0].dtype)
        for output, (labels, codes) in enumerate(zip(self._labels, self._y, strict=True)):
            for rows, some, own in blocks_of_rows(indptr, len(labels)):
                votes = _votes(codes[indices[some]], own, len(labels), None if weights is None else weights[some])
                predicted[rows, output] = labels[votes.argmax(axis=1)]  # the first of equals
            if self.outlier_label_ is not None:
                predicted[lonely, output] = self.outlier_label_[output]
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
            Columns in the order of `classes_`; rows sum to 1. Without neighbours it is 1 for `outlier_label`, or,
            with a warning, 0 for all if that is none of the labels.
        """
        indptr, indices, weights = self._of_all(X)
        lonely = np.diff(indptr) == 0
        shares = []
        for output, (labels, codes) in enumerate(zip(self._labels, self._y, strict=True)):
            votes = _votes(codes[indices], indptr, len(labels), weights)
            if lonely.any() and self.outlier_label_ is not None:
                label = self.outlier_label_[output]
                votes[lonely] = labels == label
                if label not in labels:
                    text = f"outlier_label {label!r} is no label of y; shares of rows without neighbours are all 0"
                    warnings.warn(text, UserWarning, stacklevel=2)
            total = votes.sum(axis=1, keepdims=True)
            shares.append(np.divide(votes, total, out=np.zeros_like(votes), where=total > 0))
        return shares if self.outputs_2d_ else shares[0]

    def _of_all(self, X: ArrayLike | None) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64] | None]:
        """Return neighbours and weights, if all queries have some or there is a label for the others."""
        indptr, indices, weights = self._weighted(X)
        lonely = np.flatnonzero(np.diff(indptr) == 0)
        if lonely.size and self.outlier_label_ is None:
            raise ValueError(
                f"{lonely.size} rows have no neighbours within the radius, the first is row {lonely[0]}; "
                "a larger radius, or an outlier_label, is needed"
            )
        return indptr, indices, weights

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _votes(
    codes: NDArray[np.intp], indptr: NDArray[np.intp], n_classes: int, weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the votes (n, n_classes), from the class number of each neighbour, added up from near to far."""
    n = len(indptr) - 1
    votes = np.bincount(owners(indptr) * n_classes + codes, weights, minlength=n * n_classes)
    return votes.reshape(n, n_classes).astype(np.float64, copy=False)


class RadiusNeighborsRegressor(CheckedScore, RegressorMixin, _WithTargets):
    """Regression by the mean over all neighbours within a radius.

    scikit-learn's parameters of the same names mean the same.

    Parameters
    ----------
    radius : float, default=1.0
        The largest distance of a neighbour.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a neighbour counts, as in `RadiusNeighborsClassifier`.
    algorithm : {"auto", "brute", "kd_tree", "ball_tree"}, default="auto"
        How neighbours are looked for, as of `KNeighborsClassifier`; they are the same.
    leaf_size : int, default=30
        Accepted, since scikit-learn has it, and not used: results do not depend on how large the leaves of a tree are.
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or "chebyshev";
        "sqeuclidean"; "cosine"; of packed bits (uint8) "hamming" and "jaccard".
    metric_params : dict or None, default=None
        ``{"w": weights}`` of the columns, see `fastml.kernels.k_nearest`.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use; negative numbers count from there.

    Attributes
    ----------
    effective_metric_ : str
        The metric in use: "manhattan", "euclidean", "chebyshev", "sqeuclidean", "cosine", "hamming" or "jaccard"; of
        weighted columns and ``metric="minkowski"`` this name.
    effective_metric_params_ : dict
        The weights of the columns, and what "minkowski" needs, where there are weights.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.
    outputs_2d_ : bool
        Whether the targets had columns, be it one.

    Examples
    --------
    >>> from fastml import RadiusNeighborsRegressor
    >>> model = RadiusNeighborsRegressor(1.0).fit([[0.0], [1.0], [2.0]], [0.0, 10.0, 40.0])
    >>> model.predict([[1.6]])
    array([25.])
    """

    def __init__(
        self,
        radius: float = 1.0,
        *,
        weights: NeighborWeights = "uniform",
        algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"] = "auto",
        leaf_size: int = 30,
        p: float = 2,
        metric: str = "minkowski",
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.radius = radius
        self.weights = weights
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.p = p
        self.metric = metric
        self.metric_params = metric_params
        self.n_jobs = n_jobs

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
        self._are_large = are_large(self._y)
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
            The (weighted) mean over the neighbours, in the shape of the targets; NaN, with a warning, where there
            are none.
        """
        indptr, indices, weights = self._weighted(X)
        queries, n = owners(indptr), len(indptr) - 1
        totals = np.bincount(queries, weights, minlength=n)
        columns = self._y.reshape(len(self._y), -1)
        means = np.full((n, columns.shape[1]), np.nan)
        shift = 1 + (2 * self.n_samples_fit_).bit_length()
        for output, column in enumerate(columns.T):
            with np.errstate(over="ignore", invalid="ignore"):
                means[:, output] = _means(column, indices, queries, weights, totals)
            if self._are_large:  # sums leave the range, which those of smaller values do not
                large = ~np.isfinite(means[:, output])
                again = _means(np.ldexp(column, -shift), indices, queries, weights, totals)
                means[large, output] = in_range(again[large], shift)
        if not totals.all():
            lonely = np.count_nonzero(totals == 0)
            text = f"{lonely} rows have no neighbours within the radius; NaN is predicted for them"
            warnings.warn(text, UserWarning, stacklevel=2)
        return means if self.outputs_2d_ else means[:, 0]


def _means(
    column: NDArray[np.float64],
    indices: NDArray[np.intp],
    queries: NDArray[np.intp],
    weights: NDArray[np.float64] | None,
    totals: NDArray[Any],
) -> NDArray[np.float64]:
    """Return the mean of each query's neighbours, added up from near to far; NaN where there are none."""
    values = column[indices] if weights is None else column[indices] * weights
    sums = np.bincount(queries, values, minlength=len(totals))
    means: NDArray[np.float64] = np.divide(sums, totals, out=np.full(len(totals), np.nan), where=totals > 0)
    return means


class RadiusNeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RadiusNeighborsMixin):
    """The graph of neighbours within a radius, for models that take one as ``metric="precomputed"``.

    Parameters
    ----------
    mode : {"distance", "connectivity"}, default="distance"
        What stands at (query, neighbour): the distance, or 1.0.
    radius : float, default=1.0
        The largest distance of a neighbour.
    algorithm : {"auto", "brute", "kd_tree", "ball_tree"}, default="auto"
        How neighbours are looked for, as of `KNeighborsClassifier`; they are the same.
    leaf_size : int, default=30
        Accepted, since scikit-learn has it, and not used: results do not depend on how large the leaves of a tree are.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or "chebyshev";
        "sqeuclidean"; "cosine"; of packed bits (uint8) "hamming" and "jaccard".
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric_params : dict or None, default=None
        ``{"w": weights}`` of the columns, see `fastml.kernels.k_nearest`.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use; negative numbers count from there.

    Attributes
    ----------
    effective_metric_ : str
        The metric in use: "manhattan", "euclidean", "chebyshev", "sqeuclidean", "cosine", "hamming" or "jaccard"; of
        weighted columns and ``metric="minkowski"`` this name.
    effective_metric_params_ : dict
        The weights of the columns, and what "minkowski" needs, where there are weights.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Examples
    --------
    >>> from sklearn.cluster import DBSCAN
    >>> from sklearn.pipeline import make_pipeline
    >>> from fastml.neighbors import RadiusNeighborsTransformer
    >>> X = [[0.0], [0.5], [1.0], [8.0], [8.2], [8.4]]
    >>> model = make_pipeline(RadiusNeighborsTransformer(radius=1.0), DBSCAN(0.6, min_samples=2, metric="precomputed"))
    >>> model.fit_predict(X)
    array([0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        *,
        mode: Literal["distance", "connectivity"] = "distance",
        radius: float = 1.0,
        algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"] = "auto",
        leaf_size: int = 30,
        metric: str = "minkowski",
        p: float = 2,
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.mode = mode
        self.radius = radius
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Keep the training rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : None
            Not looked at.

        Returns
        -------
        self
        """
        parameters.one_of(self.mode, "mode", ("distance", "connectivity"))
        checked_radius(self.radius)
        self._fit_rows(X)
        self._n_features_out = self.n_samples_fit_
        return self

    def transform(self, X: ArrayLike) -> csr_matrix:
        """Return the training rows within the radius of each query.

        Parameters
        ----------
        X : array-like of shape (n, D)
            The queries. A training row is a neighbour of itself.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, number of training rows)
            Entries of a row from near to far, distances of 0 among them.
        """
        return self.radius_neighbors_graph(X, mode=self.mode)
