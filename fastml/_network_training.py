"""Networks as the training loop wants them, on `fastml.kernels._networks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._fitting import Array, Rows
from ._network_runs import Column, targets_of
from .kernels.networks.scores import Norm, folded, scores_of
from .kernels.networks.training import NetworkTraining

__all__ = ["Layers", "NetworkColumn", "NetworkTask"]


class Layers(NamedTuple):
    """Weights (units, inputs) and intercepts (units,) of each layer; of normalised ones the latter are shifts."""

    weights: list[Array]
    biases: list[Array]
    norms: list[Norm]

    def copied(self) -> Layers:
        """Return a copy."""
        norms = [Norm(*(part.copy() for part in norm)) for norm in self.norms]
        return Layers([W.copy() for W in self.weights], [b.copy() for b in self.biases], norms)

    def scores(self, X: Array, activation: str, n_threads: int | None) -> Array:
        """Return the values of the last layer, with running statistics where a layer is normalised."""
        return scores_of(X, *folded(*self), activation=activation, n_threads=n_threads)


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
        training = NetworkTraining(
            task.loss, task.rows.X, targets_of(task.loss, task.rows.y), layers.weights, layers.biases,
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
