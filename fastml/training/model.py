"""What the models have in common that are trained step by step."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from ..utils import parameters as p
from ..utils.state_files import StateFiles
from ..utils.validation import check_labels, encode_labels
from .batches import Array
from .callbacks import CallbackSupportMixin, callables
from .data import IterativeEstimator
from .outcomes import FitCheckpoint
from .run import Checkpoint
from .targets import ClassTargets, Targets

__all__ = ["IterativeModel", "Probabilities", "known_classes"]


class IterativeModel(CallbackSupportMixin, StateFiles, BaseEstimator, ABC):
    """A model with a history, trained by `loop.train`; what `IterativeEstimator` names and no model changes."""

    _state_attributes: ClassVar[tuple[str, ...]] = ("_state", "_checkpoint")
    _takes_images: ClassVar[bool] = False
    _several_outputs: ClassVar[bool] = False
    _first_step: ClassVar[str] = "learning_rate_init"

    @classmethod
    def _records(cls) -> tuple[type, ...]:
        return *super()._records(), Checkpoint, FitCheckpoint

    def _check_training(self) -> None:
        """Check the parameters that say how long training lasts, and what is looked at meanwhile."""
        p.positive_integer(self.max_iter, "max_iter")
        for name in ("max_steps", "evaluate_every"):
            if getattr(self, name) is not None:
                p.positive_integer(getattr(self, name), name)
        if self.tol is not None:
            p.number(self.tol, "tol")
        if not isinstance(self.batch_size, str) or self.batch_size != "auto":
            p.positive_integer(self.batch_size, "batch_size")
        p.flag(self.drop_last, "drop_last")
        p.flag(self.early_stopping, "early_stopping")
        if p.number(self.validation_fraction, "validation_fraction", most=1, above=True) == 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must be below 1")
        p.positive_integer(self.n_iter_no_change, "n_iter_no_change")
        p.one_of(self.keep_best, "keep_best", (True, False, "first", "last"))
        p.positive_integer(self.evaluations_per_epoch, "evaluations_per_epoch")
        if isinstance(self.train_metrics, str):
            p.one_of(self.train_metrics, "train_metrics", ("running", "batch", "full"))
        else:
            p.positive_integer(self.train_metrics, "train_metrics")
        p.flag(self.warm_start, "warm_start")
        callables(self.callbacks)

    def _check_partial(self) -> None:
        """Check that the parameters are such that rows may come piece by piece."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if getattr(self, "class_weight", None) == "balanced":
            raise ValueError("class_weight='balanced' needs all rows at once; partial_fit takes a dictionary")

    def _fitted_with(self, weights: Any, *, names: bool = True) -> Self:
        """Return a fitted copy with these weights; without the names of the columns for rows that have none."""
        fitted = copy.copy(self)
        for name, value in self._attributes(weights).items():
            setattr(fitted, name, value)
        if not names and hasattr(fitted, "feature_names_in_"):
            del fitted.feature_names_in_
        return fitted

    @abstractmethod
    def _attributes(self, weights: Any) -> dict[str, Any]:
        """Return the fitted attributes that say these weights; every model has its own."""

    @abstractmethod
    def _new_targets(self, y: Array, classes: Any, partial: bool) -> Targets:
        """Return what the model knows of its targets; every model has its own."""

    def _check_images(self, x: Array, *, reset: bool) -> None:
        """Refuse images of other shapes than the model takes; those that take images have their own."""
        raise NotImplementedError


def known_classes(model: IterativeEstimator, y: Array, classes: Any, partial: bool) -> NDArray[Any]:
    """Return the labels, sorted: those of y, or in `partial_fit` those that the first call was given."""
    if not partial:
        return encode_labels(y)[0]
    if not hasattr(model, "t_"):
        if classes is None:
            raise ValueError("the first call of partial_fit needs all classes: partial_fit(X, y, classes=...)")
        return encode_labels(np.asarray(check_labels(classes, "classes")))[0]
    known: NDArray[Any] = model.classes_
    if classes is not None and not np.array_equal(known, np.unique(classes)):
        raise ValueError(f"classes is {classes!r}; the first call of partial_fit had {known!r}")
    return known


class Probabilities:
    """What a classifier predicts from its scores; `_scores` makes them, `_targets` knows what they mean."""

    _scores: Callable[[ArrayLike], Array]
    _targets: Callable[[], ClassTargets]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like
            Rows or images in the shape of those of `fit`.

        Returns
        -------
        ndarray of shape (n,)
            The label with the highest score, the first of equals; of two labels the second one where the
            score is at least 0.
        """
        scores = self._scores(X)
        return self._targets().labels(scores)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Estimate the probability of each label.

        Parameters
        ----------
        X : array-like
            Rows or images in the shape of those of `fit`.

        Returns
        -------
        ndarray of shape (n, C)
            Columns in the order of `classes_`; rows sum to 1.
        """
        scores = self._scores(X)
        return self._targets().probabilities(scores)

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Estimate the logarithm of each label's probability.

        Parameters
        ----------
        X : array-like
            Rows or images in the shape of those of `fit`.

        Returns
        -------
        ndarray of shape (n, C)
            Columns in the order of `classes_`.
        """
        scores = self._scores(X)
        return self._targets().log_probabilities(scores)
