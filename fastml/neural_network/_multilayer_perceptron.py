"""Networks of fully connected layers, with scikit-learn's interface.

A whole epoch of mini-batches is one compiled loop, `fastml.kernels.network`: for small networks and small batches
that is where frameworks spend most of their time on anything but the network.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin

from ..training.batches import Array
from ..training.model import Probabilities, known_classes
from ..training.targets import ClassTargets, NumberTargets
from ..utils import parameters
from ..utils.validation import CheckedScore, unchanged_if_refused
from ._mlp import MultilayerPerceptron
from ._mlp_fit import Layers

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(CheckedScore, ClassifierMixin, Probabilities, MultilayerPerceptron):
    """Classification by a network of fully connected layers.

    Parameters and defaults are scikit-learn's where they have its names. Softmax cross-entropy is trained, for two
    classes binary cross-entropy with one score.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of each hidden layer; ``()`` is a linear model.
    activation : {"relu", "tanh", "logistic", "identity"}, default="relu"
        What the hidden layers do to their values.
    solver : {"adam", "sgd"}, default="adam"
        Adam with its bias corrections as published, or gradient descent with `momentum`.
    alpha : float, default=0.0001
        Strength of the squared penalty on all weights. As in scikit-learn it is added to the sum of a batch's losses,
        ``alpha / 2 * sum(coef ** 2)``, so it counts the less, the more rows a batch has, and the more they weigh.
    batch_size : int or "auto", default="auto"
        Rows of a batch, at most all; "auto" is min(200, n).
    learning_rate : {"constant", "invscaling"}, callable or array-like, default="constant"
        Size of step t = 1, 2, ...: `learning_rate_init`; ``learning_rate_init / t ** power_t``;
        ``learning_rate(t)``; or ``learning_rate[t - 1]``, of which the last one stays. For both solvers.
    learning_rate_init : float, default=0.001
        The (first) step size.
    power_t : float, default=0.5
        Exponent of "invscaling".
    max_iter : int, default=200
        Epochs, that is passes over the training rows, at most.
    shuffle : bool, default=True
        Whether each epoch has a new random order of the rows; else it is that of `X`.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, order, dropout and validation set.
    tol : float or None, default=1e-4
        Training ends when `n_iter_no_change` evaluations in a row have not improved on the best one by
        more than this. None: it takes all epochs.
    verbose : int, default=0
        Above 0, a progress bar with live losses.
    warm_start : bool, default=False
        Whether `fit` begins with the weights of the fit before; means and velocities of the solver begin anew.
    momentum : float, default=0.9
        For "sgd": share of the last move that a step repeats.
    nesterovs_momentum : bool, default=True
        Whether momentum is Nesterov's.
    early_stopping : bool, default=False
        Whether the validation set, and not the running training loss, decides when to stop, and which
        weights are the best ones, which the model then keeps. Without ``fit(..., X_val=..., y_val=...)`` a
        part of the training rows is set aside, of those whose weight is not 0. Where R² is undefined, for one
        row or rows with the same target, the validation loss decides, and a warning says so.
    validation_fraction : float, default=0.1
        That part; its classes are in proportion.
    beta_1, beta_2 : float, default=0.9, 0.999
        For "adam": shares of the running means of gradients and of their squares that a step keeps.
    epsilon : float, default=1e-8
        For "adam": what is added to the root of the mean square, after its correction.
    n_iter_no_change : int, default=10
        Evaluations (with the defaults, epochs) without improvement before training ends.
    max_fun : int, default=15000
        Of no effect: it is for the solver "lbfgs", which fastml does not have.
    weight_decay : float, default=0.0
        For "adam": each step also takes ``step * weight_decay * coef`` off the weights, beside what Adam does (AdamW).
    dropout : float or sequence of float, default=0.0
        Share of the values of (each) hidden layer that is set to 0 in a training step, while the others grow such that
        their mean stays.
    batch_norm : bool, default=False
        Whether the values of the hidden layers are normalised before the activation: in training by mean and variance
        over the batch, else by running ones; then a scale (at first 1) and a shift (0) per unit, which are trained
        without penalty. 1e-5 is added to the variances.
    batch_norm_momentum : float, default=0.1
        Share of a batch's statistics in the running ones.
    drop_last : bool, default=False
        Whether to leave out the last batch of an epoch if it is not full.
    max_steps : int, optional
        Steps, that is batches, at most.
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
        What the training loss and score in `history_` are, as in `SGDClassifier`.
    class_weight : dict, "balanced" or None, default=None
        What each class counts in training. "balanced" makes all classes count the same.
    callbacks : callable or sequence of callables, optional
        Each is called after every evaluation with a state that has the columns of `history_` as attributes and
        a property `fitted_estimator`; training ends if it returns true. Callbacks of scikit-learn's
        protocol go to ``set_callbacks`` (scikit-learn 1.9 and later); their tasks are epochs.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see
        `fastml.kernels`); the result has the same bits for any number.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (inputs, units)
        Weights of each layer, in the dtype of the training.
    intercepts_ : list of ndarray of shape (units,)
        Intercepts of each layer; with `batch_norm` the shifts of the hidden layers.
    batch_norm_scales_, batch_norm_means_, batch_norm_variances_ : list of ndarray of shape (units,)
        Scales and running statistics of the hidden layers, empty without `batch_norm`: their values are
        ``scale * (a @ coef - mean) / sqrt(variance + 1e-5) + intercept``.
    classes_ : ndarray of shape (C,)
        The labels, sorted.
    loss_curve_ : list of float
        Training loss of each evaluation; `loss_` is the last, `best_loss_` the least of them (None with
        `early_stopping`).
    validation_scores_ : list of float or None
        Score on the validation set in each evaluation; `best_validation_score_` is the largest.
    n_layers_, n_outputs_ : int
        Layers, the rows counted as one; scores of a row.
    out_activation_ : str
        "logistic" or "softmax": what makes probabilities of the scores.
    history_ : dict of ndarray
        One entry per evaluation, as in `SGDClassifier`; losses are means without the penalty.
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
    Initial weights and intercepts are drawn evenly from ±sqrt(6 / (inputs + units)), for "logistic" ±sqrt(2 / ...),
    as scikit-learn's. Losses and gradients of `fit` are divided by the mean of all weights, those of `partial_fit` are
    not.

    A training whose loss or weights overflow ends with a `DivergenceWarning` that names step and loss, and
    with the finite weights of the last evaluation before.

    Sources: D. P. Kingma and J. Ba, "Adam" (2015); I. Loshchilov and F. Hutter, "Decoupled weight decay
    regularization" (2019); N. Srivastava et al., "Dropout" (2014); S. Ioffe and C. Szegedy, "Batch normalization"
    (2015).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X / 16
    >>> model = MLPClassifier((32,), solver="sgd", learning_rate_init=0.1, batch_size=10, max_iter=20, tol=None)
    >>> model = model.set_params(random_state=0).fit(X[:1200], y[:1200])
    >>> round(model.score(X[1500:], y[1500:]), 1)
    0.9

    A training that was ended goes on as if it had not been:

    >>> half = MLPClassifier((32,), batch_norm=True, max_iter=2, tol=None, random_state=0).fit(X, y)
    >>> half = half.set_params(max_iter=4).fit(X, y, resume=True)
    >>> whole = MLPClassifier((32,), batch_norm=True, max_iter=4, tol=None, random_state=0).fit(X, y)
    >>> bool((half.coefs_[0] == whole.coefs_[0]).all())
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float | None = 1e-4,
        verbose: int = 0,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        weight_decay: float = 0.0,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        batch_norm_momentum: float = 0.1,
        drop_last: bool = False,
        max_steps: int | None = None,
        scoring: Any = None,
        keep_best: bool | str = True,
        evaluate_every: int | None = None,
        evaluations_per_epoch: int = 1,
        train_metrics: str | int = "running",
        class_weight: Any = None,
        callbacks: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, activation, solver=solver, alpha=alpha, batch_size=batch_size,
            learning_rate=learning_rate, learning_rate_init=learning_rate_init, power_t=power_t, max_iter=max_iter,
            shuffle=shuffle, random_state=random_state, tol=tol, verbose=verbose, warm_start=warm_start,
            momentum=momentum, nesterovs_momentum=nesterovs_momentum, early_stopping=early_stopping,
            validation_fraction=validation_fraction, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon,
            n_iter_no_change=n_iter_no_change, max_fun=max_fun, weight_decay=weight_decay, dropout=dropout,
            batch_norm=batch_norm, batch_norm_momentum=batch_norm_momentum, drop_last=drop_last, max_steps=max_steps,
            scoring=scoring, keep_best=keep_best, evaluate_every=evaluate_every,
            evaluations_per_epoch=evaluations_per_epoch, train_metrics=train_metrics, callbacks=callbacks,
            n_jobs=n_jobs,
        )  # fmt: skip
        self.class_weight = class_weight

    @unchanged_if_refused
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch on these rows, and go on from where the last call ended.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.
        y : array-like of shape (n,)
            Labels.
        sample_weight : array-like of shape (n,) or float, optional
            What each row counts, taken as it is: one call does not know the weights of the others. If no row
            counts nothing is done; a first call then gives the model its initial weights.
        classes : array-like of shape (C,), optional
            All labels that will ever come; needed in the first call.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight, classes)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.class_weight, dict):
            parameters.one_of(self.class_weight, "class_weight", ("balanced", None))

    def _new_targets(self, y: Array, classes: Any, partial: bool) -> ClassTargets:
        self.classes_ = known_classes(self, y, classes, partial)
        return self._targets()

    def _targets(self) -> ClassTargets:
        return ClassTargets(self.classes_, "log_loss", "multinomial", self.class_weight)

    def _attributes(self, weights: Layers) -> dict[str, Any]:
        several = len(weights.biases[-1]) > 1
        return super()._attributes(weights) | {"out_activation_": "softmax" if several else "logistic"}


class MLPRegressor(CheckedScore, RegressorMixin, MultilayerPerceptron):
    """Regression by a network of fully connected layers.

    Half the squared residual is trained, summed over the targets of a row. Parameters mean what they mean in
    `MLPClassifier`; there is no `class_weight`.

    Parameters
    ----------
    loss : {"squared_error"}, default="squared_error"
        Half the squared residual.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of each hidden layer; ``()`` is a linear model.
    activation : {"relu", "tanh", "logistic", "identity"}, default="relu"
        What the hidden layers do to their values.
    scoring : str, callable or None, default=None
        As in `MLPClassifier`; None is R², the mean of several targets'.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (inputs, units)
        Weights of each layer, in the dtype of the training.
    intercepts_ : list of ndarray of shape (units,)
        Intercepts of each layer.
    out_activation_ : str
        "identity".
    batch_norm_scales_, batch_norm_means_, batch_norm_variances_, n_layers_, n_outputs_, loss_, loss_curve_, best_loss_,
    validation_scores_, best_validation_score_
        As in `MLPClassifier`.
    history_, n_iter_, t_, best_step_, n_features_in_, feature_names_in_
        As in `MLPClassifier`; scores are R².

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import MLPRegressor
    >>> X = np.random.default_rng(0).uniform(-1, 1, size=(500, 1))
    >>> model = MLPRegressor(hidden_layer_sizes=(16,), activation="tanh", learning_rate_init=0.01, batch_size=20)
    >>> model = model.set_params(tol=None, random_state=0).fit(X, np.sin(3 * X[:, 0]))
    >>> round(model.score(X, np.sin(3 * X[:, 0])), 2)
    1.0
    """

    _several_outputs = True

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float | None = 1e-4,
        verbose: int = 0,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        weight_decay: float = 0.0,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        batch_norm_momentum: float = 0.1,
        drop_last: bool = False,
        max_steps: int | None = None,
        scoring: Any = None,
        keep_best: bool | str = True,
        evaluate_every: int | None = None,
        evaluations_per_epoch: int = 1,
        train_metrics: str | int = "running",
        callbacks: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, activation, solver=solver, alpha=alpha, batch_size=batch_size,
            learning_rate=learning_rate, learning_rate_init=learning_rate_init, power_t=power_t, max_iter=max_iter,
            shuffle=shuffle, random_state=random_state, tol=tol, verbose=verbose, warm_start=warm_start,
            momentum=momentum, nesterovs_momentum=nesterovs_momentum, early_stopping=early_stopping,
            validation_fraction=validation_fraction, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon,
            n_iter_no_change=n_iter_no_change, max_fun=max_fun, weight_decay=weight_decay, dropout=dropout,
            batch_norm=batch_norm, batch_norm_momentum=batch_norm_momentum, drop_last=drop_last, max_steps=max_steps,
            scoring=scoring, keep_best=keep_best, evaluate_every=evaluate_every,
            evaluations_per_epoch=evaluations_per_epoch, train_metrics=train_metrics, callbacks=callbacks,
            n_jobs=n_jobs,
        )  # fmt: skip
        self.loss = loss
        if isinstance(loss, tuple):  # layers; what else is wrong `fit` says, as scikit-learn has it
            self._check_loss()

    @unchanged_if_refused
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch on these rows, and go on from where the last call ended.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.
        y : array-like of shape (n,) or (n, K)
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
        ndarray of shape (n,) or (n, K)
            Values of the last layer.
        """
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def __sklearn_tags__(self) -> Any:
        """Say that there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_loss(self) -> None:
        """Refuse layers in the place of the loss, where they stood once."""
        if not isinstance(self.loss, str):
            raise TypeError(
                f"loss is {self.loss!r} ({type(self.loss).__name__}); it must be a str. As in scikit-learn the loss "
                "comes first: layers are given by MLPRegressor(hidden_layer_sizes=...)"
            )

    def _check_parameters(self) -> None:
        self._check_loss()
        super()._check_parameters()
        parameters.one_of(self.loss, "loss", ("squared_error",))

    def _new_targets(self, y: Array, classes: Any, partial: bool) -> NumberTargets:
        return NumberTargets("squared_error", 1 if y.ndim == 1 else y.shape[1])

    def _attributes(self, weights: Layers) -> dict[str, Any]:
        return super()._attributes(weights) | {"out_activation_": "identity"}
