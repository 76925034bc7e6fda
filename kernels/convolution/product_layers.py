"""Layers that are products: convolution and fully connected.

Both are one product of matrices (`_products`), whose factors a `ProductTable` finds in the grids.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..runtime.jit import readonly
from ._grid_loops import channel_sums, copy_lines
from ._products import ProductTable, convolve, input_gradient, transpose_kernels, weight_gradient
from .buffers import Array, Buffers, Grid, pitch_of
from .layers import Layer, Shape
from .tasks import Task

__all__ = ["Conv2D", "Linear"]

#: Columns of a part of a product, and rows of a part of a gradient, at most.
_COLUMNS, _GRADIENT_ROWS = 48, 512

#: Terms whose part of the gradient in the input is made together.
_INPUT_TERMS = 256


def _cuts(width: int, most: int, dtype: np.dtype[Any]) -> list[tuple[int, int]]:
    """Cut a width into parts of about the same size, multiples of a vector of the widest target."""
    parts, unit = -(-width // most), pitch_of(1, dtype)
    edges = [-(-width * part // parts // unit) * unit for part in range(parts)]
    return list(zip(edges, [*edges[1:], width], strict=True))


class _Product(Layer, ABC):
    """A layer with weights: a matrix of terms and units, and intercepts."""

    reads_numbers = True
    decays = ("weight",)

    @abstractmethod
    def _window(self) -> tuple[int, int]:
        """Return lines and columns of pixels that a unit sees."""

    def stored_shapes(self, dtype: np.dtype[Any], pitch: int) -> dict[str, tuple[int, ...]]:
        """Return a row of units for each term; terms are in the order in which they lie in an image."""
        units = pitch_of(self.shape[0], dtype)
        return {"weight": (*self._window(), pitch, units), "bias": (units,)}

    def initial_parameters(self, rng: np.random.Generator) -> dict[str, Array]:
        """Return weights in ±1/sqrt(terms), the rule that X. Glorot and Y. Bengio (2010) begin with, and no bias."""
        shape = self.public_shapes()["weight"]
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        return {"weight": rng.uniform(-bound, bound, shape), "bias": np.zeros(shape[0])}

    def pack(self, name: str, stored: Array, value: ArrayLike) -> None:
        """Store weights, with the units last, or intercepts."""
        if name == "bias":
            stored[: self.shape[0]] = value
        else:
            whole = np.reshape(value, (self.shape[0], self.input_shape[0], *self._window()))
            stored[:, :, : self.input_shape[0], : self.shape[0]] = whole.transpose(2, 3, 1, 0)

    def unpack(self, name: str, stored: Array) -> Array:
        """Return weights, with the units first, or intercepts."""
        if name == "bias":
            return stored[: self.shape[0]]
        whole = stored[:, :, : self.input_shape[0], : self.shape[0]].transpose(3, 2, 0, 1)
        return whole.reshape(self.public_shapes()["weight"])

    def _sums(self, buffers: Buffers) -> Array:
        """Return the sums over the pixels of each image of the gradient in the output."""
        return buffers.array("sums", (buffers.output.images, buffers.output.pitch))

    def _sum_grad(self, buffers: Buffers) -> Task:
        """Add up the gradient in the output: that in the intercepts."""
        grad, sums = buffers.output_grad, self._sums(buffers)
        return Task(lambda first, last: channel_sums(grad.readonly, grad.place, sums, first, last))

    def _gradient(self, buffers: Buffers, n: int, tables: list[ProductTable]) -> Iterator[Task]:
        """Make the gradient in the parameters: the parts that `tables` say, by columns."""
        cuts = _cuts(buffers.output.pitch, _COLUMNS, buffers.dtype)
        parts = [(table, *cut) for table in [each.as_array() for each in tables] for cut in cuts]
        left, right = buffers.input.readonly, buffers.output_grad.readonly
        result = buffers.gradient["weight"].reshape(-1)
        images = n if tables[0].left_image else 1

        def weights(first: int, last: int) -> None:
            for table, begin, end in parts[first:last]:
                weight_gradient(left, right, result, table, images, begin, end)

        yield Task(weights, len(parts))
        sums, bias = self._sums(buffers), buffers.gradient["bias"]

        def biases() -> None:
            bias[:] = sums[:n].sum(axis=0, dtype=np.float64)

        yield Task.whole_batch(biases)


class Conv2D(_Product):
    """Each pixel of the output is a product of weights with what lies around a pixel of the input.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of what comes in.
    channels, kernel, stride, padding : int
        Channels that go out; width of the kernel; how far the places are apart that it is put to; zeros around the
        image, fewer than `kernel`.
    """

    def __init__(self, input_shape: Shape, channels: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(input_shape)
        self.kernel, self.stride, self.border = kernel, stride, padding
        height, width = ((size + 2 * padding - kernel) // stride + 1 for size in input_shape[1:])
        self.shape = channels, height, width

    def _window(self) -> tuple[int, int]:
        return self.kernel, self.kernel

    def public_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return (channels, channels in, height, width) of the kernels, and an intercept for each."""
        return {"weight": (self.shape[0], self.input_shape[0], *self._window()), "bias": self.shape[:1]}

    @property
    def n_products(self) -> int:
        """Multiply-adds of an image."""
        return math.prod(self.public_shapes()["weight"]) * self.shape[1] * self.shape[2]

    def grad_border(self) -> int:
        """Zeros around the gradient, which is convolved with the kernels turned round."""
        return self.kernel - 1 - self.border if self.stride == 1 else 0

    def _transposed(self, buffers: Buffers) -> Array:
        """Return the kernels turned round, with channels in and out swapped."""
        shape = self.kernel**2, buffers.output.pitch, buffers.input.pitch
        return buffers.array("transposed", shape)

    def prepare(self, buffers: Buffers) -> Iterator[Task]:
        """Turn the kernels round, for the way back."""
        if buffers.input_grad is not None:
            weights, transposed = buffers.parameters["weight"], self._transposed(buffers)
            by_place = weights.reshape(self.kernel**2, *weights.shape[2:])
            yield Task(lambda first, last: transpose_kernels(by_place, transposed, first, last), self.kernel**2)

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Make each line of the output of `kernel` lines of the input."""
        x, out, kernel, stride = buffers.input, buffers.output, self.kernel, self.stride
        units, inner = out.pitch, kernel * x.pitch
        table = ProductTable(
            groups=self.shape[1], rows=self.shape[2], outer=kernel, inner=inner, left_group=stride * x.line,
            left_step=stride * x.pitch, left_outer=x.line, right_outer=inner * units, right_inner=units,
            result_group=out.line, result_row=out.pitch, left_image=x.image, result=out.begin, result_image=out.image,
        )  # fmt: skip
        weights, biases = buffers.parameters["weight"].reshape(-1), buffers.parameters["bias"]
        arguments = x.readonly, weights, biases, out.flat, table.as_array()
        yield Task(lambda first, last: convolve(*arguments, first, last, 0, units))

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Convolve the gradient in the output, where there is a stride with zeros between its pixels."""
        yield self._sum_grad(buffers)
        given, grad, kernel = buffers.output_grad, buffers.input_grad, self.kernel
        if grad is None:
            return
        if self.stride > 1:
            dilated = self._dilated(buffers)
            places = given.readonly, given.place, dilated.flat, dilated.place
            yield Task(lambda first, last: copy_lines(*places, first, last))
            given = dilated
        inner, zeros = kernel * given.pitch, readonly(np.zeros(grad.pitch, buffers.dtype))
        table = ProductTable(
            groups=self.input_shape[1], rows=self.input_shape[2], outer=kernel, inner=inner, left_group=given.line,
            left_step=given.pitch, left_outer=given.line, right_outer=inner * grad.pitch, right_inner=grad.pitch,
            result_group=grad.line, result_row=grad.pitch, left_image=given.image, result=grad.begin,
            result_image=grad.image,
        )  # fmt: skip
        weights = readonly(self._transposed(buffers).reshape(-1))
        arguments = given.readonly, weights, zeros, grad.flat, table.as_array()
        yield Task(lambda first, last: convolve(*arguments, first, last, 0, grad.pitch))

    def _dilated(self, buffers: Buffers) -> Grid:
        """Return a grid for the gradient in the output with `stride` - 1 zeros between its pixels."""
        more = self.kernel - 1
        height, width = self.input_shape[1] + more, self.input_shape[2] + more
        images, dtype, border = buffers.input.images, buffers.dtype, more - self.border
        grid: Grid = buffers.keep(
            "dilated",
            lambda: Grid(images, self.shape, dtype, border=border, dilation=self.stride, size=(height, width)),
        )
        return grid

    def gradient(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Multiply what the kernels met in the input with the gradient in the output."""
        x, grad, stride, units = buffers.input, buffers.output_grad, self.stride, buffers.output.pitch
        rows = self.kernel * x.pitch
        lines = 1 if rows >= _COLUMNS else self.kernel  # lines of the kernel in a part
        tables = [
            ProductTable(
                groups=lines, rows=rows, outer=self.shape[1], inner=self.shape[2], left_group=x.line,
                left_step=stride * x.pitch, left_outer=stride * x.line, right_outer=grad.line, right_inner=grad.pitch,
                added_group=rows * units, added_row=units, result_group=rows * units, result_row=units,
                added=line * rows * units, left=line * x.line, left_image=x.image, right=grad.begin,
                right_image=grad.image, result=line * rows * units,
            )
            for line in range(0, self.kernel, lines)
        ]  # fmt: skip
        yield from self._gradient(buffers, n, tables)


class Linear(_Product):
    """Each unit sees all values.

    Parameters
    ----------
    input_shape : tuple of int
        Channels, height and width of what comes in.
    units : int
        Values that go out.
    """

    def __init__(self, input_shape: Shape, units: int) -> None:
        super().__init__(input_shape)
        self.shape = units, 1, 1

    def _window(self) -> tuple[int, int]:
        return self.input_shape[1], self.input_shape[2]

    def public_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return (units, values), values in the order channel, line, pixel, and an intercept for each unit."""
        return {"weight": (self.shape[0], math.prod(self.input_shape)), "bias": self.shape[:1]}

    @property
    def n_products(self) -> int:
        """Multiply-adds of an image."""
        return self.shape[0] * math.prod(self.input_shape)

    def forward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Multiply the values of all images with the weights, some units at a time."""
        x, out, units = buffers.input, buffers.output, buffers.output.pitch
        table = ProductTable(
            groups=1, rows=n, outer=1, inner=x.image, left_step=x.image, right_inner=units, result_row=out.image,
            result=out.begin,
        )  # fmt: skip
        weights, biases = buffers.parameters["weight"].reshape(-1), buffers.parameters["bias"]
        arguments = x.readonly, weights, biases, out.flat, table.as_array()
        parts = _cuts(units, _COLUMNS, buffers.dtype)

        def make(first: int, last: int) -> None:
            for begin, end in parts[first:last]:
                convolve(*arguments, 0, 1, begin, end)

        yield Task(make, len(parts))

    def backward(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Multiply the gradient in the output with the weights, some values of the input at a time."""
        yield self._sum_grad(buffers)
        grad = buffers.input_grad
        if grad is None:
            return
        images, shape, dtype = buffers.input.images, self.input_shape, buffers.dtype
        result = grad if grad.contiguous else buffers.keep("contiguous", lambda: Grid(images, shape, dtype))
        terms, given, rows = buffers.input.image, readonly(buffers.output_grad.matrix()), result.matrix()
        weights, parts = buffers.parameters["weight"].reshape(terms, -1), _cuts(terms, _INPUT_TERMS, dtype)

        def make(first: int, last: int) -> None:
            input_gradient(given, n, weights, parts[first][0], parts[last - 1][1], rows)

        yield Task(make, len(parts))
        if result is not grad:
            yield Task(
                lambda first, last: copy_lines(result.readonly, result.place, grad.flat, grad.place, first, last)
            )

    def gradient(self, buffers: Buffers, n: int) -> Iterator[Task]:
        """Multiply the values with the gradient in the output."""
        x, grad, units = buffers.input, buffers.output_grad, buffers.output.pitch
        tables = [
            ProductTable(
                groups=1, rows=end - begin, outer=1, inner=n, left_step=x.image, right_inner=grad.image,
                added_row=units, result_row=units, added=begin * units, left=begin, right=grad.begin,
                result=begin * units,
            )
            for begin, end in _cuts(x.image, _GRADIENT_ROWS, buffers.dtype)
        ]  # fmt: skip
        yield from self._gradient(buffers, n, tables)
