"""Convolutional networks: layers in a row, and their training.

A `Plan` puts the works of all layers (`_image_works`) in a row, forwards, the loss, and backwards. Works on images one
by one, of layers that follow each other, are done together, a few images at a time, which so stay in the second-level
cache from layer to layer. Others are cut in parts. Threads share images and parts, and wait for each other in between.

Every number is made by one thread in one order, which does not depend on who makes it: same bits for any number of
threads.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _threads
from ._backprop import LOSS_ROWS, LOSSES, RULES
from ._grids import Grid, pitch_of
from ._image_layers import STEP_ENTRIES, fetch, loss_slopes, take_step
from ._image_works import Convolution, Dense, Dropping, Flattening, Layer, Normalization, Rectifier, Work, part_of
from ._jit import readonly
from ._stacks import aligned

__all__ = [
    "Images", "Network", "Plan", "SequenceTraining", "Weights", "differentiated", "scores_of_images", "worked",
]  # fmt: skip

Array = NDArray[Any]

#: Parameters whose step is a part.
_STEP_PART = 1 << 16

#: Bytes of images that are worked on together.
_GROUP_BYTES = 1 << 18

#: Bytes that the values of the images may take that are scored together; how many there are at least and at most.
_SCORED_BYTES, _LEAST_SCORED, _MOST_SCORED = 1 << 26, 8, 256

#: Seconds of a multiply-add and of an entry of a grid, and of a batch below which a second thread does not pay.
_PRODUCT, _ENTRY, _SERIAL_SECONDS = 1.2e-11, 1e-9, 1e-3


# ------------------------------------------------------------------------------------------ parameters


@dataclass(eq=False)
class Weights:
    """All numbers of a network that training changes.

    Attributes
    ----------
    flat : ndarray
        Parameters: first those with a penalty.
    running : ndarray of float64
        Running means and variances of the layers that normalise.
    """

    flat: Array
    running: NDArray[np.float64]

    def copy(self) -> Weights:
        """Return a copy."""
        flat = aligned(self.flat.shape, self.flat.dtype)
        flat[:] = self.flat
        return Weights(flat, self.running.copy())


@dataclass(eq=False)
class _Places:
    """Where the parameters of all layers lie."""

    penalized: int
    size: int
    running: int
    of_layers: list[dict[str, tuple[int, tuple[int, ...]]]] = field(default_factory=list)


def _places(layers: Sequence[Layer], dtype: np.dtype[Any]) -> _Places:
    wanted = [layer.parameters(dtype) for layer in layers]
    places = _Places(0, 0, 0, [{} for _ in layers])
    for penalty in (True, False):
        for number, parameters in enumerate(wanted):
            for name, shape in parameters.items():
                if (name == "weight" and len(shape) > 1) == penalty:
                    places.of_layers[number][name] = (places.size, shape)
                    places.size += pitch_of(int(np.prod(shape)), dtype)
        if penalty:
            places.penalized = places.size
    for number, layer in enumerate(layers):
        if isinstance(layer, Normalization):
            places.of_layers[number]["running"] = (places.running, (2, layer.shape[0]))
            places.running += 2 * layer.shape[0]
    return places


class Network:
    """Layers, and where their parameters lie.

    Parameters
    ----------
    layers : sequence of Layer
        The layers, each for the shape that the one before makes.
    dtype : dtype
        float32 or float64.
    exact : bool
        Whether the input may lie without zeros after the channels of a pixel, if nobody asks for slopes in it.
    """

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[Any], *, exact: bool = True) -> None:
        self.layers, self.dtype = list(layers), np.dtype(dtype)
        # Nothing is padded in the input of a first product: its numbers are never read as vectors.
        first = next((layer for layer in self.layers if not isinstance(layer, (Rectifier, Dropping, Flattening))), None)
        self.exact = exact and isinstance(first, (Convolution, Dense))
        for layer in self.layers:
            layer.exact = self.exact and layer is first
        self.places = _places(self.layers, self.dtype)

    def new_weights(self) -> Weights:
        """Return weights of 0."""
        return Weights(aligned((self.places.size,), self.dtype), np.zeros(self.places.running))

    def pack(self, parameters: Sequence[dict[str, Array]]) -> Weights:
        """Return weights from the parameters of each layer, in their public shapes."""
        weights = self.new_weights()
        for layer, places, given in zip(self.layers, self.places.of_layers, parameters, strict=True):
            for name, place in places.items():
                if name == "running":
                    part_of(weights.running, place)[:] = given["running_mean"], given["running_var"]
                else:
                    layer.put(name, part_of(weights.flat, place), given[name])
        return weights

    def unpack(self, weights: Weights) -> list[dict[str, Array]]:
        """Return copies of the parameters of each layer, in their public shapes."""
        return self._public(weights.flat, weights.running)

    def _public(self, flat: Array, running: Array | None) -> list[dict[str, Array]]:
        result = []
        for layer, places in zip(self.layers, self.places.of_layers, strict=True):
            of_layer: dict[str, Array] = {}
            for name, place in places.items():
                if name != "running":
                    of_layer[name] = np.ascontiguousarray(layer.get(name, part_of(flat, place)))
                elif running is not None:
                    mean, variance = part_of(running, place)
                    of_layer |= {"running_mean": mean.copy(), "running_var": variance.copy()}
            result.append(of_layer)
        return result


# ------------------------------------------------------------------------------------------------ plan


@dataclass(frozen=True, eq=False)
class Images:
    """Images as a network fetches them.

    Attributes
    ----------
    X : ndarray of shape (n, C, H, W), float32, float64 or uint8, C-contiguous
        The images.
    mean, factor : ndarray of shape (C,)
        What is taken off each channel, and what it is multiplied by then; of the dtype of the network.
    """

    X: Array
    mean: Array
    factor: Array


class Plan:
    """Buffers for batches of a network, and what is to be done for one.

    Parameters
    ----------
    network : Network
        The layers.
    weights : Weights
        Their parameters, which are looked at anew for each batch.
    rows : int
        Images of a batch, at most.
    training : bool
        Whether there is a way back, and a batch is normalised by its own mean.
    dropping : bool
        Whether values are dropped.
    to_input : bool
        Whether slopes are wanted in the images.
    """

    def __init__(
        self, network: Network, weights: Weights, rows: int, *, training: bool, dropping: bool, to_input: bool = False
    ) -> None:
        self.network, self.weights, self.rows = network, weights, rows
        self.training, self.dropping = training, dropping
        self.dtype = network.dtype
        self.unit = pitch_of(1, self.dtype)
        self.seed = self.batch = 0
        self.gradient = aligned((network.places.size if training else 0,), self.dtype)
        self.layers = [copy.copy(layer) for layer in network.layers]
        self.values = self._value_grids()
        self.slopes: list[Any] = self._slope_grids(to_input) if training else [None] * len(self.values)
        for number, layer in enumerate(self.layers):
            layer.attach(self, number)
        self._stages: dict[tuple[int, bool], list[list[Work]]] = {}
        self.images, self.order = Images(np.empty((0, 1, 1, 1), self.dtype), *[np.zeros(1)] * 2), np.zeros(0, np.intp)

    def _value_grids(self) -> list[Grid]:
        layers = self.layers
        pitch = layers[0].input[0] if self.network.exact else None
        grids = [Grid(self.rows, layers[0].input, self.dtype, border=self._border(0), pitch=pitch)]
        for number, layer in enumerate(layers):
            if layer.in_place(self.training):
                grids.append(grids[-1])
            else:
                grids.append(Grid(self.rows, layer.shape, self.dtype, border=self._border(number + 1)))
        return grids

    def _border(self, number: int) -> int:
        """Return the zeros that the next layer that does not work in place wants around its input."""
        return next((layer.border for layer in self.layers[number:] if not layer.in_place(self.training)), 0)

    def _slope_grids(self, to_input: bool) -> list[Grid | None]:
        """Make grids for slopes, where they are wanted or a layer below has parameters."""
        values = self.values[0]
        grids: list[Grid | None] = [Grid(self.rows, values.shape, self.dtype) if to_input else None]
        wanted = to_input
        for layer in self.layers:
            back = layer.slopes_border() if wanted else 0
            wanted = wanted or layer.has_parameters
            if layer.slopes_in_place() and grids[-1] is not None:
                grids.append(grids[-1])
            else:
                grids.append(Grid(self.rows, layer.shape, self.dtype, border=back) if wanted else None)
        return grids

    def scores(self) -> Array:
        """Return the values of the last layer, a row for each image."""
        return self.values[-1].matrix()

    def score_slopes(self) -> Array:
        """Return the slopes in them."""
        return np.asarray(self.slopes[-1].matrix())

    def _fetch(self, first: int, last: int) -> None:
        grid, images = self.values[0], self.images
        fetch(images.X, self.order, first, last, images.mean, images.factor, grid.flat, grid.place)

    def stages(self, n: int, back: bool) -> list[list[Work]]:
        """Return works in groups: those of a group go together, image by image."""
        if (n, back) not in self._stages:
            works: list[Work] = []
            if back:
                for layer in reversed(self.layers):
                    works += layer.backward(n)
                works += self._gradients(n)
            else:
                works += [work for layer in self.layers for work in layer.begin()]
                plan = weakref.proxy(self)
                works.append(Work(lambda first, last: plan._fetch(first, last)))
                for layer in self.layers:
                    works += layer.forward(n)
            self._stages[n, back] = _together(works)
        return self._stages[n, back]

    def _gradients(self, n: int) -> list[Work]:
        """Return what makes the gradient of all layers as one work of many parts, the longest first, and the rest."""
        parts, rest = [], []
        for layer in self.layers:
            for work in layer.gradient(n):
                if work.parts:
                    parts += [(layer.products() / work.parts, work.call, part) for part in range(work.parts)]
                else:
                    rest.append(work)
        parts.sort(key=lambda part: -part[0])

        def make(first: int, last: int) -> None:
            for _, call, part in parts[first:last]:
                call(part, part + 1)

        return [Work(make, len(parts)), *rest]

    def run(self, n: int, n_threads: int, *, back: bool = False) -> None:
        """Do all works for n images, forwards or back."""
        # Other layers' values pass through the cache too, so that this is but a rule of thumb.
        most = max(1, _GROUP_BYTES // max(1, max(grid.image for grid in self.values) * self.dtype.itemsize))
        for stage in self.stages(n, back):
            if stage[0].parts == 0:
                for work in stage:
                    work.call(0, 1)
            elif stage[0].parts is None:
                group = max(1, min(most, n if n_threads == 1 else -(-n // (2 * n_threads))))

                def task(number: int, stage: list[Work] = stage, group: int = group) -> None:
                    for work in stage:
                        work.call(number * group, min(n, (number + 1) * group))

                _threads.run(task, -(-n // group), n_threads)
            else:
                call = stage[0].call
                _threads.run(lambda part, call=call: call(part, part + 1), stage[0].parts, n_threads)  # type: ignore[misc]

    def seconds(self, n: int) -> float:
        """Return roughly how long a batch takes one core."""
        products = sum(layer.products() for layer in self.layers) * (3 if self.training else 1)
        entries = sum(grid.image for grid in self.values) * (3 if self.training else 1)
        return n * (products * _PRODUCT + entries * _ENTRY) * self.dtype.itemsize / 4


def _together(works: Sequence[Work]) -> list[list[Work]]:
    """Put together what follows each other and is done image by image, or once."""
    stages: list[list[Work]] = []
    for work in works:
        if stages and work.parts in (None, 0) and stages[-1][0].parts == work.parts:
            stages[-1].append(work)
        else:
            stages.append([work])
    return stages


def _thread_count(n_threads: int | None, seconds: float) -> int:
    if n_threads is None and seconds < _SERIAL_SECONDS:
        return 1
    return _threads.resolve(n_threads)


def scores_of_images(network: Network, weights: Weights, images: Images, n_threads: int | None) -> Array:
    """Return the scores of images, as a trained network gives them."""
    n, outputs = len(images.X), network.layers[-1].shape[0]
    scores = np.empty((n, outputs), network.dtype)
    if n == 0:
        return scores
    plan = Plan(network, weights, 1, training=False, dropping=False)
    bytes_of_image = sum(grid.image for grid in {id(grid): grid for grid in plan.values}.values()) * scores.itemsize
    rows = min(n, _MOST_SCORED, max(_LEAST_SCORED, _SCORED_BYTES // max(1, bytes_of_image)))
    plan = Plan(network, weights, rows, training=False, dropping=False)
    plan.images = Images(readonly(images.X), readonly(images.mean), readonly(images.factor))
    threads = _thread_count(n_threads, plan.seconds(n))
    for first in range(0, n, rows):
        last = min(n, first + rows)
        plan.order = readonly(np.arange(first, last))
        plan.run(last - first, threads)
        scores[first:last] = plan.scores()[: last - first, :outputs]
    return scores


def worked(layer: Layer, X: Array, parameters: dict[str, Array], n_threads: int | None) -> Array:
    """Return what one layer makes of images (n, C, H, W)."""
    plan = _plan_of_layer(layer, X, parameters, back=False)
    plan.run(len(X), _thread_count(n_threads, plan.seconds(len(X))))
    return _by_channel(plan.values[-1], len(X))


def differentiated(
    layer: Layer, slopes: Array, X: Array, parameters: dict[str, Array], n_threads: int | None
) -> tuple[Array, dict[str, Array]]:
    """Return slopes in what one layer was given, and the gradient in its parameters, from slopes in what it makes."""
    plan = _plan_of_layer(layer, X, parameters, back=True)
    threads = _thread_count(n_threads, plan.seconds(len(X)))
    plan.run(len(X), threads)
    plan.slopes[-1].pixels(len(X))[...] = slopes.transpose(0, 2, 3, 1)
    plan.run(len(X), threads, back=True)
    return _by_channel(plan.slopes[0], len(X)), plan.network._public(plan.gradient, None)[0]


def _plan_of_layer(layer: Layer, X: Array, parameters: dict[str, Array], *, back: bool) -> Plan:
    network = Network([layer], X.dtype, exact=False)
    weights = network.pack([parameters])
    plan = Plan(network, weights, max(1, len(X)), training=back, dropping=False, to_input=back)
    channels = X.shape[1]
    plan.images = Images(readonly(X), *(readonly(part(channels, X.dtype)) for part in (np.zeros, np.ones)))
    plan.order = readonly(np.arange(len(X)))
    return plan


def _by_channel(grid: Grid, n: int) -> Array:
    return np.ascontiguousarray(grid.pixels(n).transpose(0, 3, 1, 2))


# -------------------------------------------------------------------------------------------- training


class SequenceTraining:
    """A convolutional network in training.

    It assumes that its arguments are settled, and keeps the state between calls.

    Parameters
    ----------
    network : Network
        The layers; the last one makes the scores.
    loss : {"softmax_cross_entropy", "binary_cross_entropy"}
        The loss of a row, as of `NetworkTraining`.
    images : Images
        What is trained on; not copied.
    y : ndarray of shape (n,), class indices of dtype intp, or (n, C) of the dtype of the network
        Targets.
    weights : Weights
        To begin with; copied.
    rule : {"sgd", "adam"}
        How steps are taken.
    l2, momentum, nesterov, beta_1, beta_2, epsilon, weight_decay, seed
        As of `NetworkTraining`; a penalty is on the weights of products only.
    dropping : bool
        Whether layers that drop values do so.
    sample_weight : ndarray of shape (n,) of the dtype of the network, optional
        Weights of the rows, used as they are: the loss of a batch is Σ w l / (rows of the batch).
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Attributes
    ----------
    weights : Weights
        What the network is now.
    n_steps : int
        Batches done so far.
    """

    def __init__(
        self,
        network: Network,
        loss: str,
        images: Images,
        y: Array,
        weights: Weights,
        *,
        rule: str = "sgd",
        l2: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
        dropping: bool = True,
        sample_weight: Array | None = None,
        n_threads: int | None = None,
    ) -> None:
        dtype = network.dtype
        if rule == "sgd" and momentum:
            rule = "nesterov" if nesterov else "momentum"
        self.network, self.weights = network, weights.copy()
        self._loss, self._rule, self._n_threads, self._seed = LOSSES.index(loss), RULES.index(rule), n_threads, seed
        self._betas, self._dropping = (beta_1, beta_2), dropping
        self._images = Images(readonly(images.X), readonly(images.mean), readonly(images.factor))
        self._outputs = network.layers[-1].shape[0]
        self._indices = readonly(np.ascontiguousarray(y, np.intp) if y.ndim == 1 else np.empty(0, np.intp))
        targets = np.empty((0, self._outputs), dtype) if y.ndim == 1 else np.ascontiguousarray(y, dtype)
        self._targets = readonly(targets)
        given = np.empty(0, dtype) if sample_weight is None else np.ascontiguousarray(sample_weight, dtype)
        self._sample_weight = readonly(given)
        self._numbers = readonly(np.array([momentum, beta_1, beta_2, epsilon], dtype))
        self._penalties = [
            [readonly(np.full(STEP_ENTRIES, strength if penalized else 0, dtype)) for strength in (l2, weight_decay)]
            for penalized in (True, False)
        ]
        self._moments = aligned((2, 0 if rule == "sgd" else network.places.size), dtype)
        self._steps = self._step_parts()
        self._plan: Plan | None = None
        self._losses, self._began = np.zeros(0), 0
        self.n_steps = 0

    def _step_parts(self) -> list[tuple[int, int, bool]]:
        """Return which parameters take their step together, and whether they have a penalty."""
        places = self.network.places
        bounds = ((0, places.penalized, True), (places.penalized, places.size, False))
        return [
            (first, min(end, first + _STEP_PART), penalized)
            for begin, end, penalized in bounds
            for first in range(begin, end, _STEP_PART)
        ]

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that `run` changes."""
        weights = self.weights
        return {
            "parameters": weights.flat.copy(),
            "running": weights.running.copy(),
            "moments": self._moments.copy(),
            "n_steps": self.n_steps,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `get_state` returned."""
        self.weights.flat[...] = state["parameters"]
        self.weights.running[...] = state["running"]
        self._moments[...] = state["moments"]
        self.n_steps = int(state["n_steps"])

    def finite(self) -> bool:
        """Say whether all weights are finite."""
        return bool(np.isfinite(self.weights.flat).all() and np.isfinite(self.weights.running).all())

    def run(self, order: ArrayLike, batch_size: int, steps: ArrayLike) -> NDArray[np.float64]:
        """Train on the images `order`, batch by batch; see `NetworkTraining.run`.

        Ctrl-C ends it within a fraction of a second: weights and `n_steps` are then as after the last batch that was
        completed.
        """
        order = np.ascontiguousarray(order, np.intp)
        if order.size == 0:
            return np.zeros(0)
        n = len(self._images.X)
        if order.min() < 0 or order.max() >= n:
            raise ValueError(f"order has a number outside 0..{n - 1}; X has {n} rows")
        batch_size = min(batch_size, order.size)
        if self._plan is None or self._plan.rows < batch_size:
            self._plan = Plan(self.network, self.weights, batch_size, training=True, dropping=self._dropping)
            self._plan.images, self._plan.seed = self._images, self._seed
        plan, batches = self._plan, -(-order.size // batch_size)
        threads = _thread_count(self._n_threads, plan.seconds(batch_size))
        sizes, losses = np.broadcast_to(np.asarray(steps, np.float64), (batches,)), np.zeros(batches)
        self._losses, self._began = losses, self.n_steps
        for batch in range(batches):
            rows = order[batch * batch_size : (batch + 1) * batch_size]
            losses[batch] = self._differentiate(plan, rows, threads)
            self._take_step(plan, float(sizes[batch]), threads)
        return losses

    def last_losses(self) -> NDArray[np.float64]:
        """Return the losses of the batches that the last call of `run` has completed, though Ctrl-C ended it."""
        return self._losses[: self.n_steps - self._began].copy()

    def loss_gradient(self, order: Array) -> tuple[float, list[dict[str, Array]]]:
        """Return the mean loss of some images, without penalty, and its gradient in the parameters of each layer."""
        plan = Plan(self.network, self.weights, len(order), training=True, dropping=self._dropping)
        plan.images, plan.seed = self._images, self._seed
        loss = self._differentiate(plan, order, _thread_count(self._n_threads, plan.seconds(len(order))))
        return loss, self.network._public(plan.gradient, None)

    def _differentiate(self, plan: Plan, rows: Array, threads: int) -> float:
        """Make the gradient of a batch's mean loss; return that."""
        n = len(rows)
        plan.batch, plan.order = self.n_steps, readonly(rows)
        plan.run(n, threads)
        groups = -(-n // LOSS_ROWS)
        sums = np.zeros(groups)
        scale = plan.dtype.type(1) / plan.dtype.type(n)
        loss_slopes(
            self._loss, readonly(plan.scores()), plan.score_slopes(), n, self._outputs, plan.order, self._indices,
            self._targets, self._sample_weight, scale, groups, sums,
        )  # fmt: skip
        plan.run(n, threads, back=True)
        total = 0.0
        for part in sums.tolist():
            total += part
        return total / n

    def _take_step(self, plan: Plan, size: float, threads: int) -> None:
        """Take a step; once begun it is completed, whatever comes."""
        corrections = (1 - beta ** (self.n_steps + 1.0) for beta in self._betas)
        of_mean, of_square = (correction if correction > 0 else 1.0 for correction in corrections)
        step = readonly(np.array([size, size / of_mean, of_square**-0.5]).astype(plan.dtype))
        done = np.zeros(len(self._steps), np.uint8)
        moved = [(layer.running, layer.moved_running()) for layer in plan.layers if isinstance(layer, Normalization)]
        n_steps = self.n_steps + 1
        gradient = readonly(plan.gradient)

        def move(part: int) -> None:
            if done[part]:
                return
            first, last, penalized = self._steps[part]
            decay, shrink = self._penalties[not penalized]
            take_step(
                self._rule, self.weights.flat, gradient, self._moments, decay, shrink, step, self._numbers, first, last,
                done, part,
            )  # fmt: skip

        def complete() -> None:
            for part in range(len(self._steps)):
                move(part)
            for running, after in moved:
                running[...] = after
            self.n_steps = n_steps

        try:
            _threads.run(move, len(self._steps), threads)
        finally:
            _threads.insist(complete)
