"""Classification by the nearest centroid."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .. import kernels
from ..kernels.arguments import arrays
from ..utils import parameters
from ..utils.validation import CheckedScore, encode_labels, unchanged_if_refused, validate_data

__all__ = ["NearestCentroid"]

Array = NDArray[np.float64]

#: Rows that are compared with their centroids at once.
_ROWS_AT_ONCE = 1 << 12


def _has_probabilities(model: NearestCentroid) -> bool:
    if model.metric != "euclidean":
        raise AttributeError("probabilities are those of normal distributions, of metric='euclidean'")
    return True


class NearestCentroid(CheckedScore, ClassifierMixin, BaseEstimator):
    """Classification by the nearest centroid.

    scikit-learn's parameters of the same names mean the same.

    Parameters
    ----------
    metric : {"euclidean", "manhattan"}, default="euclidean"
        The distance. The centroid of a class is what has the least sum of distances to its rows, column by column: of
        squared ones the mean, else the median.
    shrink_threshold : float or None, default=None
        Move centroids towards that of all rows, by so many (pooled, regularized) standard deviations within classes;
        what comes to lie there no longer tells classes apart. None moves nothing.
    priors : {"uniform", "empirical"} or array-like of shape (C,), default="uniform"
        Probabilities of the classes: equal, those of the training rows, or given ones. Where they are not equal, but
        for rounding, the class of the highest score is predicted (see `decision_function`), and not that of the nearest
        centroid.
    n_jobs : int or None, default=None
        Threads, which scikit-learn's has not: None means all that the process may use (see `fastml.kernels`); negative
        numbers count from there, -1 is all, -2 all but one.

    Attributes
    ----------
    centroids_ : ndarray of shape (C, D), float64
        The centroid of each class.
    classes_ : ndarray of shape (C,)
        The labels, sorted.
    class_prior_ : ndarray of shape (C,)
        Their probabilities.
    within_class_std_dev_ : ndarray of shape (D,)
        Standard deviations within classes, pooled.
    deviations_ : ndarray of shape (C, D)
        How far each centroid lies from that of all rows, in standard deviations; after they have moved.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Notes
    -----
    Everything is summed in float64. A column that is constant within all classes keeps its centroids.

    Source: R. Tibshirani, T. Hastie, B. Narasimhan and G. Chu, Diagnosis of multiple cancer types by shrunken centroids
    of gene expression, PNAS 99 (2002), 6567-6572.

    Examples
    --------
    >>> from fastml import NearestCentroid
    >>> X, y = [[-1, -1], [-2, -1], [-3, -2], [1, 1], [2, 1], [3, 2]], [1, 1, 1, 2, 2, 2]
    >>> model = NearestCentroid().fit(X, y)
    >>> model.predict([[-0.8, -1]])
    array([1])
    >>> model.centroids_[0].round(3)
    array([-2.   , -1.333])
    """

    def __init__(
        self,
        metric: Literal["euclidean", "manhattan"] = "euclidean",
        *,
        shrink_threshold: float | None = None,
        priors: Literal["uniform", "empirical"] | ArrayLike = "uniform",
        n_jobs: int | None = None,
    ) -> None:
        self.metric = metric
        self.shrink_threshold = shrink_threshold
        self.priors = priors
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Find the centroids.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like of shape (n,)
            Labels of at least two classes.

        Returns
        -------
        self

        Warns
        -----
        UserWarning
            If a column is constant within all classes, or given `priors` do not sum to 1 and are divided by their sum.
        """
        parameters.one_of(self.metric, "metric", ("euclidean", "manhattan"))
        threshold = self.shrink_threshold
        if threshold is not None:
            threshold = parameters.number(threshold, "shrink_threshold", above=True)
        parameters.threads(self.n_jobs)
        rows, labels = validate_data(self, X, y)
        self.classes_, codes = encode_labels(column_or_1d(labels, warn=True))
        counts = np.bincount(codes)
        if len(counts) < 2:
            raise ValueError(f"y has {len(counts)} class; at least two classes are needed")
        if not (rows != rows[0]).any():
            raise ValueError("all rows of X are equal; no column tells classes apart")
        self.class_prior_ = self._priors(counts)
        self.centroids_ = self._centroids(rows, codes, counts)
        squares = np.zeros(rows.shape[1])
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            differences = rows[some] - self.centroids_[codes[some]]
            squares += np.einsum("ij,ij->j", differences, differences)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.within_class_std_dev_ = np.sqrt(squares / (len(rows) - len(counts)))
            if threshold is not None:
                self._check_deviations()
            if (self.within_class_std_dev_ == 0).any():
                warnings.warn("a column of X is constant within all classes", stacklevel=3)
            unit = self.within_class_std_dev_ + np.median(self.within_class_std_dev_)
            units = np.sqrt(1 / counts - 1 / len(rows))[:, np.newaxis] * unit
            center = rows.mean(axis=0, dtype=np.float64)
            self.deviations_ = (self.centroids_ - center) / units
            if threshold is not None:
                left = np.maximum(np.abs(self.deviations_) - threshold, 0)
                self.deviations_ = np.copysign(left, self.deviations_)
                self.centroids_ = np.where(units == 0, self.centroids_, center + units * self.deviations_)
        return self

    def _check_deviations(self) -> None:
        """Refuse what needs deviations within classes where there are none."""
        if np.isnan(self.within_class_std_dev_).any():
            raise ValueError("X has one row for each class; deviations within classes are needed")

    def _priors(self, counts: NDArray[np.intp]) -> Array:
        """Return the probabilities of the classes."""
        if isinstance(self.priors, str):
            parameters.one_of(self.priors, "priors", ("uniform", "empirical"))
            shares: Array = counts / counts.sum()
            return shares if self.priors == "empirical" else np.full(len(counts), 1 / len(counts))
        priors = np.array(arrays.real(self.priors, "priors"), np.float64)
        if priors.shape != counts.shape:
            raise ValueError(f"priors has shape {priors.shape}; it must be {counts.shape}, one for each class")
        if not (priors >= 0).all():
            raise ValueError("priors must be non-negative")
        total = priors.sum()
        if not (0 < total < np.inf):
            raise ValueError(f"priors sum to {total}; a positive, finite sum is needed")
        if not np.isclose(total, 1):
            warnings.warn(f"priors sum to {total}; they are divided by it", stacklevel=4)
        priors /= total
        return priors

    def _centroids(self, rows: NDArray[Any], codes: NDArray[np.intp], counts: NDArray[np.intp]) -> Array:
        by_class = rows[codes.argsort(kind="stable")]
        firsts = np.cumsum(counts) - counts
        if self.metric == "euclidean":
            means: Array = np.add.reduceat(by_class, firsts, axis=0, dtype=np.float64) / counts[:, np.newaxis]
            return means
        return np.stack([np.median(part.astype(np.float64), axis=0) for part in np.split(by_class, firsts[1:])])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            The class of the nearest centroid, or of the highest score (see `priors`); the first one of equals.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False)
        if not np.isclose(self.class_prior_, 1 / len(self.classes_)).all():
            found = self._scores(rows).argmax(axis=1)
        else:
            n_threads = parameters.threads(self.n_jobs)
            found = kernels.k_nearest(rows, self.centroids_, 1, metric=self.metric, n_threads=n_threads)[1][:, 0]
        predicted: NDArray[Any] = self.classes_[found]
        return predicted

    @available_if(_has_probabilities)
    def decision_function(self, X: ArrayLike) -> Array:
        """Return the scores of the classes; only with ``metric="euclidean"``.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n, C), or (n,) of two classes
            Twice the logarithm of the class's probability, less the squared distance of its centroid in standard
            deviations within classes; of two classes the second's score less the first's.
        """
        check_is_fitted(self)
        scores = self._scores(validate_data(self, X, reset=False))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    @available_if(_has_probabilities)
    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the probabilities of the classes; only with ``metric="euclidean"``.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n, C)
            The softmax of the scores; rows sum to 1.
        """
        check_is_fitted(self)
        probabilities: Array = softmax(self._scores(validate_data(self, X, reset=False)), axis=1)
        return probabilities

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Return the logarithms of `predict_proba`; only with ``metric="euclidean"``.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n, C)
        """
        check_is_fitted(self)
        logarithms: Array = log_softmax(self._scores(validate_data(self, X, reset=False)), axis=1)
        return logarithms

    def _scores(self, rows: NDArray[Any]) -> Array:
        """Return the scores (n, C), as `decision_function` says, by either metric."""
        self._check_deviations()
        unit = np.where(self.within_class_std_dev_ == 0, 1, self.within_class_std_dev_)
        pairwise = kernels.pairwise_l2 if self.metric == "euclidean" else kernels.pairwise_l1
        distances = pairwise(rows / unit, self.centroids_ / unit, n_threads=parameters.threads(self.n_jobs))
        with np.errstate(divide="ignore"):  # a class may be impossible
            scores: Array = 2 * np.log(self.class_prior_) - distances**2
        return scores
