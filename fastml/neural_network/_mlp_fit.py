"""How `MLPClassifier` and `MLPRegressor` are fitted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..training.batches import Array, Rows
from ..training.data import TrainingData
from ..training.loop import mean_training_loss
from ..training.outcomes import Initial, warn_of_outcome
from ..utils.lazy import lazy_module
from ._fit import Column, NetworkEstimator, as_kernel_targets, l2_strength, run_network, solver_settings, starting_point

if TYPE_CHECKING:
    from ..kernels.networks import scores as network_scores
    from ..kernels.networks import training as network_training
else:
    network_scores = lazy_module("fastml.kernels.networks.scores")
    network_training = lazy_module("fastml.kernels.networks.training")

__all__ = ["Layers", "NetworkColumn", "NetworkTask", "fit_network"]


class Layers(NamedTuple):
    """Weights (units, inputs) and intercepts (units,) of each layer; of normalised ones the latter are shifts."""

    weights: list[Array]
    biases: list[Array]
    norms: list[network_scores.Norm]

    def copied(self) -> Layers:
        """Return a copy."""
        norms = [network_scores.Norm(*(part.copy() for part in norm)) for norm in self.norms]
        return Layers([W.copy() for W in self.weights], [b.copy() for b in self.biases], norms)

    def scores(self, X: Array, activation: str, n_threads: int | None) -> Array:
        """Return the values of the last layer, with running statistics where a layer is normalised."""
        return network_scores.scores_of(X, *network_scores.folded(*self), activation=activation, n_threads=n_threads)


@dataclass(frozen=True, eq=False)
class NetworkTask:
    """What a network is trained for, and how.

    Attributes
    ----------
    loss : str
        One of the kernels' names.
    rows : Rows
        Training rows with targets as the kernels take them; targets of one score may be (n,).
    activation : str
        Of the hidden layers.
    settings : dict
        Further arguments of `NetworkTraining`.
    n_threads : int or None
        As everywhere in the kernels.
    score : callable, optional
        Gives the score of layers on rows; None is the share of right classes, or R².
    """

    loss: str
    rows: Rows
    activation: str
    settings: dict[str, Any]
    n_threads: int | None
    score: Callable[[Layers, Rows], float] | None = None


class NetworkColumn(Column):
    """A network of fully connected layers, as the training loop wants it.

    Parameters
    ----------
    task : NetworkTask
        What it is trained for.
    layers : Layers
        What it begins with.
    done, state
        As of `Column`.
    """

    def __init__(
        self, task: NetworkTask, layers: Layers, *, done: int = 0, state: dict[str, Any] | None = None
    ) -> None:
        self._task = task
        training = network_training.NetworkTraining(
            task.loss, task.rows.X, as_kernel_targets(task.loss, task.rows.y), layers.weights, layers.biases,
            norms=layers.norms or None, activation=task.activation, sample_weight=task.rows.weight,
            n_threads=task.n_threads, **task.settings,
        )  # fmt: skip
        super().__init__(training, task, done=done, state=state)

    def finite(self) -> NDArray[np.bool_]:
        """Say whether all weights are finite."""
        layers = self._layers()
        parts = chain(layers.weights, layers.biases, *layers.norms)
        return np.array([all(np.isfinite(part).all() for part in parts)])

    def weights(self, column: int) -> Layers:
        """Return a copy of the layers."""
        return self._layers().copied()

    def _scores(self, X: Array) -> Array:
        return self._layers().scores(X, self._task.activation, self._task.n_threads)

    def _layers(self) -> Layers:
        training = self._training
        return Layers(training.weights, training.biases, training.norms)


class MLPEstimator(NetworkEstimator, Protocol):
    """What a training reads of `MLPClassifier` and `MLPRegressor`."""

    hidden_layer_sizes: Any
    activation: str
    dropout: Any
    batch_norm: bool
    batch_norm_momentum: float

    coefs_: list[Array]
    intercepts_: list[Array]
    batch_norm_scales_: list[Array]

    def _norms(self) -> list[network_scores.Norm]:
        """Return what the normalised layers have beside shifts."""


def fit_network(
    model: MLPEstimator, X: Any, y: Any, *, partial: bool = False, resume: bool = False, **more: Any
) -> None:
    """Train a network, show its progress, and say what went wrong."""
    start = starting_point(model, X, y, partial=partial, resume=resume, **more)
    data = start.data
    if data.idle and start.continues:
        return
    layers, task = _initial(model, data, start.continues), _task(model, data)
    network = NetworkColumn(task, layers, done=start.done, state=start.state)
    run = run_network(model, network, start, partial=partial)
    initial = Initial(
        lambda: _penalty(model, data, layers),
        lambda: mean_training_loss(NetworkColumn(task, layers), data.batches),
    )
    warn_of_outcome(model, run, data.evaluations, initial, partial=partial)


def _task(model: MLPEstimator, data: TrainingData) -> NetworkTask:
    settings = solver_settings(model, data) | {
        "dropout": _shares(model.dropout, len(_hidden_sizes(model))),
        "norm_share": model.batch_norm_momentum,
    }
    return NetworkTask(data.targets.loss, data.rows, model.activation, settings, data.n_threads, data.score)


def _penalty(model: MLPEstimator, data: TrainingData, layers: Layers) -> float:
    with np.errstate(over="ignore"):
        squares = sum(float(np.square(W, dtype=np.float64).sum()) for W in layers.weights)
    return 0.5 * l2_strength(model, data) * squares


def _hidden_sizes(model: MLPEstimator) -> list[int]:
    """Return the units of each hidden layer."""
    sizes = model.hidden_layer_sizes
    return [int(size) for size in (sizes if np.iterable(sizes) else [sizes])]


def _shares(dropout: Any, hidden: int) -> list[float]:
    return [float(share) for share in dropout] if np.iterable(dropout) else [float(dropout)] * hidden


def _initial(model: MLPEstimator, data: TrainingData, continues: bool) -> Layers:
    """Return what a network begins with: from before, or new layers."""
    dtype = data.rows.X.dtype
    units = [data.rows.X.shape[1], *_hidden_sizes(model), data.targets.n_scores]
    if continues:
        before = [W.T.shape for W in model.coefs_]
        wanted = [(outputs, inputs) for inputs, outputs in pairwise(units)]
        if before != wanted:
            raise ValueError(f"the layers are to have shapes {wanted}, but those from before have {before}")
        layers = Layers([W.T.astype(dtype) for W in model.coefs_], [b.astype(dtype) for b in model.intercepts_], [])
        if bool(model.batch_norm_scales_) != (model.batch_norm and len(units) > 2):
            raise ValueError(f"batch_norm is {model.batch_norm!r}; the layers from before are of another kind")
        for norm in model._norms():
            layers.norms.append(network_scores.Norm(*(part.astype(dtype) for part in norm)))
        return layers
    rng = np.random.default_rng(data.init)
    factor = 2 if model.activation == "logistic" else 6
    layers = Layers([], [], [])
    for inputs, outputs in pairwise(units):
        bound = math.sqrt(factor / (inputs + outputs))  # X. Glorot and Y. Bengio (2010)
        layers.weights.append(rng.uniform(-bound, bound, (outputs, inputs)).astype(dtype))
        layers.biases.append(rng.uniform(-bound, bound, outputs).astype(dtype))
    if model.batch_norm:
        for shifts in layers.biases[:-1]:
            shifts[:] = 0
            ones = np.ones_like(shifts)
            layers.norms.append(network_scores.Norm(ones, np.zeros_like(ones), ones))
    return layers
