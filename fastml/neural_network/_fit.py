"""How networks of any kind are trained: what a training begins from, how it runs, and what their solvers are told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import r2_score

from .. import kernels
from ..kernels.losses.table import LOSSES
from ..training.batches import Array, Rows
from ..training.callbacks import Hooks
from ..training.data import IterativeEstimator, TrainingData, prepare, training_dtype
from ..training.loop import train
from ..training.outcomes import (
    check_same_data,
    last_checkpoint,
    max_steps,
    new_run,
    solver_state,
    store_checkpoint,
    store_run,
)
from ..training.progress import Progress
from ..training.run import Checkpoint, Run
from ..training.step_sizes import scheduled_sizes

__all__ = [
    "Column",
    "NetworkEstimator",
    "StartingPoint",
    "as_kernel_targets",
    "l2_strength",
    "run_network",
    "solver_settings",
    "starting_point",
]


class NetworkEstimator(IterativeEstimator, Protocol):
    """What a training reads of a network of any kind."""

    solver: str
    alpha: float
    weight_decay: float
    learning_rate_init: float
    power_t: float
    shuffle: bool
    momentum: float
    nesterovs_momentum: bool
    beta_1: float
    beta_2: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """What a training begins from.

    Attributes
    ----------
    data : TrainingData
        Data, and all that is drawn.
    continues : bool
        Whether it begins with the parameters that the model has.
    done : int
        Steps that were done before.
    state : dict or None
        What the solver had then, and with a checkpoint the weights.
    checkpoint : Checkpoint or None
        Where the run stood that is resumed.
    """

    data: TrainingData
    continues: bool
    done: int
    state: dict[str, Any] | None
    checkpoint: Checkpoint | None


def starting_point(
    model: NetworkEstimator, X: ArrayLike, y: ArrayLike, *, partial: bool, resume: bool, **more: Any
) -> StartingPoint:
    """Prepare data, and say what a model goes on from, if it does."""
    before = last_checkpoint(model) if resume else None
    data = prepare(
        model, X, y, partial=partial, sampling="permutation" if model.shuffle else "sequential",
        seed=None if before is None else before.seed, **more,
    )  # fmt: skip
    if before is not None:
        check_same_data(before, data)
        return StartingPoint(data, True, 0, before.checkpoint.state, before.checkpoint)
    if partial and hasattr(model, "t_"):
        state = solver_state(model)
        _check_dtype(state, data.rows.X)
        return StartingPoint(data, True, model.t_ - 1, _without_weights(state), None)
    return StartingPoint(data, bool(model.warm_start) and hasattr(model, "t_"), 0, None, None)


def _check_dtype(state: dict[str, Any] | None, X: Array) -> None:
    """Refuse rows that would be trained in another dtype than those before."""
    now = training_dtype(X.dtype)
    if state is not None and state["parameters"].dtype != now:
        before = state["parameters"].dtype
        raise ValueError(f"X is {X.dtype}, to be trained in {now}; partial_fit goes on in {before}, as it began")


def _without_weights(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the solver remembers; the weights are those of the model, which may have been set by hand."""
    return None if state is None else {name: state[name] for name in ("moments", "n_steps", "memory")}


def run_network(model: NetworkEstimator, column: Column, start: StartingPoint, *, partial: bool) -> Run:
    """Train a network, show its progress, and let the model take what became of it."""
    data, batches = start.data, start.data.batches
    run = new_run(model, 0, batches, data.evaluations, partial=partial, idle=data.idle)
    run.wants_checkpoint = not partial
    hooks = progress = None
    if not partial:
        epochs = -(-run.max_steps // batches.steps)
        hooks = Hooks(model, epochs, data.given, lambda: column.weights(0))
        if model.verbose:
            progress = Progress(max_steps(model, batches), batches, type(model).__name__)
    rates = scheduled_sizes(model.learning_rate, model.learning_rate_init, model.power_t)
    arguments = column, [run], batches, [rates], data.evaluations
    with progress or nullcontext():
        train(*arguments, hooks=hooks, progress=progress, resume=start.checkpoint)
    store_run(model, run, start.done, -(-run.steps // batches.steps))
    store_checkpoint(model, run, data)
    if hooks is not None:
        hooks.end()
    return run


def solver_settings(model: NetworkEstimator, data: TrainingData) -> dict[str, Any]:
    """Return what the solver of a model is told."""
    adam = model.solver == "adam"
    return {
        "rule": model.solver,
        "l2": l2_strength(model, data),
        "momentum": 0.0 if adam else model.momentum,
        "nesterov": model.nesterovs_momentum,
        "beta_1": model.beta_1,
        "beta_2": model.beta_2,
        "epsilon": model.epsilon,
        "weight_decay": model.weight_decay if adam else 0.0,
        "seed": int(data.dropout.generate_state(1, np.uint64)[0] >> 1),
    }


def l2_strength(model: NetworkEstimator, data: TrainingData) -> float:
    """Return what is beside half the sum of squares: the penalty is added to the weighted sum of a batch's losses."""
    return float(model.alpha) / (data.batches.size * data.mean_weight)


class Column(ABC):
    """A `TrainedModel` of one network. A subclass says how its weights are copied, and how scores are made.

    Parameters
    ----------
    training : NetworkTraining or ConvNetTraining
        The network in training.
    task : object
        Has a `loss`, one of the kernels' names; a `score`, which gives that of weights on rows, or None, for the share
        of right classes, or R²; and `settings` of the solver.
    done : int
        Steps that were done before.
    state : dict or None
        What `state` returned after these steps; what is missing stays as it is.
    """

    def __init__(self, training: Any, task: Any, *, done: int, state: dict[str, Any] | None) -> None:
        self._training, self._loss = training, task.loss
        self._score: Callable[[Any, Rows], float] | None = task.score
        self._memory = _memory(task.settings)
        training.n_steps = done
        if state is not None:
            if state["memory"] != self._memory:
                raise ValueError(
                    f"the steps before left {state['memory']}, those to come need {self._memory}: a training goes on "
                    "with the same solver, and with momentum if it had any"
                )
            training.set_state(training.get_state() | state)

    @property
    def n_steps(self) -> int:
        """Steps since the weights were new."""
        return int(self._training.n_steps)

    def run(self, order: NDArray[np.intp], batch_size: int, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Train; see `TrainedModel`."""
        losses: NDArray[np.float64] = self._training.run(order, batch_size, steps[:, 0])
        return losses[:, np.newaxis]

    def evaluate(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return loss and score; see `TrainedModel`."""
        loss, score = _loss_and_score(self._loss, self._scores(rows.X), rows)
        if self._score is not None:
            score = self._score(self.weights(0), rows)
        return np.array([loss]), np.array([score])

    @abstractmethod
    def finite(self) -> NDArray[np.bool_]:
        """Say whether all weights are finite."""

    @abstractmethod
    def weights(self, column: int) -> Any:
        """Return a copy of the weights."""

    def state(self, column: int) -> dict[str, Any]:
        """Return a copy of all that the network needs to go on training."""
        state: dict[str, Any] = self._training.get_state()
        return state | {"memory": self._memory}

    def last_losses(self) -> NDArray[np.float64]:
        """Return the losses of the batches that the last call of `run` has completed."""
        losses: NDArray[np.float64] = self._training.last_losses()
        return losses[:, np.newaxis]

    def keep(self, columns: list[int]) -> None:  # noqa: B027 - there is nothing to forget
        """Do nothing: there is one column."""

    @abstractmethod
    def _scores(self, X: Array) -> Array:
        """Return the scores of rows; every kind of network has its own."""


def _memory(settings: dict[str, Any]) -> str:
    """Say what a solver remembers from step to step."""
    if settings["rule"] == "adam":
        return "means of gradients and of their squares"
    return "velocities" if settings["momentum"] else "nothing but weights"


def as_kernel_targets(loss: str, y: Array) -> Array:
    """Return targets as the kernels of networks take them: classes (n,), else (n, C)."""
    return y if LOSSES[loss].over_classes else y.reshape(len(y), -1)


def _loss_and_score(loss: str, scores: Array, rows: Rows) -> tuple[float, float]:
    """Return the mean loss of scores (n, C), and the share of right classes or R²."""
    y, weight = rows.y, rows.weight
    if LOSSES[loss].over_classes:
        right = scores.argmax(axis=1) == y
        return kernels.softmax_cross_entropy(scores, y, sample_weight=weight), _mean(right, weight)
    if loss == "binary_cross_entropy":
        z = scores[:, 0]
        return kernels.binary_cross_entropy(z, y, sample_weight=weight), _mean((z >= 0) == (y > 0), weight)
    targets = y.reshape(len(y), -1)
    with np.errstate(over="ignore"):  # of a network that diverges
        mean = _mean(np.square(scores - targets, dtype=np.float64).sum(axis=1) / 2, weight)
        if not rows.varies or not np.isfinite(scores).all():
            return mean, np.nan
        return mean, float(r2_score(targets, scores, sample_weight=weight))


def _mean(values: Array, weight: Array | None) -> float:
    return float(np.average(values, weights=weight))
