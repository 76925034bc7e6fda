"""Regression by the mean over the nearest neighbours."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin

from ..utils.validation import CheckedScore, unchanged_if_refused
from ._base import KNeighbors
from .voting import are_large, mean_over_ranks

__all__ = ["KNeighborsRegressor"]


class KNeighborsRegressor(CheckedScore, RegressorMixin, KNeighbors):
    """Regression by the mean over the nearest neighbours.

    scikit-learn's parameters of the same names mean the same.

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours that take part in a prediction.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a neighbour counts: all the same (None means that too); the inverse of its distance,
        where neighbours at distance 0, if there are any, are the only ones to count; or what a
        function makes of the distances, a float64 array (n, k), as an array of the same shape, not
        negative and not NaN. Where some of its weights are infinite, these alone count, all the same.
    algorithm : {"auto", "brute", "kd_tree", "ball_tree"}, default="auto"
        How neighbours are looked for; they are the same. "brute" makes no tree, "kd_tree" and "ball_tree" (there is one
        kind) make one at the first search, "auto" when the queries so far have shown that it repays.
    leaf_size : int, default=30
        Accepted, since scikit-learn has it, and not used: results do not depend on how large the leaves of a tree are.
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or
        "chebyshev"; "sqeuclidean"; "cosine"; of packed bits (uint8) "hamming" and "jaccard".
    metric_params : dict or None, default=None
        ``{"w": weights}`` of the columns, see `fastml.kernels.k_nearest`.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see
        `fastml.kernels`); negative numbers count from there, -1 is all, -2 all but one.

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
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Keep the training rows and their targets.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like or sparse matrix of shape (n,) or (n, outputs)
            Targets, finite. A sparse matrix is made dense.
        sample_weight : array-like of shape (n,) or float, optional
            Weights, as in `KNeighborsClassifier.fit`: a row of weight w is w equal rows.

        Returns
        -------
        self
        """
        targets = self._fit(X, y, sample_weight, y_numeric=True)
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
            The (weighted) mean over the neighbours, in the shape of the targets: (n, 1) for (n, 1).
        """
        weights, indices = self._weighted_neighbors(X)
        return mean_over_ranks(self._y, indices, weights, self._are_large)
