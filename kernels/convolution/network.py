"""Networks: layers in a row, their parameters in one array, and a plan for batches.

A `Network` says where the parameters of its layers lie in `Weights`. A `Plan` has the buffers of all layers for batches
of some size, and puts the tasks of all layers in a row: forwards, and after the loss backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.jit import readonly
from ..runtime.memory import aligned
from ._grid_loops import fetch
from .buffers import Array, Batch, Buffers, Grid, Images, pitch_of
from .layers import Layer
from .tasks import Task, run_stages, seconds_of, stages_of

__all__ = ["Network", "Plan", "Weights", "scores_of_images"]

#: Bytes that the values of the images may take that are scored together; how many there are at least and at most.
_SCORED_BYTES, _LEAST_SCORED, _MOST_SCORED = 1 << 26, 8, 256


# -------------------------------------------------------------------------------------------- parameters


@dataclass(eq=False)
class Weights:
    """All numbers of a network that training changes.

    Attributes
    ----------
    flat : ndarray
        Parameters: first those with a penalty.
    running : ndarray of float64
        Statistics of the layers that have some: running means and variances.
    """

    flat: Array
    running: NDArray[np.float64]

    def copy(self) -> Weights:
        """Return a copy."""
        flat = aligned(self.flat.shape, self.flat.dtype)
        flat[:] = self.flat
        return Weights(flat, self.running.copy())


_Place = tuple[int, tuple[int, ...]]


def _view(flat: Array, place: _Place) -> Array:
    begin, shape = place
    return flat[begin : begin + int(np.prod(shape))].reshape(shape)


@dataclass(eq=False)
class _Places:
    """Where parameters and statistics of all layers lie: begins and shapes; and how many entries there are."""

    parameters: list[dict[str, _Place]]
    statistics: list[_Place] = field(default_factory=list)
    penalized: int = 0
    size: int = 0
    running: int = 0


class Network:
    """Layers, and where their parameters lie.

    Parameters
    ----------
    layers : sequence of Layer
        The layers, each for the shape that the one before makes.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    input_pitch : int
        Entries of a pixel of the images.
    """

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.layers, self.dtype = list(layers), np.dtype(dtype)
        channels = self.layers[0].input_shape[0]
        first = next((layer for layer in self.layers if layer.has_parameters or not layer.in_place(True)), None)
        exact = first is not None and first.reads_numbers
        self.input_pitch = channels if exact else pitch_of(channels, self.dtype)
        self.places = self._places()

    def _places(self) -> _Places:
        shapes, pitch = [], self.input_pitch
        for layer in self.layers:
            shapes.append(layer.stored_shapes(self.dtype, pitch))
            if not layer.in_place(True):
                pitch = pitch_of(layer.shape[0], self.dtype)
        places = _Places([{} for _ in self.layers])
        for penalty in (True, False):
            for layer, wanted, found in zip(self.layers, shapes, places.parameters, strict=True):
                for name, shape in wanted.items():
                    if (name in layer.decays) == penalty:
                        found[name] = places.size, shape
                        places.size += pitch_of(int(np.prod(shape)), self.dtype)
            if penalty:
                places.penalized = places.size
        for layer in self.layers:
            shape = len(layer.statistics), layer.shape[0]
            places.statistics.append((places.running, shape))
            places.running += shape[0] * shape[1]
        return places

    def new_weights(self) -> Weights:
        """Return weights of 0."""
        return Weights(aligned((self.places.size,), self.dtype), np.zeros(self.places.running))

    def initial_weights(self, rng: np.random.Generator) -> Weights:
        """Return what training begins with."""
        return self.pack([layer.initial_parameters(rng) for layer in self.layers])

    def parameters(self, flat: Array) -> list[dict[str, Array]]:
        """Return views of the parameters of each layer, or of the gradient in them, as they lie in memory."""
        return [{name: _view(flat, place) for name, place in places.items()} for places in self.places.parameters]

    def statistics(self, weights: Weights) -> list[Array]:
        """Return a view of the statistics of each layer."""
        return [_view(weights.running, place) for place in self.places.statistics]

    def pack(self, parameters: Sequence[dict[str, Array]]) -> Weights:
        """Return weights from the parameters of each layer, in their public shapes."""
        weights = self.new_weights()
        parts = zip(self.layers, self.parameters(weights.flat), self.statistics(weights), parameters, strict=True)
        for layer, stored, statistics, given in parts:
            for name, part in stored.items():
                layer.pack(name, part, given[name])
            for name, row in zip(layer.statistics, statistics, strict=True):
                row[:] = given[name]
        return weights

    def unpack(self, weights: Weights) -> list[dict[str, Array]]:
        """Return copies of the parameters of each layer, in their public shapes, and of the statistics."""
        found = self.unpack_gradient(weights.flat)
        for layer, of_layer, statistics in zip(self.layers, found, self.statistics(weights), strict=True):
            of_layer |= {name: row.copy() for name, row in zip(layer.statistics, statistics, strict=True)}
        return found

    def unpack_gradient(self, flat: Array) -> list[dict[str, Array]]:
        """Return copies of the gradient in the parameters of each layer, in their public shapes."""
        return [
            {name: np.ascontiguousarray(layer.unpack(name, part)) for name, part in stored.items()}
            for layer, stored in zip(self.layers, self.parameters(flat), strict=True)
        ]


# ------------------------------------------------------------------------------------------------ plan


class Plan:
    """Buffers for batches of a network, and what is to be done for one.

    Parameters
    ----------
    network : Network
        The layers.
    weights : Weights
        Their parameters, which are looked at anew for each batch.
    images : Images
        What batches are fetched from; not copied.
    size : int
        Images of a batch, at most.
    training : bool
        Whether there is a way back, and a batch is normalised by its own mean.
    dropout : bool
        Whether values are dropped.
    seed : int
        Of dropout.
    """

    def __init__(
        self,
        network: Network,
        weights: Weights,
        images: Images,
        size: int,
        *,
        training: bool = False,
        dropout: bool = False,
        seed: int = 0,
    ) -> None:
        self.network, self.size, self.training = network, size, training
        self.images = Images(readonly(images.X), readonly(images.mean), readonly(images.factor))
        self.batch = Batch(seed=seed)
        self.gradient = aligned((network.places.size if training else 0,), network.dtype)
        self.buffers = self._buffers(weights, dropout)
        self._image = max(max(each.input.image, each.output.image) for each in self.buffers)
        self._stages: dict[tuple[int, bool], tuple[list[list[Task]], float]] = {}

    def _buffers(self, weights: Weights, dropout: bool) -> list[Buffers]:
        network, training = self.network, self.training
        values = self._value_grids()
        grads: Sequence[Any] = self._grad_grids() if training else [None] * len(values)
        parameters, statistics = network.parameters(readonly(weights.flat)), network.statistics(weights)
        gradient = network.parameters(self.gradient) if training else [{} for _ in network.layers]
        return [
            Buffers(
                values[number], values[number + 1], grads[number], grads[number + 1], parameters[number],
                gradient[number], statistics[number], self.batch, number, training, dropout,
            )
            for number in range(len(network.layers))
        ]  # fmt: skip

    def _value_grids(self) -> list[Grid]:
        """Make grids for what comes in, and for the values of each layer that does not work in place."""
        network, layers = self.network, self.network.layers
        shape, pitch = layers[0].input_shape, network.input_pitch
        grids = [Grid(self.size, shape, network.dtype, border=self._border(0), pitch=pitch)]
        for number, layer in enumerate(layers):
            if layer.in_place(self.training):
                grids.append(grids[-1])
            else:
                grids.append(Grid(self.size, layer.shape, network.dtype, border=self._border(number + 1)))
        return grids

    def _border(self, number: int) -> int:
        """Return the zeros that the next layer that does not work in place wants around its input."""
        return next((layer.border for layer in self.network.layers[number:] if not layer.in_place(self.training)), 0)

    def _grad_grids(self) -> list[Grid | None]:
        """Make grids for the gradient in the values, where a layer below has parameters."""
        grids: list[Grid | None] = [None]
        wanted = False
        for layer in self.network.layers:
            border = layer.grad_border() if wanted else 0
            wanted = wanted or layer.has_parameters
            if layer.grad_in_place() and grids[-1] is not None:
                grids.append(grids[-1])
            else:
                grids.append(Grid(self.size, layer.shape, self.network.dtype, border=border) if wanted else None)
        return grids

    def scores(self) -> Array:
        """Return the values of the last layer, a row for each image."""
        return self.buffers[-1].output.matrix()

    def scores_grad(self) -> Array:
        """Return the gradient in the scores, which is to be there before the way back."""
        return self.buffers[-1].output_grad.matrix()

    def forward(self, rows: Array, n_threads: int | None, *, number: int = 0) -> None:
        """Make the scores of these images, as batch `number`."""
        self.batch.rows, self.batch.number = readonly(rows), number
        self._run(n_threads, back=False)

    def backward(self, n_threads: int | None) -> None:
        """Make the gradient in all parameters from that in the scores."""
        self._run(n_threads, back=True)

    def _run(self, n_threads: int | None, *, back: bool) -> None:
        n = len(self.batch.rows)
        if (n, back) not in self._stages:
            stages = stages_of(self._way_back(n) if back else self._way_forth(n))
            self._stages[n, back] = stages, self._seconds(n, 2 if back else 1)
        stages, seconds = self._stages[n, back]
        image_bytes = self._image * self.network.dtype.itemsize
        run_stages(stages, n, n_threads, image_bytes=image_bytes, seconds=seconds)

    def _way_forth(self, n: int) -> list[Task]:
        layers = list(zip(self.network.layers, self.buffers, strict=True))
        tasks = [task for layer, buffers in layers for task in layer.prepare(buffers)]
        images, batch, grid = self.images, self.batch, self.buffers[0].input
        tasks.append(Task(lambda first, last: fetch(
            images.X, batch.rows, first, last, images.mean, images.factor, grid.flat, grid.place
        )))  # fmt: skip
        return tasks + [task for layer, buffers in layers for task in layer.forward(buffers, n)]

    def _way_back(self, n: int) -> list[Task]:
        """Return the tasks of all layers; the gradient in all parameters is one task, its longest parts first."""
        pairs = zip(self.network.layers, self.buffers, strict=True)
        layers = [(layer, buffers) for layer, buffers in pairs if buffers.output_grad is not None]
        tasks = [task for layer, buffers in reversed(layers) for task in layer.backward(buffers, n)]
        parts, rest = [], []
        for layer, buffers in layers:
            for task in layer.gradient(buffers, n):
                if task.parts:
                    parts += [(layer.n_products / task.parts, task.call, part) for part in range(task.parts)]
                else:
                    rest.append(task)
        parts.sort(key=lambda part: -part[0])

        def make(first: int, last: int) -> None:
            for _, call, part in parts[first:last]:
                call(part, part + 1)

        return [*tasks, Task(make, len(parts)), *rest]

    def _seconds(self, n: int, ways: int) -> float:
        """Return roughly how long n images take one core, so many ways of theirs."""
        products = sum(layer.n_products for layer in self.network.layers)
        entries = self.buffers[0].input.image + sum(each.output.image for each in self.buffers)
        return seconds_of(n * ways * products, n * ways * entries, self.network.dtype.itemsize)

    def moved_statistics(self) -> list[tuple[Array, Array]]:
        """Return statistics, and what they are to be after a step on the batch."""
        n, layers = len(self.batch.rows), zip(self.network.layers, self.buffers, strict=True)
        return [(buffers.statistics, layer.moved_statistics(buffers, n)) for layer, buffers in layers]


def scores_of_images(network: Network, weights: Weights, images: Images, n_threads: int | None) -> Array:
    """Return the scores of images, as a trained network gives them."""
    n, outputs = len(images.X), network.layers[-1].shape[0]
    scores = np.empty((n, outputs), network.dtype)
    if n == 0:
        return scores
    one = Plan(network, weights, images, 1)
    grids = {id(grid): grid for each in one.buffers for grid in (each.input, each.output)}
    image_bytes = sum(grid.image for grid in grids.values()) * scores.itemsize
    size = min(n, _MOST_SCORED, max(_LEAST_SCORED, _SCORED_BYTES // max(1, image_bytes)))
    plan = Plan(network, weights, images, size)
    for first in range(0, n, size):
        last = min(n, first + size)
        plan.forward(np.arange(first, last), n_threads)
        scores[first:last] = plan.scores()[: last - first, :outputs]
    return scores
