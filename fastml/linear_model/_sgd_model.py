"""What `SGDClassifier` and `SGDRegressor` share: `fit`, the check of parameters, and scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from ..training.batches import SAMPLING, Array
from ..training.callbacks import with_callbacks
from ..training.model import IterativeModel
from ..utils import parameters
from ..utils.lazy import lazy_module
from ..utils.validation import unchanged_if_refused, validate_data
from .sgd_fitting import fit_one, prepare_together

if TYPE_CHECKING:
    from ..kernels.linear import scores as linear_scores
else:
    linear_scores = lazy_module("fastml.kernels.linear.scores")

__all__ = ["SGDModel"]


class SGDModel(IterativeModel):
    """What classifier and regressor share."""

    _losses: tuple[str, ...]
    _first_step = "eta0"

    @unchanged_if_refused
    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        coef_init: ArrayLike | None = None,
        intercept_init: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Train the model.

        Ctrl-C ends the training: the model keeps the weights it has by then (the best ones, where these are kept)
        and its history, a warning says so, and `fit` returns as usual.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite. float32 is trained in float32, all else in float64.
        y : array-like of shape (n,)
            Targets.
        coef_init, intercept_init : array-like, optional
            Initial weights and intercepts in the shapes of `coef_` and `intercept_`, instead of what `init`
            says. With ``fit_intercept=False`` the intercept stays what it is.
        sample_weight : array-like of shape (n,) or float, optional
            What each training row counts. Only the ratios matter.
        X_val, y_val : array-like, optional
            A validation set: rows and targets. Its loss and score go into `history_`, and with
            ``early_stopping=True`` it takes the place of a part of the training rows. It must have been prepared as
            `X` was: a pipeline transforms it if told to by ``Pipeline(..., transform_input=["X_val"])``.
        sample_weight_val : array-like or float, optional
            What each row of the validation set counts.

        Returns
        -------
        self
        """
        self._check_parameters()
        shared = prepare_together(
            self, X, y, X_val=X_val, y_val=y_val, sample_weight=sample_weight, sample_weight_val=sample_weight_val,
            coef_init=coef_init, intercept_init=intercept_init,
        )  # fmt: skip
        fit_one(self, shared)
        return self

    def _check_parameters(self) -> None:
        p = parameters
        p.one_of(self.loss, "loss", self._losses)
        p.one_of(self.penalty, "penalty", ("l2", "l1", "elasticnet", None))
        p.number(self.alpha, "alpha")
        if self.penalty == "elasticnet":
            p.number(self.l1_ratio, "l1_ratio", most=1)
        p.flag(self.fit_intercept, "fit_intercept")
        self._check_training()
        p.one_of(self.sampling, "sampling", SAMPLING)
        if not p.flag(self.shuffle, "shuffle") and self.sampling not in ("permutation", "sequential"):
            raise ValueError(f"shuffle=False is sampling='sequential'; sampling is {self.sampling!r}")
        if isinstance(self.learning_rate, str):
            p.one_of(self.learning_rate, "learning_rate", ("constant", "invscaling", "optimal"))
            if self.learning_rate == "optimal" and not self.alpha:
                raise ValueError("learning_rate is 'optimal', whose steps are multiples of 1 / alpha, but alpha is 0")
        p.number(self.eta0, "eta0", above=True)
        p.number(self.power_t, "power_t", least=-np.inf)
        p.number(self.momentum, "momentum", most=1)
        p.flag(self.nesterovs_momentum, "nesterovs_momentum")
        if not isinstance(self.average, (bool, np.bool_)):
            p.positive_integer(self.average, "average")
        p.one_of(self.init, "init", ("zeros", "normal"))
        p.number(self.init_scale, "init_scale")

    def _partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: Any, classes: Any = None) -> Self:
        self._check_parameters()
        self._check_partial()
        shared = prepare_together(self, X, y, sample_weight=sample_weight, classes=classes, partial=True)
        fit_one(self, shared, partial=True)
        return self

    def _scores(self, X: ArrayLike) -> Array:
        """Return the scores (n, C)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        n_threads = parameters.threads(self.n_jobs)
        return linear_scores.linear_scores(x, np.atleast_2d(self.coef_), self.intercept_, n_threads)
