"""Layers of convolutional networks: what each does for a batch, forwards and backwards, as tasks on grids of images.

A `Layer` knows shapes and settings, and no numbers: these are in its `Buffers`. `docs/adding_a_layer.md` shows how to
write one; those that are products are in `product_layers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..runtime.jit import readonly
from ._grid_loops import (
    avg_pool,
    avg_pool_backward,
    channel_deviations,
    drop_out,
    grad_sums,
    max_pool,
    max_pool_backward,
    normalize,
    normalize_backward,
    relu,
    relu_backward,
)
from .buffers import Array, Buffers, Grid, pitch_of
from .tasks import Task

__all__ = ["AvgPool2D", "BatchNorm", "Dropout", "Flatten", "Layer", "MaxPool2D", "ReLU", "Shape"]

Shape = tuple[int, int, int]


class Layer:
    """What layers have in common; one that only says so changes nothing and has no parameters.

    In training `backward` may trust only the signs of its output: layers above may multiply it in place, as `Dropout`
    does, or set it to 0 where the gradient is 0 too. What else it must know of it `forward` keeps in `buffers.array`.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of what comes in.

    Attributes
    ----------
    input_shape, shape : tuple of int
        Of what comes in and goes out.
    border : int
        Zeros that the layer needs around its input.
    reads_numbers : bool
        Whether the input is read number by number, never as vectors: then nothing need follow the channels of a pixel.
    decays : tuple of str
        Parameters that a penalty is on.
    statistics : tuple of str
        Public names of what the layer remembers from batch to batch, (channels,) each.
    """

    border = 0
    reads_numbers = False
    decays: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()

    def __init__(self, input_shape: Shape) -> None:
        self.input_shape = self.shape = input_shape

    def in_place(self, training: bool) -> bool:
        """Whether the output lies where the input lay.

        In training that is for layers that keep signs: a ReLU looks at those of its output on the way back.
        """
        return False

    def grad_in_place(self) -> bool:
        """Whether the gradient in the input lies where that in the output lay."""
        return self.in_place(True)

    def grad_border(self) -> int:
        """Zeros that the way back through this layer needs around the gradient in its output."""
        return 0

    @property
    def n_products(self) -> int:
        """Multiply-adds of an image."""
        return 0

    @property
    def has_parameters(self) -> bool:
        """Whether training changes anything here."""
        return bool(self.public_shapes())

    def public_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters, as the user sees them."""
        return {}

    def stored_shapes(self, dtype: np.dtype[Any], pitch: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the parameters, as they lie in memory; `pitch`: entries of a pixel of the input."""
        return self.public_shapes()

    def initial_parameters(self, rng: np.random.Generator) -> dict[str, Array]:
        """Return parameters and statistics of a new network, in their public shapes."""
        return {}

    def pack(self, name: str, stored: Array, value: ArrayLike) -> None:
        """Store a parameter of public shape."""
        stored[...] = value

    def unpack(self, name: str, stored: Array) -> Array:
        """Return a view of a parameter in its public shape."""
        return stored

    def prepare(self, buffers: Buffers) -> Iterator[Task]:
        """Say what is to be done before a batch, of which it depends on the parameters only."""
        yield from ()

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Say what is to be done for n images, from input to output."""
        yield from ()

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Say what is to be done for the gradient in the input, where that is wanted."""
        yield from ()

    def gradient(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Say what is to be done for the gradient in the parameters, after the way back."""
        yield from ()

    def moved_statistics(self, buffers: Buffers, n: int) -> Array:
        """Return the statistics as they are to be after a step on a batch of n images."""
        return buffers.statistics


class ReLU(Layer):
    """max(z, 0)."""

    def in_place(self, training: bool) -> bool:
        """Say yes."""
        return True

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Replace what is negative by 0."""
        grid = buffers.output
        yield Task(lambda first, last: relu(grid.flat, grid.place, first, last))

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Replace the gradient by 0 where the output is."""
        values, grad = buffers.output, buffers.input_grad
        if grad is not None:
            yield Task(
                lambda first, last: relu_backward(values.readonly, values.place, grad.flat, grad.place, first, last)
            )


class Flatten(Layer):
    """Says that the pixels of an image are values of one row; nothing is done."""

    def in_place(self, training: bool) -> bool:
        """Say yes."""
        return True


class Dropout(Layer):
    """Sets values to 0 in training, which ones a hash says, and multiplies the others.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of what comes in.
    share : float
        Of the values that are set to 0.
    """

    def __init__(self, input_shape: Shape, share: float) -> None:
        super().__init__(input_shape)
        self.threshold = int(share * 2.0**63)

    def in_place(self, training: bool) -> bool:
        """Say yes."""
        return True

    def _drop(self, buffers: Buffers, grid: Grid) -> Task:
        threshold, batch, number = self.threshold, buffers.batch, buffers.number
        scale = buffers.dtype.type(1 / (1 - threshold * 2.0**-63))

        def call(first: int, last: int) -> None:
            drop_out(grid.flat, grid.place, threshold, scale, batch.seed, batch.number, number, first, last)

        return Task(call)

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Drop values."""
        if self.threshold and buffers.dropout:
            yield self._drop(buffers, buffers.output)

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Drop the gradient of the same values."""
        if self.threshold and buffers.dropout and buffers.input_grad is not None:
            yield self._drop(buffers, buffers.input_grad)


class _Pool(Layer):
    """A layer of windows.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of what comes in.
    size, stride : int
        Width of a window, at most 16; how far windows are apart.
    """

    def __init__(self, input_shape: Shape, size: int, stride: int) -> None:
        super().__init__(input_shape)
        self.size, self.stride = size, stride
        channels, height, width = input_shape
        self.shape = channels, (height - size) // stride + 1, (width - size) // stride + 1


class MaxPool2D(_Pool):
    """The largest value of each window; parameters as of `_Pool`."""

    def _index(self, buffers: Buffers) -> Array:
        """Return where the largest values are in their windows."""
        channels = buffers.input.images * self.shape[1] * self.shape[2] * buffers.input.pitch
        return buffers.array("index", (channels,), np.uint8)

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Take the largest values, and keep where they are."""
        x, out, window = buffers.input, buffers.output, (self._index(buffers), self.size, self.stride)
        yield Task(lambda first, last: max_pool(x.readonly, x.place, out.flat, out.place, *window, first, last))

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Add the gradient of each window to its largest value."""
        given, grad, index = buffers.output_grad, buffers.input_grad, readonly(self._index(buffers))
        if grad is not None:
            arguments = given.readonly, given.place, index, grad.flat, grad.place, self.size, self.stride
            yield Task(lambda first, last: max_pool_backward(*arguments, first, last))


class AvgPool2D(_Pool):
    """The mean of each window; parameters as of `_Pool`."""

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Take means."""
        x, out, window = buffers.input, buffers.output, (self.size, self.stride)
        yield Task(lambda first, last: avg_pool(x.readonly, x.place, out.flat, out.place, *window, first, last))

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Share the gradient of each window among its values."""
        given, grad = buffers.output_grad, buffers.input_grad
        if grad is not None:
            arguments = given.readonly, given.place, grad.flat, grad.place, self.size, self.stride
            yield Task(lambda first, last: avg_pool_backward(*arguments, first, last))


class _Workspace(NamedTuple):
    """What a batch normalisation needs from call to call.

    Attributes
    ----------
    lines : ndarray of shape (4, entries of a line)
        What the kernels are told of each channel, repeated for each pixel of a line.
    sums, products : ndarray of shape (images, channels)
        Two sums over the pixels of each image.
    mean, variance, scale : ndarray of shape (channels,), float64
        Of the batch, and what deviations are multiplied by.
    """

    lines: Array
    sums: Array
    products: Array
    mean: Array
    variance: Array
    scale: Array

    def set_lines(self, *of_channels: Array) -> None:
        """Repeat what belongs to the channels for each pixel of a line."""
        lines = self.lines.reshape(len(self.lines), -1, len(self.mean))
        for line, values in zip(lines, of_channels, strict=False):
            line[:] = values


class BatchNorm(Layer):
    """Batch normalisation of each channel.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of what comes in.
    momentum : float
        Share of a batch in the running mean and variance.
    epsilon : float
        Added to the variance.
    """

    statistics = "running_mean", "running_var"

    def __init__(self, input_shape: Shape, momentum: float, epsilon: float) -> None:
        super().__init__(input_shape)
        self.momentum, self.epsilon = momentum, epsilon

    def in_place(self, training: bool) -> bool:
        """Say whether the batch's own mean is not needed: on the way back the values before are."""
        return not training

    def grad_in_place(self) -> bool:
        """Say yes."""
        return True

    def public_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return a factor and a shift for each channel."""
        return {"weight": self.shape[:1], "bias": self.shape[:1]}

    def stored_shapes(self, dtype: np.dtype[Any], pitch: int) -> dict[str, tuple[int, ...]]:
        """Return the entries of a pixel."""
        entries = (pitch_of(self.shape[0], dtype),)
        return {"weight": entries, "bias": entries}

    def initial_parameters(self, rng: np.random.Generator) -> dict[str, Array]:
        """Return what changes nothing."""
        ones, zeros = np.ones(self.shape[0]), np.zeros(self.shape[0])
        return {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}

    def pack(self, name: str, stored: Array, value: ArrayLike) -> None:
        """Store factors or shifts."""
        stored[: self.shape[0]] = value

    def unpack(self, name: str, stored: Array) -> Array:
        """Return factors or shifts."""
        return stored[: self.shape[0]]

    def _workspace(self, buffers: Buffers) -> _Workspace:
        grid, dtype = buffers.input, buffers.dtype
        kept: _Workspace = buffers.keep(
            "workspace",
            lambda: _Workspace(
                np.zeros((4, self.shape[2] * grid.pitch), dtype), *np.zeros((2, grid.images, grid.pitch), dtype),
                *np.zeros((3, grid.pitch)),
            ),
        )  # fmt: skip
        return kept

    def _count(self, n: int) -> int:
        """Return the pixels of n images."""
        return n * self.shape[1] * self.shape[2]

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Normalise by mean and variance of the batch, or by the running ones."""
        x, out, work = buffers.input, buffers.output, self._workspace(buffers)
        lines = readonly(work.lines)
        apply = Task(lambda first, last: normalize(x.readonly, x.place, lines, out.flat, out.place, first, last))
        if not buffers.training:
            yield Task.whole_batch(lambda: self._use_running(buffers, work))
            yield apply
            return
        means, deviations = work.sums, work.products
        yield Task(lambda first, last: channel_deviations(x.readonly, x.place, means, deviations, first, last))
        yield Task.whole_batch(lambda: self._use_batch(buffers, work, n))
        yield apply

    def _use_running(self, buffers: Buffers, work: _Workspace) -> None:
        factors, shifts = buffers.parameters["weight"], buffers.parameters["bias"]
        mean, variance = np.zeros((2, len(factors)))
        mean[: self.shape[0]], variance[: self.shape[0]] = buffers.statistics
        work.set_lines(mean, factors / np.sqrt(variance + self.epsilon), shifts)

    def _use_batch(self, buffers: Buffers, work: _Workspace, n: int) -> None:
        """Join the means and sums of squared deviations of the images."""
        means = work.sums[:n].astype(np.float64)
        work.mean[:] = means.mean(axis=0)
        between = np.square(means - work.mean).sum(axis=0)
        deviations = work.products[:n].sum(axis=0, dtype=np.float64) + self.shape[1] * self.shape[2] * between
        work.variance[:] = deviations / self._count(n)
        work.scale[:] = 1 / np.sqrt(work.variance + self.epsilon)
        work.set_lines(work.mean, buffers.parameters["weight"] * work.scale, buffers.parameters["bias"])

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Make the gradient: mean and variance of the batch depend on all values too."""
        grad, x, work = buffers.output_grad, buffers.input, self._workspace(buffers)
        lines, sums, products = readonly(work.lines), work.sums, work.products
        places, mean = (grad.readonly, grad.place, x.readonly, x.place), lines[0]
        yield Task(lambda first, last: grad_sums(*places, mean, sums, products, first, last))
        yield Task.whole_batch(lambda: self._join_grad(buffers, work, n))
        if buffers.input_grad is not None:
            yield Task(
                lambda first, last: normalize_backward(grad.flat, grad.place, x.readonly, x.place, lines, first, last)
            )

    def _join_grad(self, buffers: Buffers, work: _Workspace, n: int) -> None:
        """Make the gradient in factors and shifts, and say what that in the values is."""
        of_grad, of_products = (part[:n].sum(axis=0, dtype=np.float64) for part in (work.sums, work.products))
        buffers.gradient["bias"][:] = of_grad
        buffers.gradient["weight"][:] = of_products * work.scale
        factor, count = buffers.parameters["weight"] * work.scale, self._count(n)
        of_value = -factor * work.scale**2 * of_products / count
        work.set_lines(work.mean, factor, of_value, -factor * of_grad / count)

    def moved_statistics(self, buffers: Buffers, n: int) -> Array:
        """Return the running mean and variance after the batch, its variance without bias; one value has none."""
        channels, count, work = self.shape[0], self._count(n), self._workspace(buffers)
        moved: Array = buffers.statistics.copy()
        mean, variance = moved
        mean += self.momentum * (work.mean[:channels] - mean)
        if count > 1:
            unbiased = work.variance[:channels] * (count / (count - 1))
            variance += self.momentum * (unbiased - variance)
        return moved
