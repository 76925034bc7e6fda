"""Linear models as the training loop wants them, on `fastml.kernels.linear.training`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.losses.table import LOSSES
from ..training.batches import Rows
from ..utils.lazy import lazy_module
from ._one_vs_rest import OneVsRestTraining, one_vs_rest_evaluation

if TYPE_CHECKING:
    from ..kernels.linear import training as linear_training
else:
    linear_training = lazy_module("fastml.kernels.linear.training")

__all__ = ["LinearColumns", "LinearTask", "LinearWeights", "ModelSettings"]

Array = NDArray[Any]

#: A step that no training reaches.
_NEVER = np.iinfo(np.intp).max


class LinearWeights(NamedTuple):
    """Weights (C, D) and intercepts (C,) of one linear model."""

    coef: Array
    intercept: Array


@dataclass(frozen=True, eq=False)
class LinearTask:
    """What models that train together have in common.

    Attributes
    ----------
    loss : str
        One of the kernels' names.
    rows : Rows
        Training rows with targets as the kernels take them.
    fit_intercept : bool
        Whether intercepts are trained.
    delta : float
        The parameter of Huber's loss.
    n_threads : int or None
        As everywhere in the kernels.
    score : callable, optional
        Gives the score of weights on rows; None is the share of right classes, or R².
    """

    loss: str
    rows: Rows
    fit_intercept: bool
    delta: float
    n_threads: int | None
    score: Callable[[LinearWeights, Rows], float] | None = None

    @property
    def is_regression(self) -> bool:
        """Whether the targets are numbers."""
        return LOSSES[self.loss].target == "real"


@dataclass(frozen=True, eq=False)
class ModelSettings:
    """What one model has for itself.

    Attributes
    ----------
    weights : LinearWeights
        What it begins with.
    l2, l1, momentum : float
        Penalties and momentum.
    nesterov : bool
        Whether momentum is Nesterov's.
    average_from : int or None
        The step from which its weights are averaged.
    """

    weights: LinearWeights
    l2: float
    l1: float
    momentum: float
    nesterov: bool
    average_from: int | None


class LinearColumns:
    """A `TrainedModel` of linear models.

    Where a model's weights are averaged it is the average that is evaluated and handed out.

    Parameters
    ----------
    task : LinearTask
        What they have in common.
    models : list of ModelSettings
        One for each column.
    done : int
        Steps that were done before.
    state : dict, optional
        What `state` returned after these steps.
    """

    def __init__(
        self, task: LinearTask, models: list[ModelSettings], *, done: int = 0, state: dict[str, Any] | None = None
    ) -> None:
        self._task = task
        self._one_vs_rest = not LOSSES[task.loss].over_classes and len(models[0].weights.intercept) > 1
        self._averaged = any(model.average_from is not None for model in models)
        self._has_state = self._averaged or any(model.momentum for model in models)
        self._begin(models)
        self._training.n_steps = done
        if state is not None:
            self._training.set_state(state)

    def _begin(self, models: list[ModelSettings]) -> None:
        task, self._models = self._task, models
        self._average_from = np.array([_NEVER if m.average_from is None else m.average_from for m in models])
        form: Any = OneVsRestTraining if self._one_vs_rest else linear_training.LinearTraining
        self._training = form(
            task.loss,
            task.rows.X,
            task.rows.y,
            W=np.stack([model.weights.coef for model in models]),
            b=np.stack([model.weights.intercept for model in models]),
            l2=[model.l2 for model in models],
            l1=[model.l1 for model in models],
            momentum=[model.momentum for model in models],
            nesterov=[model.nesterov for model in models],
            fit_intercept=task.fit_intercept,
            sample_weight=task.rows.weight,
            average_from=self._average_from if self._averaged else None,
            delta=task.delta,
            n_threads=task.n_threads,
        )

    @property
    def n_steps(self) -> int:
        """Steps since the weights were new."""
        return int(self._training.n_steps)

    def run(self, order: NDArray[np.intp], batch_size: int, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Train; see `TrainedModel`."""
        losses: NDArray[np.float64] = self._training.run(order, batch_size, steps)
        return losses

    def evaluate(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return losses and scores; see `TrainedModel`."""
        task = self._task
        W, b = self._current()
        if rows.weight is not None and not rows.weight.any():  # a batch of rows that do not count
            return np.full(len(W), math.nan), np.full(len(W), math.nan)
        evaluation = one_vs_rest_evaluation if self._one_vs_rest else linear_training.linear_evaluation
        losses, scores = evaluation(
            task.loss, rows.X, rows.y, W, b, sample_weight=rows.weight, delta=task.delta, n_threads=task.n_threads
        )
        if task.score is not None:
            scores = np.array([task.score(LinearWeights(*one), rows) for one in zip(W, b, strict=True)])
        elif task.is_regression:
            scores = r_squared(scores, rows)
        return losses, scores

    def finite(self) -> NDArray[np.bool_]:
        """Say which models have finite weights only."""
        training = self._training
        finite = [np.isfinite(W).all() and np.isfinite(b).all() for W, b in zip(training.W, training.b, strict=True)]
        return np.array(finite)

    def weights(self, column: int) -> LinearWeights:
        """Return a copy of a model's weights."""
        W, b = self._source(column)
        return LinearWeights(W[column].copy(), b[column].copy())

    def state(self, column: int) -> dict[str, Any] | None:
        """Return a copy of all that a model needs to go on training, if that is more than its weights."""
        if not self._has_state:
            return None
        since = {"averaged_from": int(self._average_from[column])}
        return _of_columns(self._training.get_state(), [column]) | since

    def keep(self, columns: list[int]) -> None:
        """Forget all other models."""
        state = _of_columns(self._training.get_state(), columns)
        self._begin([self._models[column] for column in columns])
        self._training.set_state(state)

    def _source(self, column: int) -> tuple[Array, Array]:
        training = self._training
        if self._average_from[column] <= training.n_steps:
            return training.average_W, training.average_b
        return training.W, training.b

    def _current(self) -> tuple[Array, Array]:
        """Return the weights of all models as they are to be evaluated."""
        training = self._training
        averaged = self._average_from <= training.n_steps
        if not averaged.any():
            return training.W, training.b
        W = np.where(averaged[:, np.newaxis, np.newaxis], training.average_W, training.W)
        return W, np.where(averaged[:, np.newaxis], training.average_b, training.b)


def r_squared(mean_squares: NDArray[np.float64], rows: Rows) -> NDArray[np.float64]:
    """Return R², which is undefined for targets that are all the same."""
    if not rows.varies or rows.variance == 0:  # which may underflow
        return np.full(len(mean_squares), math.nan)
    return 1 - mean_squares / rows.variance


def _of_columns(state: dict[str, Any], columns: list[int]) -> dict[str, Any]:
    return {name: value[columns] if isinstance(value, np.ndarray) else value for name, value in state.items()}
