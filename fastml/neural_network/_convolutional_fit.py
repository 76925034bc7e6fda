"""How `ConvNetClassifier` is fitted: networks on `fastml.kernels.convolution`, as the training loop wants them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..training.batches import Array, Rows
from ..training.data import TrainingData, training_dtype
from ..training.loop import mean_training_loss
from ..training.outcomes import Initial, warn_of_outcome
from ..utils.lazy import lazy_module
from ._fit import Column, NetworkEstimator, as_kernel_targets, l2_strength, run_network, solver_settings, starting_point

if TYPE_CHECKING:
    from ..kernels.convolution import buffers
    from ..kernels.convolution import network as images_network
    from ..kernels.convolution import training as images_training
else:
    buffers = lazy_module("fastml.kernels.convolution.buffers")
    images_network = lazy_module("fastml.kernels.convolution.network")
    images_training = lazy_module("fastml.kernels.convolution.training")

__all__ = ["as_images", "channel_scales", "fit_images"]

#: Images whose mean is computed together.
_IMAGES = 256


def as_images(X: Array, of_channels: tuple[Array, Array], dtype: np.dtype[Any]) -> buffers.Images:
    """Return rows or images as the kernels take them, with mean and factor of each channel; bytes stay bytes."""
    mean, factor = of_channels
    x = X if X.ndim == 4 else X.reshape(len(X), -1, 1, 1)
    if not mean.shape == factor.shape == x.shape[1:2]:  # they may have been set by hand, or come from a file
        raise ValueError(
            f"X has {x.shape[1]} channels; channel_mean_ and channel_std_ have shapes {mean.shape} and {factor.shape}"
        )
    kept = x if x.dtype == dtype or (x.dtype == np.uint8 and dtype == np.float32) else x.astype(dtype)
    return buffers.Images(np.ascontiguousarray(kept), mean.astype(dtype), factor.astype(dtype))


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
        Further arguments of `ConvNetTraining`.
    n_threads : int or None
        As everywhere in the kernels.
    score : callable or None
        Gives the score of weights on rows; None is the share of right classes.
    """

    network: images_network.Network
    loss: str
    rows: Rows
    images: Callable[[Array], buffers.Images]
    settings: dict[str, Any]
    n_threads: int | None
    score: Callable[[images_network.Weights, Rows], float] | None


class _Column(Column):
    """A network of layers in a row, as the training loop wants it."""

    def __init__(
        self, task: _Task, weights: images_network.Weights, *, done: int, state: dict[str, Any] | None
    ) -> None:
        self._task = task
        training = images_training.ConvNetTraining(
            task.network, task.loss, task.images(task.rows.X), as_kernel_targets(task.loss, task.rows.y), weights,
            sample_weight=task.rows.weight, n_threads=task.n_threads, **task.settings,
        )  # fmt: skip
        super().__init__(training, task, done=done, state=state)

    def finite(self) -> NDArray[np.bool_]:
        """Say whether all weights are finite."""
        return np.array([self._training.finite()])

    def weights(self, column: int) -> images_network.Weights:
        """Return a copy of the weights."""
        weights: images_network.Weights = self._training.weights
        return weights.copy()

    def _scores(self, X: Array) -> Array:
        task = self._task
        return images_network.scores_of_images(task.network, self._training.weights, task.images(X), task.n_threads)


class ConvNetEstimator(NetworkEstimator, Protocol):
    """What a training reads of `ConvNetClassifier` and sets in it."""

    layers_: list[Any]
    parameters_: list[dict[str, Array]]

    def _scale_channels(self, X: Array) -> None:
        """Take means and standard deviations of the channels of training images."""

    def _channels(self) -> tuple[Array, Array]:
        """Return mean and factor of each channel."""

    def _new_network(self, n_scores: int, dtype: np.dtype[Any]) -> tuple[list[Any], images_network.Network]:
        """Return the layers, and as the kernels have them."""


def fit_images(
    model: ConvNetEstimator, X: Any, y: Any, *, partial: bool = False, resume: bool = False, **more: Any
) -> None:
    """Train a network, show its progress, and say what went wrong."""
    start = starting_point(model, X, y, partial=partial, resume=resume, **more)
    data = start.data
    if data.idle and start.continues:
        return
    batches, rows = data.batches, data.rows
    dtype = training_dtype(rows.X.dtype)
    if not start.continues:
        model._scale_channels(rows.X if batches.rows is None else rows.X[batches.rows])
    layers, network = model._new_network(data.targets.n_scores, dtype)
    weights = _initial(model, data, network, start.continues)
    model.layers_ = layers
    task = _Task(
        network, data.targets.loss, rows, lambda x: as_images(x, model._channels(), dtype),
        solver_settings(model, data), data.n_threads, data.score,
    )  # fmt: skip
    column = _Column(task, weights, done=start.done, state=start.state)
    run = run_network(model, column, start, partial=partial)
    initial = Initial(
        lambda: _penalty(model, data, network, weights),
        lambda: mean_training_loss(_Column(task, weights, done=0, state=None), batches),
    )
    warn_of_outcome(model, run, data.evaluations, initial, partial=partial)


def _penalty(
    model: ConvNetEstimator, data: TrainingData, network: images_network.Network, weights: images_network.Weights
) -> float:
    with np.errstate(over="ignore"):
        squares = float(np.square(weights.flat[: network.places.penalized], dtype=np.float64).sum())
    return 0.5 * l2_strength(model, data) * squares


def _initial(
    model: ConvNetEstimator, data: TrainingData, network: images_network.Network, continues: bool
) -> images_network.Weights:
    """Return what a network begins with: from before, or new weights."""
    if continues:
        wanted = [{name: value.shape for name, value in of.items()} for of in network.unpack(network.new_weights())]
        before = [{name: value.shape for name, value in of.items()} for of in model.parameters_]
        if before != wanted:
            raise ValueError(f"the parameters are to have shapes {wanted}, but those from before have {before}")
        return network.pack(model.parameters_)
    return network.initial_weights(np.random.default_rng(data.init))
