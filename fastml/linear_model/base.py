"""What the linear classifiers share: labels, weights, predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ..utils import parameters
from ..utils.lazy import lazy_module
from ..utils.sample_weight import checked_weight_with_sum
from ..utils.validation import CheckedScore, check_finite, encode_labels, validate_data

if TYPE_CHECKING:
    from ..kernels.linear import scores as linear_scores
else:
    linear_scores = lazy_module("fastml.kernels.linear.scores")

__all__ = ["LinearClassifier"]

Array = NDArray[np.float64]


class LinearClassifier(CheckedScore, ClassifierMixin, BaseEstimator):
    """Labels, weights and predictions of classifiers by linear scores."""

    classes_: NDArray[Any]
    coef_: NDArray[Any]
    intercept_: NDArray[Any]
    n_jobs: int | None

    def _checked_data(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, n_threads: int | None
    ) -> tuple[NDArray[Any], NDArray[np.intp], Array | None]:
        """Check data and weights; return rows, class numbers and weights, and set `classes_`."""
        rows, labels = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C", ensure_all_finite=False)
        check_finite(rows, n_threads, estimator=self)
        self.classes_, codes = encode_labels(labels)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has only one class, {self.classes_.tolist()[0]!r}; samples of at least 2 classes are needed"
            )
        return rows, codes, checked_weight_with_sum(sample_weight, len(rows))

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the scores of rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n,) for two classes, (n, C) for more
            ``X @ coef_.T + intercept_``. Of two classes the second is predicted where the score is positive.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        n_threads = parameters.threads(self.n_jobs)
        scores = linear_scores.linear_scores(rows, self.coef_, self.intercept_, n_threads)
        return scores.ravel() if scores.shape[1] == 1 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            The class with the highest score, the first of equals.
        """
        scores = self.decision_function(X)
        winners = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        predicted: NDArray[Any] = self.classes_[winners]
        return predicted
