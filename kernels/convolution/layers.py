"""Layers of convolutional networks: what each does for a batch, forwards and backwards, as works on grids of images.

A layer says what is to be done as a list of `Work`: on images one by one, which layers that follow each other may then
do together; on parts, units or columns of a gradient; or once, where it needs all images, which is where a mean over
the batch is made. `_sequence` puts the works of all layers in a row.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runtime.jit import readonly
from ._grid import Grid, pitch_of
from ._grid_loops import (
    average_pool,
    average_pool_slopes,
    channel_spreads,
    drop_out,
    max_pool,
    max_pool_slopes,
    normalize,
    normalize_slopes,
    relu,
    relu_slopes,
    slope_sums,
)

if TYPE_CHECKING:
    from .plan import Plan

__all__ = [
    "AveragePooling",
    "Dropping",
    "Flattening",
    "Layer",
    "MaxPooling",
    "Normalization",
    "Rectifier",
    "Work",
    "once",
    "part_of",
]

Array = NDArray[Any]
Shape = tuple[int, int, int]


class Work(NamedTuple):
    """Something to do: ``call(first, last)`` on images (`parts` is None), on so many parts, or once (0 of them)."""

    call: Callable[[int, int], object]
    parts: int | None = None


def once(call: Callable[[], object]) -> Work:
    """Return what is done once."""
    return Work(lambda first, last: call(), 0)


def part_of(flat: Array, place: tuple[int, tuple[int, ...]]) -> Array:
    """Return a parameter as a view of all."""
    begin, shape = place
    return flat[begin : begin + int(np.prod(shape))].reshape(shape)


class Layer:
    """What layers have in common.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of what comes in.

    Attributes
    ----------
    input, shape : tuple of int
        Of what comes in and goes out.
    border : int
        Zeros that the layer needs around its input.
    """

    border = 0
    has_parameters = False
    exact = False

    def __init__(self, shape: Shape) -> None:
        self.input = self.shape = shape

    def in_place(self, training: bool) -> bool:
        """Whether the output lies where the input lay."""
        return False

    def slopes_in_place(self) -> bool:
        """Whether slopes in the input lie where those in the output lay."""
        return self.in_place(True)

    def slopes_border(self) -> int:
        """Zeros that the way back through this layer needs around the slopes in its output."""
        return 0

    def products(self) -> int:
        """Multiply-adds of an image."""
        return 0

    def parameters(self, dtype: np.dtype[Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters, as they lie in memory."""
        return {}

    def put(self, name: str, part: Array, value: ArrayLike) -> None:
        """Store a parameter of public shape."""

    def get(self, name: str, part: Array) -> Array:
        """Return a view of a parameter in its public shape."""
        return part

    def attach(self, plan: Plan, number: int) -> None:
        """Take a place in a plan, and make what is needed for its batches."""
        # Not a cycle: the buffers of a plan are to go with it, not when garbage is next looked for.
        self.plan: Plan = weakref.proxy(plan)
        self.number = number
        self.values, self.result = plan.values[number], plan.values[number + 1]
        self.slopes, self.result_slopes = plan.slopes[number], plan.slopes[number + 1]

    def begin(self) -> Iterator[Work]:
        """Say what is to be done before a batch, of which it depends on the parameters only."""
        yield from ()

    def forward(self, n: int) -> Iterator[Work]:
        """Say what is to be done for n images, from input to output."""
        yield from ()

    def backward(self, n: int) -> Iterator[Work]:
        """Say what is to be done for slopes in the input, where they are wanted."""
        yield from ()

    def gradient(self, n: int) -> Iterator[Work]:
        """Say what is to be done for the gradient in the parameters, when all slopes are there."""
        yield from ()


class Rectifier(Layer):
    """max(z, 0)."""

    def in_place(self, training: bool) -> bool:
        return True

    def forward(self, n: int) -> Iterator[Work]:
        grid = self.result
        yield Work(lambda first, last: relu(grid.flat, grid.place, first, last))

    def backward(self, n: int) -> Iterator[Work]:
        grid, slopes = self.result, self.slopes
        if slopes is not None:
            yield Work(lambda first, last: relu_slopes(grid.fixed, grid.place, slopes.flat, slopes.place, first, last))


class Flattening(Layer):
    """Says that the pixels of an image are values of one row; nothing is done."""

    def in_place(self, training: bool) -> bool:
        return True


class Dropping(Layer):
    """Sets values to 0 in training, which ones a hash says, and multiplies the others.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of what comes in.
    share : float
        Of the values that are set to 0.
    """

    def __init__(self, shape: Shape, share: float) -> None:
        super().__init__(shape)
        self.threshold = int(share * 2.0**63)

    def in_place(self, training: bool) -> bool:
        return True

    def _drop(self, grid: Grid) -> Work:
        plan, threshold = self.plan, self.threshold
        scale = plan.dtype.type(1 / (1 - threshold * 2.0**-63))

        def call(first: int, last: int) -> None:
            drop_out(grid.flat, grid.place, threshold, scale, plan.seed, plan.batch, self.number, first, last)

        return Work(call)

    def forward(self, n: int) -> Iterator[Work]:
        if self.threshold and self.plan.dropping:
            yield self._drop(self.result)

    def backward(self, n: int) -> Iterator[Work]:
        if self.threshold and self.plan.dropping and self.slopes is not None:
            yield self._drop(self.slopes)


class MaxPooling(Layer):
    """The largest value of each window.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of what comes in.
    size, stride : int
        Width of a window, at most 16; how far windows are apart.
    """

    def __init__(self, shape: Shape, size: int, stride: int) -> None:
        super().__init__(shape)
        self.size, self.stride = size, stride
        self.shape = shape[0], (shape[1] - size) // stride + 1, (shape[2] - size) // stride + 1

    def attach(self, plan: Plan, number: int) -> None:
        super().attach(plan, number)
        self.index = np.zeros(plan.rows * self.shape[1] * self.shape[2] * self.values.pitch, np.uint8)

    def forward(self, n: int) -> Iterator[Work]:
        values, result, how = self.values, self.result, (self.index, self.size, self.stride)
        yield Work(
            lambda first, last: max_pool(values.fixed, values.place, result.flat, result.place, *how, first, last)
        )

    def backward(self, n: int) -> Iterator[Work]:
        given, slopes, index, how = self.result_slopes, self.slopes, readonly(self.index), (self.size, self.stride)
        if slopes is not None:
            yield Work(
                lambda first, last: max_pool_slopes(
                    given.fixed, given.place, index, slopes.flat, slopes.place, *how, first, last
                )
            )


class AveragePooling(Layer):
    """The mean of each window; parameters as of `MaxPooling`."""

    def __init__(self, shape: Shape, size: int, stride: int) -> None:
        super().__init__(shape)
        self.size, self.stride = size, stride
        self.shape = shape[0], (shape[1] - size) // stride + 1, (shape[2] - size) // stride + 1

    def forward(self, n: int) -> Iterator[Work]:
        values, result, how = self.values, self.result, (self.size, self.stride)
        yield Work(
            lambda first, last: average_pool(values.fixed, values.place, result.flat, result.place, *how, first, last)
        )

    def backward(self, n: int) -> Iterator[Work]:
        given, slopes, how = self.result_slopes, self.slopes, (self.size, self.stride)
        if slopes is not None:
            yield Work(
                lambda first, last: average_pool_slopes(
                    given.fixed, given.place, slopes.flat, slopes.place, *how, first, last
                )
            )


class Normalization(Layer):
    """Batch normalisation of each channel.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of what comes in.
    momentum : float
        Share of a batch in the running mean and variance.
    epsilon : float
        Added to the variance.
    """

    has_parameters = True

    def __init__(self, shape: Shape, momentum: float, epsilon: float) -> None:
        super().__init__(shape)
        self.momentum, self.epsilon = momentum, epsilon

    def in_place(self, training: bool) -> bool:
        return not training

    def slopes_in_place(self) -> bool:
        return True

    def parameters(self, dtype: np.dtype[Any]) -> dict[str, tuple[int, ...]]:
        return {"weight": (pitch_of(self.shape[0], dtype),), "bias": (pitch_of(self.shape[0], dtype),)}

    def put(self, name: str, part: Array, value: ArrayLike) -> None:
        part[: self.shape[0]] = value

    def get(self, name: str, part: Array) -> Array:
        return part[: self.shape[0]]

    def attach(self, plan: Plan, number: int) -> None:
        super().attach(plan, number)
        places, pitch = plan.network.places.of_layers[number], self.values.pitch
        self.factors, self.shifts = (part_of(plan.weights.flat, places[name]) for name in ("weight", "bias"))
        self.running = part_of(plan.weights.running, places["running"])
        self.lines = np.zeros((4, self.shape[2] * pitch), plan.dtype)
        self.fixed_lines = readonly(self.lines)
        if plan.training:
            self.factors_gradient, self.shifts_gradient = (
                part_of(plan.gradient, places[name]) for name in ("weight", "bias")
            )
            self.sums, self.products_ = (np.zeros((plan.rows, pitch), plan.dtype) for _ in range(2))

    def _set_lines(self, *of_channels: Array) -> None:
        """Repeat what belongs to the channels for each pixel of a line."""
        lines = self.lines.reshape(4, self.shape[2], -1)
        for line, values in zip(lines, of_channels, strict=False):
            line[:] = values

    def forward(self, n: int) -> Iterator[Work]:
        values, result, lines = self.values, self.result, self.fixed_lines
        apply = Work(
            lambda first, last: normalize(
                values.fixed, values.place, lines, result.flat, result.place, first, last
            )
        )  # fmt: skip
        if not self.plan.training:
            yield once(self._use_running)
            yield apply
            return
        pixels = self.shape[1] * self.shape[2]
        yield Work(
            lambda first, last: channel_spreads(values.fixed, values.place, self.sums, self.products_, first, last)
        )

        def combine() -> None:
            means = self.sums[:n].astype(np.float64)
            self.mean = means.mean(axis=0)
            between = np.square(means - self.mean).sum(axis=0)
            spread = self.products_[:n].sum(axis=0, dtype=np.float64) + pixels * between
            self.count = n * pixels
            self.variance = spread / self.count
            self.scale = 1 / np.sqrt(self.variance + self.epsilon)
            self._set_lines(self.mean, self.factors * self.scale, self.shifts)

        yield once(combine)
        yield apply

    def _use_running(self) -> None:
        mean, variance = np.zeros((2, len(self.factors)))
        mean[: self.shape[0]], variance[: self.shape[0]] = self.running
        self._set_lines(mean, self.factors / np.sqrt(variance + self.epsilon), self.shifts)

    def backward(self, n: int) -> Iterator[Work]:
        slopes, values, lines = self.result_slopes, self.values, self.fixed_lines
        mean = lines[0]
        yield Work(
            lambda first, last: slope_sums(
                slopes.fixed, slopes.place, values.fixed, values.place, mean, self.sums, self.products_, first, last
            )
        )

        def combine() -> None:
            of_slopes, of_products = (part[:n].sum(axis=0, dtype=np.float64) for part in (self.sums, self.products_))
            self.shifts_gradient[:] = of_slopes
            self.factors_gradient[:] = of_products * self.scale
            factor = self.factors * self.scale
            of_value = -factor * self.scale**2 * of_products / self.count
            self._set_lines(self.mean, factor, of_value, -factor * of_slopes / self.count)

        yield once(combine)
        if self.slopes is not None:
            yield Work(
                lambda first, last: normalize_slopes(
                    slopes.flat, slopes.place, values.fixed, values.place, lines, first, last
                )
            )

    def moved_running(self) -> Array:
        """Return the running mean and variance after the batch, its variance without bias; one value has none."""
        channels = self.shape[0]
        moved = self.running.copy()
        mean, variance = moved
        mean += self.momentum * (self.mean[:channels] - mean)
        if self.count > 1:
            unbiased = self.variance[:channels] * (self.count / (self.count - 1))
            variance += self.momentum * (unbiased - variance)
        return moved
