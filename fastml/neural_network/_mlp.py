"""What the networks of fully connected layers share, a classifier and a regressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from ..kernels.networks.arguments import ACTIVATIONS
from ..training.batches import Array
from ..training.callbacks import with_callbacks
from ..training.model import IterativeModel
from ..utils import parameters
from ..utils.lazy import lazy_module
from ..utils.validation import unchanged_if_refused, validate_data
from ._mlp_fit import Layers, fit_network

if TYPE_CHECKING:
    from ..kernels.networks import scores as network_scores
else:
    network_scores = lazy_module("fastml.kernels.networks.scores")

__all__ = ["MultilayerPerceptron"]


class MultilayerPerceptron(IterativeModel):
    """What `MLPClassifier` and `MLPRegressor` share."""

    @classmethod
    def _records(cls) -> tuple[type, ...]:
        return *super()._records(), Layers, network_scores.Norm

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
        callbacks: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.batch_norm_momentum = batch_norm_momentum
        self.drop_last = drop_last
        self.max_steps = max_steps
        self.scoring = scoring
        self.keep_best = keep_best
        self.evaluate_every = evaluate_every
        self.evaluations_per_epoch = evaluations_per_epoch
        self.train_metrics = train_metrics
        self.callbacks = callbacks
        self.n_jobs = n_jobs

    @unchanged_if_refused
    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Train the network.

        Ctrl-C ends the training: the model keeps the weights it has by then (the best ones, where these are kept)
        and its history, a warning says so, and `fit` returns as usual. With ``resume=True`` it then goes on.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite. float32 is trained in float32, all else in float64.
        y : array-like of shape (n,), or (n, K) for a regression
            Targets.
        sample_weight : array-like of shape (n,) or float, optional
            What each training row counts: a row of weight 2 counts as two rows, also against the penalty.
        X_val, y_val : array-like, optional
            A validation set: rows and targets. Its loss and score go into `history_`, and with
            ``early_stopping=True`` it takes the place of a part of the training rows. It must have been prepared as
            `X` was: a pipeline transforms it if told to by ``Pipeline(..., transform_input=["X_val"])``.
        sample_weight_val : array-like or float, optional
            What each row of the validation set counts.
        resume : bool, default=False
            Whether to go on where the fit before was ended, by Ctrl-C, a callback, `max_steps` or `max_iter`: with
            the same data and parameters (and perhaps more of `max_iter`) the result has the same bits as that of a
            fit that was not ended. One that had converged stays as it is. A model that was not fitted before begins.

        Returns
        -------
        self
        """
        self._check_parameters()
        parameters.flag(resume, "resume")
        fit_network(
            self, X, y, X_val=X_val, y_val=y_val, sample_weight=sample_weight, sample_weight_val=sample_weight_val,
            resume=resume,
        )  # fmt: skip
        return self

    def _partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: Any, classes: Any = None) -> Self:
        self._check_parameters()
        self._check_partial()
        fit_network(self, X, y, sample_weight=sample_weight, classes=classes, partial=True)
        return self

    def _check_parameters(self) -> None:
        p = parameters
        several = np.iterable(self.hidden_layer_sizes)
        sizes = list(self.hidden_layer_sizes) if several else [self.hidden_layer_sizes]
        for place, size in enumerate(sizes):
            p.positive_integer(size, f"hidden_layer_sizes[{place}]" if several else "hidden_layer_sizes")
        p.one_of(self.activation, "activation", ACTIVATIONS)
        p.one_of(self.solver, "solver", ("adam", "sgd"), refused={"lbfgs": "'adam' and 'sgd' train by batches"})
        p.number(self.alpha, "alpha")
        p.number(self.weight_decay, "weight_decay")
        several = np.iterable(self.dropout)
        shares = list(self.dropout) if several else [self.dropout]
        if several and len(shares) != len(sizes):
            raise ValueError(f"dropout has {len(shares)} entries; there are {len(sizes)} hidden layers")
        for place, share in enumerate(shares):
            name = f"dropout[{place}]" if several else "dropout"
            if p.number(share, name, most=1) == 1:
                raise ValueError(f"{name} is {share}; it must be below 1, or nothing is left")
        p.flag(self.batch_norm, "batch_norm")
        p.number(self.batch_norm_momentum, "batch_norm_momentum", most=1)
        self._check_training()
        p.flag(self.shuffle, "shuffle")
        if isinstance(self.learning_rate, str):
            refused = {"adaptive": "it may be 'constant', 'invscaling', a function or a list"}
            p.one_of(self.learning_rate, "learning_rate", ("constant", "invscaling"), refused=refused)
        p.number(self.learning_rate_init, "learning_rate_init", above=True)
        p.number(self.power_t, "power_t", least=-np.inf)
        p.number(self.momentum, "momentum", most=1)
        p.flag(self.nesterovs_momentum, "nesterovs_momentum")
        for name in ("beta_1", "beta_2"):
            if p.number(getattr(self, name), name, most=1) == 1:
                raise ValueError(f"{name} is 1; it must be below 1")
        p.number(self.epsilon, "epsilon", above=True)
        p.positive_integer(self.max_fun, "max_fun")

    def _attributes(self, weights: Layers) -> dict[str, Any]:
        return {
            "coefs_": [np.ascontiguousarray(W.T) for W in weights.weights],
            "intercepts_": list(weights.biases),
            "batch_norm_scales_": [norm.scales for norm in weights.norms],
            "batch_norm_means_": [norm.means for norm in weights.norms],
            "batch_norm_variances_": [norm.variances for norm in weights.norms],
            "n_layers_": len(weights.weights) + 1,
            "n_outputs_": len(weights.biases[-1]),
        }

    @property
    def loss_curve_(self) -> list[float]:
        """Training loss of each evaluation, so with the defaults of each epoch."""
        losses: list[float] = self.history_["train_loss"].tolist()
        return losses

    @property
    def loss_(self) -> float:
        """The last of them."""
        return self.loss_curve_[-1]

    @property
    def best_loss_(self) -> float | None:
        """The least of them; None with `early_stopping`, which goes by the validation set."""
        return None if self.early_stopping else min(self.loss_curve_)

    @property
    def validation_scores_(self) -> list[float] | None:
        """Score on the validation set in each evaluation; None where there is no such set."""
        scores: list[float] = self.history_["validation_score"].tolist()
        return None if np.isnan(self.history_["validation_loss"]).all() else scores

    @property
    def best_validation_score_(self) -> float | None:
        """The largest of them."""
        scores = self.validation_scores_
        return None if scores is None else float(np.fmax.reduce(scores))

    def _scores(self, X: ArrayLike) -> Array:
        """Return the values of the last layer (n, C)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)
        layers = Layers([W.T for W in self.coefs_], self.intercepts_, self._norms())
        if len(self.coefs_[0]) != x.shape[1]:  # they may have been set by hand, or come from a file
            raise ValueError(f"X has {x.shape[1]} columns; coefs_[0] has {len(self.coefs_[0])} rows, one for each")
        return layers.scores(x, self.activation, parameters.threads(self.n_jobs))

    def _norms(self) -> list[network_scores.Norm]:
        """Return what the normalised layers have beside shifts."""
        parts = self.batch_norm_scales_, self.batch_norm_means_, self.batch_norm_variances_
        return [network_scores.Norm(*norm) for norm in zip(*parts, strict=True)]
