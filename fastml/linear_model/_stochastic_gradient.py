"""Linear models trained by mini-batch gradient descent, with scikit-learn's interface.

A step goes against the mean gradient of a batch of rows, where scikit-learn's models of the same names take one row
at a time. Many batches are trained in one compiled call, `fastml.kernels.training`; `fastml.sweep` trains many settings
at once.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from ..kernels.losses.table import LOSSES
from ..training.batches import Array
from ..training.model import Probabilities, known_classes
from ..training.targets import ClassTargets, NumberTargets
from ..utils import parameters
from ..utils.validation import CheckedScore, unchanged_if_refused
from ._sgd_columns import LinearWeights
from ._sgd_model import SGDModel

__all__ = ["SGDClassifier", "SGDRegressor"]

#: Losses that have another name in scikit-learn.
_SKLEARN_NAMES = {"binary_cross_entropy": "log_loss"}


def _estimates_probabilities(model: SGDModel) -> bool:
    if model.loss != "log_loss":
        raise AttributeError(f"probabilities come with loss='log_loss'; loss is {model.loss!r}")
    return True


class SGDClassifier(CheckedScore, ClassifierMixin, Probabilities, SGDModel):
    """Linear classification by mini-batch gradient descent.

    Parameters and defaults are scikit-learn's where they have its names, with one difference: where
    scikit-learn counts rows (in the step sizes, in `average`), a step here is a batch.

    Parameters
    ----------
    loss : {"hinge", "log_loss", "squared_hinge"}, default="hinge"
        A linear SVM, logistic or softmax regression, or an SVM with squared slack (without a half).
    penalty : {"l2", "l1", "elasticnet"} or None, default="l2"
        The penalty on `coef_`. Steps against the L1 part shrink weights to 0 and not beyond.
    alpha : float, default=0.0001
        Strength of the penalty: "l2" adds ``alpha / 2 * sum(coef_ ** 2)`` to the mean loss, "l1" adds
        ``alpha * sum(abs(coef_))``.
    l1_ratio : float, default=0.15
        Share of L1 in "elasticnet".
    fit_intercept : bool, default=True
        Whether to train an intercept.
    max_iter : int, default=1000
        Epochs, that is passes over the training rows, at most.
    tol : float or None, default=1e-3
        Training ends when `n_iter_no_change` evaluations in a row have not improved on the best one by
        more than this. None: it takes all epochs.
    shuffle : bool, default=True
        Whether rows are taken in the order that `sampling` says; False is ``sampling="sequential"``.
    verbose : int, default=0
        Above 0, a progress bar with live losses.
    epsilon : float, default=0.1
        Of no effect: no loss here has it.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see
        `fastml.kernels`); the result has the same bits for any number.
    random_state : int, RandomState or None, default=None
        Seed of order, initial weights and validation set.
    learning_rate : {"optimal", "constant", "invscaling"}, callable or array-like, default="optimal"
        Size of step t = 1, 2, ...: ``1 / (alpha * (t0 + t))`` with scikit-learn's t0; `eta0`;
        ``eta0 / t ** power_t``; ``learning_rate(t)``; or ``learning_rate[t - 1]``, of which the last one
        stays.
    eta0 : float, default=0.01
        The (first) step size of "constant" and "invscaling".
    power_t : float, default=0.5
        Exponent of "invscaling"; with 1, step sizes fall as 1/t.
    early_stopping : bool, default=False
        Whether the validation set, and not the running training loss, decides when to stop, and which
        weights are the best ones, which the model then keeps. Without ``fit(..., X_val=..., y_val=...)`` a
        part of the training rows is set aside, of those whose weight is not 0. Where R² is undefined, for one
        row or rows with the same target, the validation loss decides, and a warning says so.
    validation_fraction : float, default=0.1
        That part; its classes are in proportion.
    n_iter_no_change : int, default=5
        Evaluations (with the defaults, epochs) without improvement before training ends.
    class_weight : dict, "balanced" or None, default=None
        What each class counts in training. "balanced" makes all classes count the same.
    warm_start : bool, default=False
        Whether `fit` begins with the weights of the fit before.
    average : bool or int, default=False
        Whether `coef_` and `intercept_` are the mean of the weights after every step; a number means from
        that step on.
    multi_class : {"auto", "ovr", "multinomial", "crammer_singer"}, default="auto"
        What more than two classes mean. "ovr": one score per class, each trained against all other
        classes. "multinomial": softmax cross-entropy, for "log_loss". "crammer_singer": the multiclass
        hinge, for "hinge". "auto": "multinomial" for "log_loss", else "ovr". Two classes always have one
        score.
    max_steps : int, optional
        Steps, that is batches, at most.
    batch_size : int or "auto", default="auto"
        Rows of a batch, at most all; "auto" is min(200, n).
    sampling : {"permutation", "fixed_permutation", "replacement", "sequential"}, default="permutation"
        A new random order of the rows in each epoch; one random order, kept for all epochs; each row of a
        batch drawn from all rows; or the order of `X`.
    drop_last : bool, default=False
        Whether to leave out the last batch of an epoch if it is not full.
    momentum : float, default=0.0
        Share of the last move that a step repeats.
    nesterovs_momentum : bool, default=False
        Whether momentum is Nesterov's.
    init : {"zeros", "normal"}, default="zeros"
        Initial weights; "normal" draws them, and the intercept if it is trained, from a normal distribution.
    init_scale : float, default=1.0
        Standard deviation of "normal".
    scoring : str, callable or None, default=None
        What is good on the validation set: None is the accuracy, "loss" the validation loss, all else a scorer of
        scikit-learn, which then makes the scores in `history_` too. A score that is NaN decides nothing.
    keep_best : {True, False, "first", "last"}, default=True
        With `early_stopping`: whether the model gets its best weights back; of those that are equally good
        the first ones (True means that too) or the last.
    evaluate_every : int, optional
        Evaluate every so many steps.
    evaluations_per_epoch : int, default=1
        Otherwise: how often to evaluate in an epoch, evenly spread.
    train_metrics : {"running", "batch", "full"} or int, default="running"
        What the training loss and score in `history_` are. "running": the mean loss of the rows (weighted, if
        they have weights) since the evaluation before, each taken before its batch's step; it costs nothing and
        there is no score. "batch": loss and score on the last rows, as many as a batch has, after their step.
        "full": on all training rows. A number: on so many of them, always the same.
    callbacks : callable or sequence of callables, optional
        Each is called after every evaluation with a state that has the columns of `history_` as attributes and
        a property `fitted_estimator`; training ends if it returns true. Callbacks of scikit-learn's
        protocol go to ``set_callbacks`` (scikit-learn 1.9 and later); their tasks are epochs.

    Attributes
    ----------
    coef_ : ndarray of shape (1, D) or (C, D)
        Weights, in the dtype of the training.
    intercept_ : ndarray of shape (1,) or (C,)
        Intercepts.
    classes_ : ndarray of shape (C,)
        The labels, sorted.
    history_ : dict of ndarray
        One entry per evaluation in each of "step", "epoch", "seconds", "train_loss", "train_score",
        "validation_loss" and "validation_score", NaN where there is nothing; ``pandas.DataFrame(model.history_)``
        takes it as it is. Losses are means without the penalty. A run that diverged has its last
        loss in an entry of its own.
    n_iter_ : int
        Epochs, the last one perhaps not whole.
    t_ : int
        Number of the next step.
    best_step_ : int or None
        The step of the best weights, where `early_stopping` kept them.
    n_features_in_ : int
        Columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Their names, where `X` has names that are all strings.

    Notes
    -----
    A step of size s, with g the mean of weight times gradient over the batch: ``v = momentum * v - s * (g +
    alpha * w)``, ``w = w + v`` (Nesterov: ``w = w + momentum * v - s * (...)``); then weights are moved
    towards 0 by s times the L1 strength. Sample and class weights are scaled to a mean of 1 in `fit`, so
    that a row with weight 2 is the same as two rows as long as one batch holds all of them; `partial_fit`
    takes them as they are.

    A training whose loss or weights overflow ends with a `DivergenceWarning` that names step and loss, and
    with the finite weights of the last evaluation before.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import SGDClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16
    >>> model = SGDClassifier(
    ...     "log_loss", learning_rate="constant", eta0=0.5, batch_size=50, early_stopping=True, random_state=0
    ... )
    >>> model.fit(X[:1200], y[:1200], X_val=X[1200:1500], y_val=y[1200:1500]).n_iter_
    17
    >>> round(model.score(X[1500:], y[1500:]), 3)
    0.865
    >>> model.history_["validation_loss"].round(2)[:4]
    array([1.02, 0.67, 0.53, 0.44])
    """

    _losses = tuple(
        sorted(_SKLEARN_NAMES.get(name, name) for name, loss in LOSSES.items() if loss.class_1_from is not None)
    )

    def __init__(
        self,
        loss: str = "hinge",
        *,
        penalty: str | None = "l2",
        alpha: float = 0.0001,
        l1_ratio: float = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        epsilon: float = 0.1,
        n_jobs: int | None = None,
        random_state: Any = None,
        learning_rate: Any = "optimal",
        eta0: float = 0.01,
        power_t: float = 0.5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        class_weight: Any = None,
        warm_start: bool = False,
        average: bool | int = False,
        multi_class: str = "auto",
        max_steps: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        sampling: str = "permutation",
        drop_last: bool = False,
        momentum: float = 0.0,
        nesterovs_momentum: bool = False,
        init: str = "zeros",
        init_scale: float = 1.0,
        scoring: Any = None,
        keep_best: bool | str = True,
        evaluate_every: int | None = None,
        evaluations_per_epoch: int = 1,
        train_metrics: str | int = "running",
        callbacks: Any = None,
    ) -> None:
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.verbose = verbose
        self.epsilon = epsilon
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.average = average
        self.multi_class = multi_class
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.sampling = sampling
        self.drop_last = drop_last
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.init = init
        self.init_scale = init_scale
        self.scoring = scoring
        self.keep_best = keep_best
        self.evaluate_every = evaluate_every
        self.evaluations_per_epoch = evaluations_per_epoch
        self.train_metrics = train_metrics
        self.callbacks = callbacks

    @unchanged_if_refused
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch on these rows, and go on from where the last call ended.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.
        y : array-like of shape (n,)
            Labels.
        classes : array-like of shape (C,), optional
            All labels that will ever come; needed in the first call.
        sample_weight : array-like of shape (n,) or float, optional
            What each row counts, taken as it is: one call does not know the weights of the others. If no row
            counts nothing is done; a first call then gives the model its initial weights.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight, classes)

    def decision_function(self, X: ArrayLike) -> Array:
        """Return the scores of rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n,) or (n, C)
            For two classes one score, which is at least 0 for the second class.
        """
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    @available_if(_estimates_probabilities)
    def predict_proba(self, X: ArrayLike) -> Array:
        """Estimate the probability of each label; for ``loss="log_loss"`` only.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n, C)
            Columns in the order of `classes_`; rows sum to 1. With ``multi_class="ovr"`` each class's own
            probability, divided by the sum of all.
        """
        return super().predict_proba(X)

    @available_if(_estimates_probabilities)
    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Estimate the logarithm of each label's probability; for ``loss="log_loss"`` only.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n, C)
            Columns in the order of `classes_`.
        """
        return super().predict_log_proba(X)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        parameters.one_of(self.multi_class, "multi_class", ("auto", "ovr", "multinomial", "crammer_singer"))
        for name, loss in (("multinomial", "log_loss"), ("crammer_singer", "hinge")):
            if self.multi_class == name and self.loss != loss:
                raise ValueError(f"multi_class={name!r} goes with loss={loss!r}; loss is {self.loss!r}")
        if not isinstance(self.class_weight, dict):
            parameters.one_of(self.class_weight, "class_weight", ("balanced", None))
        parameters.number(self.epsilon, "epsilon")

    def _new_targets(self, y: Array, classes: Any, partial: bool) -> ClassTargets:
        self.classes_ = known_classes(self, y, classes, partial)
        return self._targets()

    def _targets(self) -> ClassTargets:
        return ClassTargets(self.classes_, self.loss, self.multi_class, self.class_weight)

    def _attributes(self, weights: LinearWeights) -> dict[str, Any]:
        return {"coef_": weights.coef, "intercept_": weights.intercept}


class SGDRegressor(CheckedScore, RegressorMixin, SGDModel):
    """Linear regression by mini-batch gradient descent.

    Parameters that are not listed here mean what they mean in `SGDClassifier`.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber"}, default="squared_error"
        Half the squared residual; its magnitude; or the former up to `epsilon` and its tangents from there
        on.
    epsilon : float, default=0.1
        Where Huber's loss turns linear; the others do not have it.
    learning_rate : {"invscaling", "constant", "optimal"}, callable or array-like, default="invscaling"
        As in `SGDClassifier`.
    power_t : float, default=0.25
        Exponent of "invscaling".
    scoring : str, callable or None, default=None
        As in `SGDClassifier`; None is R², which is NaN in `history_` where the targets are all the same.

    Attributes
    ----------
    coef_ : ndarray of shape (D,)
        Weights.
    intercept_ : ndarray of shape (1,)
        The intercept.
    history_, n_iter_, t_, best_step_, n_features_in_, feature_names_in_
        As in `SGDClassifier`; scores are R².

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import SGDRegressor
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> y = X @ [1.0, -2.0, 0.5] + 3
    >>> model = SGDRegressor(learning_rate="constant", eta0=0.1, batch_size=50, alpha=0, random_state=0).fit(X, y)
    >>> model.coef_.round(2), model.intercept_.round(2)
    (array([ 1. , -2. ,  0.5]), array([3.]))
    """

    _losses = tuple(name for name, loss in LOSSES.items() if loss.target == "real")

    def __init__(
        self,
        loss: str = "squared_error",
        *,
        penalty: str | None = "l2",
        alpha: float = 0.0001,
        l1_ratio: float = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        epsilon: float = 0.1,
        random_state: Any = None,
        learning_rate: Any = "invscaling",
        eta0: float = 0.01,
        power_t: float = 0.25,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        average: bool | int = False,
        max_steps: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        sampling: str = "permutation",
        drop_last: bool = False,
        momentum: float = 0.0,
        nesterovs_momentum: bool = False,
        init: str = "zeros",
        init_scale: float = 1.0,
        scoring: Any = None,
        keep_best: bool | str = True,
        evaluate_every: int | None = None,
        evaluations_per_epoch: int = 1,
        train_metrics: str | int = "running",
        callbacks: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.verbose = verbose
        self.epsilon = epsilon
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.average = average
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.sampling = sampling
        self.drop_last = drop_last
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.init = init
        self.init_scale = init_scale
        self.scoring = scoring
        self.keep_best = keep_best
        self.evaluate_every = evaluate_every
        self.evaluations_per_epoch = evaluations_per_epoch
        self.train_metrics = train_metrics
        self.callbacks = callbacks
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch on these rows, and go on from where the last call ended.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.
        y : array-like of shape (n,)
            Targets.
        sample_weight : array-like of shape (n,) or float, optional
            What each row counts, taken as it is: one call does not know the weights of the others. If no row
            counts nothing is done; a first call then gives the model its initial weights.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: ArrayLike) -> Array:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            ``X @ coef_ + intercept_``.
        """
        return self._scores(X)[:, 0]

    def _check_parameters(self) -> None:
        super()._check_parameters()
        parameters.number(self.epsilon, "epsilon", above=self.loss == "huber")

    def _new_targets(self, y: Array, classes: Any, partial: bool) -> NumberTargets:
        return NumberTargets(self.loss)

    def _attributes(self, weights: LinearWeights) -> dict[str, Any]:
        return {"coef_": weights.coef[0], "intercept_": weights.intercept}
