"""Predictions from neighbours, and their scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Number
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, check_scoring, r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import type_of_target

from ..neighbors import KNeighborsClassifier, KNeighborsRegressor
from ..neighbors.voting import are_large, mean_over_ranks, most_votes, vote_shares
from ..utils.validation import encode_labels

__all__ = ["EVALUATORS", "Evaluator", "Task"]

Task = Literal["classification", "regression"]


class Evaluator(ABC):
    """Predictions from neighbours, and their scores."""

    #: The score where nothing is said, and whether it is defined for a single row; what predictions are.
    default: str
    defined_for_one: bool
    dtype: np.dtype[Any]

    def __init__(self, X: NDArray[Any], y: NDArray[Any], scoring: Any, weight: NDArray[np.float64] | None) -> None:
        self.X, self.y, self.weight = X, y, weight
        if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
            came = f"{scoring!r} ({type(scoring).__name__})"
            raise TypeError(
                f"scoring is {came}; it must be the name of one score, a function of (model, X, y), or None"
            )
        default = scoring is None or (isinstance(scoring, str) and scoring == self.default)
        self._scorer = None if default else check_scoring(KNeighborsClassifier(), scoring=scoring)

    @property
    def scores_single_rows(self) -> bool:
        """Whether the mean of the scores of single rows is that of all together."""
        return self._scorer is None and self.defined_for_one and self.weight is None

    def scores(
        self,
        predicted: NDArray[Any],
        neighbors: NDArray[np.intp],
        weights: NDArray[np.float64] | None,
        rows: NDArray[np.intp],
        sizes: NDArray[np.intp],
    ) -> Any:
        """Score the predictions of `rows`, the first sizes[0] of them together, then the next sizes[1], ..."""
        if self._scorer is None and self.weight is None:
            return self._default_scores(predicted, self.y[rows], sizes)
        scores = []
        for last, size in zip(np.cumsum(sizes), sizes, strict=True):
            some = slice(last - size, last)
            weight = {} if self.weight is None else {"sample_weight": self.weight[rows[some]]}
            if self._scorer is None:
                scores.append(self._weighted_score(predicted[some], self.y[rows[some]], **weight))
                continue
            model = self._model(predicted[some], neighbors[some], None if weights is None else weights[some])
            score = self._scorer(model, self.X[rows[some]], self.y[rows[some]], **weight)
            if not isinstance(score, Number):
                raise TypeError(f"scoring returned {score!r} ({type(score).__name__}); it must return a number")
            scores.append(score)
        return scores

    @abstractmethod
    def folds(self, n_splits: int, **shuffled: Any) -> Any:
        """Return the splitter that a number means."""

    @abstractmethod
    def predict(self, neighbors: NDArray[np.intp], weights: NDArray[np.float64] | None) -> NDArray[Any]:
        """Predict from neighbours (n, k)."""

    @abstractmethod
    def _default_scores(self, predicted: NDArray[Any], y: NDArray[Any], sizes: NDArray[np.intp]) -> Any: ...

    @abstractmethod
    def _weighted_score(self, predicted: NDArray[Any], y: NDArray[Any], sample_weight: NDArray[np.float64]) -> Any: ...

    @abstractmethod
    def _model(self, predicted: NDArray[Any], neighbors: NDArray[np.intp], weights: NDArray[np.float64] | None) -> Any:
        """Return what a scorer takes for a model fitted on the fold."""


class _Classification(Evaluator):
    """Votes and accuracy."""

    default, defined_for_one = "accuracy", True

    def __init__(self, X: NDArray[Any], y: NDArray[Any], scoring: Any, weight: NDArray[np.float64] | None) -> None:
        super().__init__(X, y, scoring, weight)
        if self._scorer is None and y.ndim == 2 and type_of_target(y) != "multilabel-indicator":
            raise ValueError(
                f"y has {y.shape[1]} columns of labels that are not 0 or 1; accuracy is not defined there, give scoring"
            )
        self._numbered = [encode_labels(column) for column in y.reshape(len(y), -1).T]
        self.dtype = self._numbered[0][0].dtype

    def folds(self, n_splits: int, **shuffled: Any) -> Any:
        if self.y.ndim == 2:
            return KFold(n_splits, **shuffled)
        most = np.bincount(self._numbered[0][1]).max()
        if most < n_splits <= len(self.y):
            raise ValueError(
                f"cv is {n_splits}; the most frequent label in y has {most} rows, and folds are stratified by label; "
                "give fewer folds, a splitter such as KFold, or task='regression' if y holds quantities"
            )
        return StratifiedKFold(n_splits, **shuffled)

    def predict(self, neighbors: NDArray[np.intp], weights: NDArray[np.float64] | None) -> NDArray[Any]:
        predicted = np.empty((len(neighbors), len(self._numbered)), self.dtype)
        for output, (labels, codes) in enumerate(self._numbered):
            predicted[:, output] = labels[most_votes(codes, neighbors, len(labels), weights)]
        return predicted if self.y.ndim == 2 else predicted[:, 0]

    def _default_scores(self, predicted: NDArray[Any], y: NDArray[Any], sizes: NDArray[np.intp]) -> Any:
        right = (predicted == y).reshape(len(y), -1).all(axis=1)
        return np.add.reduceat(right, np.cumsum(sizes) - sizes, dtype=np.intp) / sizes

    def _weighted_score(self, predicted: NDArray[Any], y: NDArray[Any], sample_weight: NDArray[np.float64]) -> Any:
        return accuracy_score(y, predicted, sample_weight=sample_weight)

    def _model(self, predicted: NDArray[Any], neighbors: NDArray[np.intp], weights: NDArray[np.float64] | None) -> Any:
        def predict_proba(X: object) -> Any:
            shares = [vote_shares(codes, neighbors, len(labels), weights) for labels, codes in self._numbered]
            return shares if self.y.ndim == 2 else shares[0]

        model = _with_predictions(KNeighborsClassifier(), predicted)
        classes = [labels for labels, _ in self._numbered]
        model.classes_, model.predict_proba = classes if self.y.ndim == 2 else classes[0], predict_proba
        return model


class _Regression(Evaluator):
    """Means and R²."""

    default, defined_for_one = "r2", False
    dtype = np.dtype(np.float64)

    def __init__(self, X: NDArray[Any], y: NDArray[Any], scoring: Any, weight: NDArray[np.float64] | None) -> None:
        # As a model's `score` gets it; and None among objects is NaN only now.
        y = y.astype(np.float64) if y.dtype.kind == "O" else y
        super().__init__(X, y, scoring, weight)
        self._target = y.astype(np.float64, copy=False)
        assert_all_finite(self._target, input_name="y")
        self._are_large = are_large(self._target)

    def folds(self, n_splits: int, **shuffled: Any) -> Any:
        return KFold(n_splits, **shuffled)

    def predict(self, neighbors: NDArray[np.intp], weights: NDArray[np.float64] | None) -> NDArray[Any]:
        return mean_over_ranks(self._target, neighbors, weights, self._are_large)

    def _default_scores(self, predicted: NDArray[Any], y: NDArray[Any], sizes: NDArray[np.intp]) -> Any:
        scores, firsts = np.empty(len(sizes)), np.cumsum(sizes) - sizes
        if y.ndim == 2:
            for fold, (first, size) in enumerate(zip(firsts, sizes, strict=True)):
                scores[fold] = r2_score(y[first : first + size], predicted[first : first + size])
            return scores
        for size in np.unique(sizes):
            # Folds of one size are outputs of one call, each contiguous: sums have the order of a call for each.
            same = sizes == size
            rows = firsts[same][:, np.newaxis] + np.arange(size)
            scores[same] = r2_score(y[rows].T, predicted[rows].T, multioutput="raw_values")
        return scores

    def _weighted_score(self, predicted: NDArray[Any], y: NDArray[Any], sample_weight: NDArray[np.float64]) -> Any:
        return r2_score(y, predicted, sample_weight=sample_weight)

    def _model(self, predicted: NDArray[Any], *_: object) -> Any:
        return _with_predictions(KNeighborsRegressor(), predicted)


def _with_predictions(model: BaseEstimator, predicted: NDArray[Any]) -> Any:
    """Make a model that is not fitted say what one fitted on a fold would, whatever X is."""

    def predict(X: object) -> NDArray[Any]:  # a scorer looks at its name
        return predicted

    model.predict = predict
    return model


EVALUATORS: dict[str, type[_Classification] | type[_Regression]] = {
    "classification": _Classification,
    "regression": _Regression,
}
