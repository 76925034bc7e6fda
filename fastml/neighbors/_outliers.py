"""Outliers, as rows whose neighbours lie closer together than they do."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ..utils import parameters
from ..utils.validation import unchanged_if_refused
from ._base import NeighborSearch

__all__ = ["LocalOutlierFactor"]

#: Added to mean distances, as scikit-learn does: rows that are there more often than they have neighbours have mean 0.
_NOTHING = 1e-10

#: From factors of this size on, rows that are there many times decide what is an outlier.
_BY_DUPLICATES = 1e7


def _of_training_rows(model: LocalOutlierFactor) -> bool:
    if model.novelty:
        raise AttributeError("fit_predict is for the rows of the fit; with novelty=True use predict, for new rows")
    return True


def _of_new_rows(model: LocalOutlierFactor) -> bool:
    if not model.novelty:
        raise AttributeError(
            "new rows are for novelty=True; with novelty=False use fit_predict, and negative_outlier_factor_"
        )
    return True


class LocalOutlierFactor(OutlierMixin, NeighborSearch):
    """Outliers, as rows whose neighbours lie closer together than they do.

    The reachability of a row from a neighbour is their distance, or that of the neighbour's own `n_neighbors`-th
    neighbour if it is larger; the density of a row is the inverse of the mean over its neighbours. The local outlier
    factor is the mean ratio of the neighbours' densities to the row's own: about 1 among others, and more outside.

    Parameters
    ----------
    n_neighbors : int, default=20
        Neighbours that decide; with a warning all other rows, where there are fewer.
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
    contamination : "auto" or float, default="auto"
        The share of outliers among the training rows, above 0 and at most 0.5; "auto" calls those outliers whose factor
        is above 1.5.
    novelty : bool, default=False
        Whether to judge new rows, by `predict`, `decision_function` and `score_samples`, and not the training rows, by
        `fit_predict`.
    n_jobs : int or None, default=None
        Threads, as in `NearestNeighbors`.

    Attributes
    ----------
    negative_outlier_factor_ : ndarray of shape (n,)
        The factors of the training rows, times -1; float32 for float32 rows.
    n_neighbors_ : int
        How many neighbours decide.
    offset_ : float
        What is below it is an outlier.
    effective_metric_ : str
        The metric in use: "manhattan", "euclidean", "chebyshev", "sqeuclidean", "cosine", "hamming" or "jaccard"; of
        weighted columns and ``metric="minkowski"`` this name.
    effective_metric_params_ : dict
        The weights of the columns, and what "minkowski" needs, where there are weights.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Notes
    -----
    What is said of data and dtypes at `KNeighborsClassifier` holds here. Of equally distant rows the earlier are
    neighbours, which may be others than scikit-learn's.

    Source: M. M. Breunig, H.-P. Kriegel, R. T. Ng and J. Sander, LOF: identifying density-based local outliers,
    SIGMOD 2000, 93-104.

    Examples
    --------
    >>> from fastml import LocalOutlierFactor
    >>> X = [[-1.1], [0.2], [101.1], [0.3]]
    >>> model = LocalOutlierFactor(n_neighbors=2)
    >>> model.fit_predict(X)
    array([ 1,  1, -1,  1])
    >>> model.negative_outlier_factor_.round(2)
    array([ -0.98,  -1.04, -73.37,  -0.98])
    >>> LocalOutlierFactor(n_neighbors=2, novelty=True).fit(X).predict([[0.25], [50.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        n_neighbors: int = 20,
        *,
        algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"] = "auto",
        leaf_size: int = 30,
        metric: str = "minkowski",
        p: float = 2,
        metric_params: dict[str, Any] | None = None,
        contamination: Literal["auto"] | float = "auto",
        novelty: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.contamination = contamination
        self.novelty = novelty
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Find the factors of the training rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite, at least two.
        y : object, optional
            Ignored.

        Returns
        -------
        self

        Warns
        -----
        UserWarning
            If there are fewer rows than `n_neighbors`, or rows that are there many times decide.
        """
        parameters.flag(self.novelty, "novelty")
        share = None
        if not (isinstance(self.contamination, str) and self.contamination == "auto"):
            share = parameters.number(self.contamination, "contamination", most=0.5, above=True)
        self._fit_rows(X, ensure_min_samples=2)
        n = self.n_samples_fit_
        if self.n_neighbors > n:
            warnings.warn(
                f"n_neighbors is {self.n_neighbors}, X has {n} rows; all other rows are neighbours", stacklevel=3
            )
        self.n_neighbors_ = max(1, min(self.n_neighbors, n - 1))
        distances, indices = self._search(None, self.n_neighbors_)
        distances = self._floating(distances)
        self._reach = distances[:, -1].copy()
        self._density = self._densities(distances, indices)
        self.negative_outlier_factor_ = self._negative_factors(self._density, indices)
        self.offset_ = -1.5 if share is None else float(np.percentile(self.negative_outlier_factor_, 100 * share))
        if not self.novelty and self.negative_outlier_factor_.min() < -_BY_DUPLICATES:
            warnings.warn("rows that are there many times decide; more neighbours are needed", stacklevel=3)
        return self

    @available_if(_of_training_rows)
    def fit_predict(self, X: ArrayLike, y: object = None) -> NDArray[np.intp]:
        """Fit, and say which training rows are outliers; only with ``novelty=False``.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite, at least two.
        y : object, optional
            Ignored.

        Returns
        -------
        ndarray of shape (n,)
            -1 for outliers, 1 for the others.
        """
        return _signs(self.fit(X).negative_outlier_factor_ - self.offset_)

    @available_if(_of_new_rows)
    def predict(self, X: ArrayLike | None = None) -> NDArray[np.intp]:
        """Say which new rows are outliers; only with ``novelty=True``.

        Parameters
        ----------
        X : array-like of shape (n, D), optional
            New rows: a training row would be a neighbour of itself. None means the training rows, each without itself.

        Returns
        -------
        ndarray of shape (n,)
            -1 for outliers, 1 for the others.
        """
        check_is_fitted(self)
        return _signs(self.negative_outlier_factor_ - self.offset_ if X is None else self.decision_function(X))

    @available_if(_of_new_rows)
    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Return `score_samples` less `offset_`: negative for outliers; only with ``novelty=True``.

        Parameters
        ----------
        X : array-like of shape (n, D)
            New rows.

        Returns
        -------
        ndarray of shape (n,)
        """
        decision: NDArray[Any] = self.score_samples(X) - self.offset_
        return decision

    @available_if(_of_new_rows)
    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Return the factors of new rows, times -1; only with ``novelty=True``.

        Parameters
        ----------
        X : array-like of shape (n, D)
            New rows.

        Returns
        -------
        ndarray of shape (n,)
            About -1 among others, and less outside.
        """
        check_is_fitted(self)
        distances, indices = self._search(X, self.n_neighbors_)
        return self._negative_factors(self._densities(self._floating(distances), indices), indices)

    def _floating(self, distances: NDArray[Any]) -> NDArray[Any]:
        """Return distances of bytes, which may be integers, as float64."""
        return distances.astype(np.float64) if self._fit_X.dtype == np.uint8 else distances

    def _densities(self, distances: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[Any]:
        density: NDArray[Any] = 1 / (np.maximum(distances, self._reach[indices]).mean(axis=1) + _NOTHING)
        return density

    def _negative_factors(self, density: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[Any]:
        factors: NDArray[Any] = -(self._density[indices] / density[:, np.newaxis]).mean(axis=1)
        return factors


def _signs(decision: NDArray[Any]) -> NDArray[np.intp]:
    return np.where(decision < 0, -1, 1)
