"""Networks as the training loop wants them, on `fastml.kernels._networks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import r2_score

from . import kernels
from ._fitting import Rows
from .kernels._networks import NetworkTraining, Norm, folded, scores_of

__all__ = ["Layers", "NetworkColumn", "NetworkTask", "judged"]

Array = NDArray[Any]


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


class NetworkColumn:
    """A `Trainable` of one network.

    Parameters
    ----------
    task : NetworkTask
        What it is trained for.
    layers : Layers
        What it begins with.
    done : int
        Steps that were done before.
    state : dict, optional
        What `state` returned after these steps.
    """

    def __init__(
        self, task: NetworkTask, layers: Layers, *, done: int = 0, state: dict[str, Any] | None = None
    ) -> None:
        self._task = task
        y = task.rows.y
        self._training = NetworkTraining(
            task.loss, task.rows.X, y if task.loss == "softmax_cross_entropy" else y.reshape(len(y), -1),
            layers.weights, layers.biases, norms=layers.norms or None, activation=task.activation,
            sample_weight=task.rows.weight, n_threads=task.n_threads, **task.settings,
        )  # fmt: skip
        self._training.n_steps = done
        if state is not None:
            self._training.set_state(state)

    @property
    def n_steps(self) -> int:
        """Steps since the weights were new."""
        return self._training.n_steps

    def run(self, order: NDArray[np.intp], batch_size: int, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Train; see `Trainable`."""
        return self._training.run(order, batch_size, steps[:, 0])[:, np.newaxis]

    def evaluate(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return loss and score; see `Trainable`."""
        task = self._task
        scores = self._layers().scores(rows.X, task.activation, task.n_threads)
        loss, score = judged(task.loss, scores, rows)
        if task.score is not None:
            score = task.score(self.weights(0), rows)
        return np.array([loss]), np.array([score])

    def finite(self) -> NDArray[np.bool_]:
        """Say whether all weights are finite."""
        layers = self._layers()
        parts = chain(layers.weights, layers.biases, *layers.norms)
        return np.array([all(np.isfinite(part).all() for part in parts)])

    def weights(self, column: int) -> Layers:
        """Return a copy of the layers."""
        return self._layers().copied()

    def state(self, column: int) -> dict[str, Any]:
        """Return a copy of all that the network needs to go on training."""
        return self._training.get_state()

    def last_losses(self) -> NDArray[np.float64]:
        """Return the losses of the batches that the last call of `run` has completed."""
        return self._training.last_losses()[:, np.newaxis]

    def keep(self, columns: list[int]) -> None:
        """Do nothing: there is one column."""

    def _layers(self) -> Layers:
        training = self._training
        return Layers(training.weights, training.biases, training.norms)


def judged(loss: str, scores: Array, rows: Rows) -> tuple[float, float]:
    """Return the mean loss of scores (n, C), and the share of right classes or R²."""
    y, weight = rows.y, rows.weight
    if loss == "softmax_cross_entropy":
        right = scores.argmax(axis=1) == y
        return kernels.softmax_cross_entropy(scores, y, sample_weight=weight), _mean(right, weight)
    if loss == "binary_cross_entropy":
        z = scores[:, 0]
        return kernels.binary_cross_entropy(z, y, sample_weight=weight), _mean((z >= 0) == (y > 0), weight)
    targets = y.reshape(len(y), -1)
    losses = np.square(scores - targets, dtype=np.float64).sum(axis=1) / 2
    if len(y) < 2 or not np.isfinite(scores).all():
        return _mean(losses, weight), np.nan
    return _mean(losses, weight), float(r2_score(targets, scores, sample_weight=weight))


def _mean(values: Array, weight: Array | None) -> float:
    return float(np.average(values, weights=weight))
