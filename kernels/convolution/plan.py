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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime import parallel
from ..runtime.jit import readonly
from ..runtime.memory import aligned
from ._grid import Grid, pitch_of
from ._grid_loops import fetch
from .layers import Layer, Work
from .network import Network, Weights

__all__ = ["Images", "Plan", "differentiated", "scores_of_images", "worked"]

Array = NDArray[Any]


#: Bytes of images that are worked on together.
_GROUP_BYTES = 1 << 18

#: Bytes that the values of the images may take that are scored together; how many there are at least and at most.
_SCORED_BYTES, _LEAST_SCORED, _MOST_SCORED = 1 << 26, 8, 256

#: Seconds of a multiply-add and of an entry of a grid, and of a batch below which a second thread does not pay.
_PRODUCT, _ENTRY, _SERIAL_SECONDS = 1.2e-11, 1e-9, 1e-3


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

                parallel.run(task, -(-n // group), n_threads)
            else:
                call = stage[0].call
                parallel.run(lambda part, call=call: call(part, part + 1), stage[0].parts, n_threads)  # type: ignore[misc]

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
    return parallel.resolve(n_threads)


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
