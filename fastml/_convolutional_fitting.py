"""How `ConvNetClassifier` is fitted: networks on `fastml.kernels._sequence`, as the training loop wants them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._callbacks import Hooks
from ._fitting import Array, Rows, train
from ._network_fitting import l2_of
from ._network_training import judged
from ._progress import Progress
from ._runs import check_resumed, max_steps, new_run, resumable, resumed, say_what_became
from ._settling import Settled, settle
from ._step_sizes import given_sizes
from .kernels._image_works import Convolution, Dense, Normalization
from .kernels._sequence import Images, Network, SequenceTraining, Weights, scores_of_images

__all__ = ["as_images", "channel_scales", "fit_images"]

#: Images whose mean is computed together.
_IMAGES = 256


def as_images(X: Array, of_channels: tuple[Array, Array], dtype: np.dtype[Any]) -> Images:
    """Return rows or images as the kernels take them, with mean and factor of each channel; bytes stay bytes."""
    mean, factor = of_channels
    x = X if X.ndim == 4 else X.reshape(len(X), -1, 1, 1)
    kept = x if x.dtype == dtype or (x.dtype == np.uint8 and dtype == np.float32) else x.astype(dtype)
    return Images(np.ascontiguousarray(kept), mean.astype(dtype), factor.astype(dtype))


def channel_scales(X: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each channel of images (n, C, ...); the latter 1 where it is 0."""
    x = X.reshape(len(X), X.shape[1], -1)
    blocks = range(0, len(x), _IMAGES)
    mean = sum(x[i : i + _IMAGES].sum(axis=(0, 2), dtype=np.float64) for i in blocks) / (len(x) * x.shape[2])
    squares = sum(
        np.square(x[i : i + _IMAGES] - mean[:, np.newaxis], dtype=np.float64).sum(axis=(0, 2)) for i in blocks
    )
    std = np.sqrt(squares / (len(x) * x.shape[2]))
    return np.asarray(mean), np.where(std > 0, std, 1.0)


@dataclass(frozen=True, eq=False)
class _Task:
    """What a network is trained for, and how.

    Attributes
    ----------
    network : Network
        Its layers.
    loss : str
        One of the kernels' names.
    rows : Rows
        Training rows, with targets as the kernels take them.
    images : callable
        Makes `Images` of rows.
    settings : dict
        Further arguments of `SequenceTraining`.
    n_threads : int or None
        As everywhere in the kernels.
    score : callable or None
        Gives the score of weights on rows; None is the share of right classes.
    """

    network: Network
    loss: str
    rows: Rows
    images: Callable[[Array], Images]
    settings: dict[str, Any]
    n_threads: int | None
    score: Callable[[Weights, Rows], float] | None


class _Column:
    """A `Trainable` of one network; parameters as of `NetworkColumn`."""

    def __init__(self, task: _Task, weights: Weights, *, done: int = 0, state: dict[str, Any] | None = None) -> None:
        self._task = task
        y = task.rows.y
        self._training = SequenceTraining(
            task.network, task.loss, task.images(task.rows.X),
            y if task.loss == "softmax_cross_entropy" else y.reshape(len(y), -1), weights,
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
        scores = scores_of_images(task.network, self._training.weights, task.images(rows.X), task.n_threads)
        loss, score = judged(task.loss, scores, rows)
        if task.score is not None:
            score = task.score(self.weights(0), rows)
        return np.array([loss]), np.array([score])

    def finite(self) -> NDArray[np.bool_]:
        """Say whether all weights are finite."""
        return np.array([self._training.finite()])

    def weights(self, column: int) -> Weights:
        """Return a copy of the weights."""
        return self._training.weights.copy()

    def state(self, column: int) -> dict[str, Any]:
        """Return a copy of all that the network needs to go on training."""
        return self._training.get_state()

    def last_losses(self) -> NDArray[np.float64]:
        """Return the losses of the batches that the last call of `run` has completed."""
        return self._training.last_losses()[:, np.newaxis]

    def keep(self, columns: list[int]) -> None:
        """Do nothing: there is one column."""


def fit_images(model: Any, X: Any, y: Any, *, partial: bool = False, resume: bool = False, **more: Any) -> None:
    """Train a network, show its progress, and say what went wrong."""
    before = resumed(model) if resume else None
    again = partial and hasattr(model, "t_")
    settled = settle(
        model, X, y, partial=partial, sampling="permutation" if model.shuffle else "sequential",
        seed=None if before is None else before.seed, **more,
    )  # fmt: skip
    batches, rows = settled.batches, settled.rows
    continues = again or before is not None or (model.warm_start and hasattr(model, "parameters_"))
    dtype = np.dtype(np.float32) if rows.X.dtype == np.uint8 else rows.X.dtype
    if not continues:
        model._scale_channels(rows.X if batches.rows is None else rows.X[batches.rows])
    network = model._new_network(settled.targets.n_scores, dtype)
    first = _initial(model, settled, network, continues)
    task = _Task(
        network, settled.targets.loss, rows, lambda x: as_images(x, model._channels(), dtype),
        _settings(model, settled), settled.n_threads, settled.score,
    )  # fmt: skip
    done, course, state = model.t_ - 1 if again else 0, None, model._state if again else None
    if before is not None:
        check_resumed(before, settled)
        course, state = before.course, before.course.state
    column = _Column(task, first, done=done, state=state)
    run = new_run(model, 0, batches, partial)
    run.resumable = not partial
    hooks = progress = None
    if not partial:
        x, targets, weight = settled.data
        epochs = -(-run.max_steps // batches.steps)
        hooks = Hooks(model, epochs, x, targets, weight, lambda: model._attributes(column.weights(0)))
        if model.verbose:
            progress = Progress(max_steps(model, batches), batches, type(model).__name__)
    rates = given_sizes(model.learning_rate, model.learning_rate_init, model.power_t)
    arguments = column, [run], batches, [rates], settled.evaluations
    if progress is None:
        train(*arguments, hooks=hooks, resume=course)
    else:
        with progress:
            train(*arguments, hooks=hooks, progress=progress, resume=course)
    model._take(run, done, 1 if partial else -(-run.steps // batches.steps))
    model._resumable = resumable(run, settled)
    if hooks is not None:
        hooks.end()
    say_what_became(model, run, partial=partial, penalty=lambda: _penalty(model, settled, network, first))


def _settings(model: Any, settled: Settled) -> dict[str, Any]:
    adam = model.solver == "adam"
    return {
        "rule": model.solver,
        "l2": l2_of(model, settled),
        "momentum": 0.0 if adam else model.momentum,
        "nesterov": model.nesterovs_momentum,
        "beta_1": model.beta_1,
        "beta_2": model.beta_2,
        "epsilon": model.epsilon,
        "weight_decay": model.weight_decay if adam else 0.0,
        "seed": int(settled.dropout.generate_state(1, np.uint64)[0] >> 1),
    }


def _penalty(model: Any, settled: Settled, network: Network, weights: Weights) -> float:
    with np.errstate(over="ignore"):
        squares = float(np.square(weights.flat[: network.places.penalized], dtype=np.float64).sum())
    return 0.5 * l2_of(model, settled) * squares


def _initial(model: Any, settled: Settled, network: Network, continues: bool) -> Weights:
    """Return what a network begins with: from before, or new weights."""
    rng = np.random.default_rng(settled.init)
    if continues:
        wanted = [{name: value.shape for name, value in of.items()} for of in network.unpack(network.new_weights())]
        before = [{name: value.shape for name, value in of.items()} for of in model.parameters_]
        if before != wanted:
            raise ValueError(f"the parameters are to have shapes {wanted}, but those from before have {before}")
        return network.pack(model.parameters_)
    parameters: list[dict[str, Array]] = []
    for layer in network.layers:
        of_layer: dict[str, Array] = {}
        if isinstance(layer, (Convolution, Dense)):
            shape = layer.public_shape()
            bound = 1 / math.sqrt(math.prod(shape[1:]))  # the rule that X. Glorot and Y. Bengio (2010) begin with
            of_layer = {"weight": rng.uniform(-bound, bound, shape), "bias": np.zeros(shape[0])}
        elif isinstance(layer, Normalization):
            ones, zeros = np.ones(layer.shape[0]), np.zeros(layer.shape[0])
            of_layer = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
        parameters.append(of_layer)
    return network.pack(parameters)
