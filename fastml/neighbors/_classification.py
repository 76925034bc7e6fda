"""Classification by the votes of the nearest neighbours."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin

from ..utils.validation import CheckedScore, unchanged_if_refused
from ._base import KNeighbors
from .voting import most_votes, numbered_labels, vote_shares

__all__ = ["KNeighborsClassifier"]


class KNeighborsClassifier(CheckedScore, ClassifierMixin, KNeighbors):
    """Classification by a vote of the nearest neighbours.

    The label with most votes wins; of labels with equally many, the smallest. scikit-learn's parameters
    of the same names mean the same.

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
    classes_ : ndarray of shape (C,), or a list of them for several outputs
        The labels, sorted.
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
    uint8 data stay uint8: an eighth of the memory of float64, exact distances, and several times the
    speed. `fit` keeps a reference to `X` where its dtype and layout suit the kernels (C order; uint8,
    float32 or float64), a copy otherwise. Data and queries of different dtypes are brought to a common
    one at every call. Searches keep a tree, or for few queries of long rows a copy rounded to bytes, when all queries
    so far repay it; pickles do not have it.

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
        self._labels, self._y = numbered_labels(targets)
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
