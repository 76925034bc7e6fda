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

from ._conv import NUMBERS, collect, convolve, pass_back, turn
from ._grids import Grid, pitch_of
from ._image_layers import (
    average_pool,
    average_pool_slopes,
    channel_spreads,
    channel_sums,
    copy_lines,
    drop_out,
    max_pool,
    max_pool_slopes,
    normalize,
    normalize_slopes,
    relu,
    relu_slopes,
    slope_sums,
)
from ._jit import readonly
from ._stacks import aligned

if TYPE_CHECKING:
    from ._sequence import Plan

__all__ = [
    "AveragePooling", "Convolution", "Dense", "Dropping", "Flattening", "Layer", "MaxPooling", "Normalization",
    "Rectifier", "Work", "once", "part_of", "table_of",
]  # fmt: skip

Array = NDArray[Any]
Shape = tuple[int, int, int]

#: Columns of a part of a product, and rows of a part of a gradient, at most.
_COLUMNS, _GRADIENT_ROWS = 48, 512

#: Units that the slopes of a part are passed back to.
_BACK = 256


class Work(NamedTuple):
    """Something to do: ``call(first, last)`` on images (`parts` is None), on so many parts, or once (0 of them)."""

    call: Callable[[int, int], object]
    parts: int | None = None


def once(call: Callable[[], object]) -> Work:
    """Return what is done once."""
    return Work(lambda first, last: call(), 0)


def table_of(**numbers: int) -> Array:
    """Return the table of a product."""
    return readonly(np.array([numbers.get(name, 0) for name in NUMBERS], np.int64))


def part_of(flat: Array, place: tuple[int, tuple[int, ...]]) -> Array:
    """Return a parameter as a view of all."""
    begin, shape = place
    return flat[begin : begin + int(np.prod(shape))].reshape(shape)


def _cuts(width: int, most: int, unit: int) -> list[tuple[int, int]]:
    """Cut a width into parts of about the same size, multiples of `unit`."""
    parts = -(-width // most)
    edges = [-(-width * part // parts // unit) * unit for part in range(parts)]
    return list(zip(edges, [*edges[1:], width], strict=True))


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


class _Product(Layer):
    """A layer with weights: a matrix of terms and units, and intercepts."""

    has_parameters = True

    def _window(self) -> tuple[int, int]:
        raise NotImplementedError

    def _pitch(self, dtype: np.dtype[Any]) -> int:
        return self.input[0] if self.exact else pitch_of(self.input[0], dtype)

    def parameters(self, dtype: np.dtype[Any]) -> dict[str, tuple[int, ...]]:
        units = pitch_of(self.shape[0], dtype)
        return {"weight": (*self._window(), self._pitch(dtype), units), "bias": (units,)}

    def public_shape(self) -> tuple[int, ...]:
        """Return the public shape of the weights."""
        raise NotImplementedError

    def put(self, name: str, part: Array, value: ArrayLike) -> None:
        if name == "bias":
            part[: self.shape[0]] = value
        else:
            whole = np.reshape(value, (self.shape[0], self.input[0], *self._window()))
            part[:, :, : self.input[0], : self.shape[0]] = whole.transpose(2, 3, 1, 0)

    def get(self, name: str, part: Array) -> Array:
        if name == "bias":
            return part[: self.shape[0]]
        whole = part[:, :, : self.input[0], : self.shape[0]].transpose(3, 2, 0, 1)
        return whole.reshape(self.public_shape())

    def attach(self, plan: Plan, number: int) -> None:
        super().attach(plan, number)
        places, parameters = plan.network.places.of_layers[number], readonly(plan.weights.flat)
        self.weights, self.biases = part_of(parameters, places["weight"]), part_of(parameters, places["bias"])
        self.flat_weights = self.weights.reshape(-1)
        if plan.training:
            self.weights_gradient = part_of(plan.gradient, places["weight"]).reshape(-1)
            self.biases_gradient = part_of(plan.gradient, places["bias"])
            self.sums = np.zeros((plan.rows, len(self.biases)), plan.dtype)

    def _add_slopes(self, first: int, last: int) -> None:
        channel_sums(self.result_slopes.fixed, self.result_slopes.place, self.sums, first, last)

    def _collect(self, n: int, tables: list[Array]) -> Iterator[Work]:
        """Make the gradient: the parts that `tables` say, by columns."""
        parts = [(table, *cut) for table in tables for cut in _cuts(len(self.biases), _COLUMNS, self.plan.unit)]
        left, right = self.values.fixed, self.result_slopes.fixed
        images = n if tables[0][NUMBERS.index("left_image")] else 1

        def make(first: int, last: int) -> None:
            for table, begin, end in parts[first:last]:
                collect(left, right, self.weights_gradient, table, images, begin, end)

        yield Work(make, len(parts))

        def biases() -> None:
            self.biases_gradient[:] = self.sums[:n].sum(axis=0, dtype=np.float64)

        yield once(biases)


class Convolution(_Product):
    """Each pixel of the output is a product of weights with what lies around a pixel of the input.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of what comes in.
    channels, kernel, stride, padding : int
        Channels that go out; width of the kernel; how far the places are apart that it is put to; zeros around the
        image, fewer than `kernel`.
    """

    def __init__(self, shape: Shape, channels: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(shape)
        self.kernel, self.stride, self.border = kernel, stride, padding
        height, width = ((size + 2 * padding - kernel) // stride + 1 for size in shape[1:])
        self.shape = channels, height, width

    def _window(self) -> tuple[int, int]:
        return self.kernel, self.kernel

    def public_shape(self) -> tuple[int, ...]:
        return self.shape[0], self.input[0], self.kernel, self.kernel

    def products(self) -> int:
        return int(np.prod(self.public_shape())) * self.shape[1] * self.shape[2]

    def slopes_border(self) -> int:
        return self.kernel - 1 - self.border if self.stride == 1 else 0

    def attach(self, plan: Plan, number: int) -> None:
        super().attach(plan, number)
        self.spread: Grid | None = None
        if self.slopes is not None:
            units = len(self.biases)
            places, pitch = self.kernel * self.kernel, self.slopes.pitch
            self.by_place = self.weights.reshape(places, pitch, units)
            self.turned = aligned((places, units, pitch), plan.dtype)
            self.none = readonly(np.zeros(pitch, plan.dtype))
            if self.stride > 1:
                more = self.kernel - 1
                self.spread = Grid(
                    plan.rows, self.shape, plan.dtype, border=more - self.border, apart=self.stride,
                    size=(self.input[1] + more, self.input[2] + more),
                )  # fmt: skip

    def begin(self) -> Iterator[Work]:
        if self.slopes is not None:
            yield Work(lambda first, last: turn(self.by_place, self.turned, first, last), self.kernel**2)

    def forward(self, n: int) -> Iterator[Work]:
        values, result, kernel, stride = self.values, self.result, self.kernel, self.stride
        units, inner = len(self.biases), kernel * values.pitch
        table = table_of(
            groups=self.shape[1], count=self.shape[2], outer=kernel, inner=inner, left_group=stride * values.line,
            left_step=stride * values.pitch, left_outer=values.line, right_outer=inner * units, right_inner=units,
            result_group=result.line, result_row=result.pitch, left_image=values.image, result=result.begin,
            result_image=result.image,
        )  # fmt: skip
        arguments = values.fixed, self.flat_weights, self.biases, result.flat, table
        yield Work(lambda first, last: convolve(*arguments, first, last, 0, units))

    def backward(self, n: int) -> Iterator[Work]:
        yield Work(self._add_slopes)
        if self.slopes is None:
            return
        slopes, given, spread, kernel = self.slopes, self.result_slopes, self.spread, self.kernel
        result = given if spread is None else spread
        if spread is not None:
            places = given.fixed, given.place, spread.flat, spread.place
            yield Work(lambda first, last: copy_lines(*places, first, last))
        inner = kernel * result.pitch
        table = table_of(
            groups=self.input[1], count=self.input[2], outer=kernel, inner=inner, left_group=result.line,
            left_step=result.pitch, left_outer=result.line, right_outer=inner * slopes.pitch, right_inner=slopes.pitch,
            result_group=slopes.line, result_row=slopes.pitch, left_image=result.image, result=slopes.begin,
            result_image=slopes.image,
        )  # fmt: skip
        arguments = result.fixed, readonly(self.turned.reshape(-1)), self.none, slopes.flat, table
        yield Work(lambda first, last: convolve(*arguments, first, last, 0, slopes.pitch))

    def gradient(self, n: int) -> Iterator[Work]:
        values, slopes, stride, units = self.values, self.result_slopes, self.stride, len(self.biases)
        count = self.kernel * values.pitch
        lines = 1 if count >= _COLUMNS else self.kernel  # lines of the kernel in a part
        tables = [
            table_of(
                groups=lines, count=count, outer=self.shape[1], inner=self.shape[2], left_group=values.line,
                left_step=stride * values.pitch, left_outer=stride * values.line, right_outer=slopes.line,
                right_inner=slopes.pitch, added_group=count * units, added_row=units, result_group=count * units,
                result_row=units, left=line * values.line, left_image=values.image, right=slopes.begin,
                right_image=slopes.image, result=line * count * units,
            )
            for line in range(0, self.kernel, lines)
        ]  # fmt: skip
        yield from self._collect(n, tables)


class Dense(_Product):
    """Each unit sees all values.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of what comes in.
    units : int
        Values that go out.
    """

    def __init__(self, shape: Shape, units: int) -> None:
        super().__init__(shape)
        self.shape = units, 1, 1

    def _window(self) -> tuple[int, int]:
        return self.input[1], self.input[2]

    def public_shape(self) -> tuple[int, ...]:
        return self.shape[0], int(np.prod(self.input))

    def products(self) -> int:
        return self.shape[0] * int(np.prod(self.input))

    def attach(self, plan: Plan, number: int) -> None:
        super().attach(plan, number)
        self.terms = self.values.image
        self.back = self.slopes
        if self.slopes is not None and not self.slopes.dense:
            self.back = Grid(plan.rows, self.input, plan.dtype)

    def forward(self, n: int) -> Iterator[Work]:
        units = len(self.biases)
        table = table_of(
            groups=1, count=n, outer=1, inner=self.terms, left_step=self.values.image, right_inner=units,
            result_row=self.result.image, result=self.result.begin,
        )  # fmt: skip
        arguments = self.values.fixed, self.flat_weights, self.biases, self.result.flat, table
        parts = _cuts(units, _COLUMNS, self.plan.unit)

        def make(first: int, last: int) -> None:
            for begin, end in parts[first:last]:
                convolve(*arguments, 0, 1, begin, end)

        yield Work(make, len(parts))

    def backward(self, n: int) -> Iterator[Work]:
        yield Work(self._add_slopes)
        slopes, back = self.slopes, self.back
        if slopes is None or back is None:
            return
        rows, weights = readonly(self.result_slopes.matrix()), self.weights.reshape(self.terms, -1)
        result, parts = back.matrix(), _cuts(self.terms, _BACK, self.plan.unit)

        def make(first: int, last: int) -> None:
            pass_back(rows, n, weights, parts[first][0], parts[last - 1][1], result)

        yield Work(make, len(parts))
        if back is not slopes:
            yield Work(lambda first, last: copy_lines(back.fixed, back.place, slopes.flat, slopes.place, first, last))

    def gradient(self, n: int) -> Iterator[Work]:
        units = len(self.biases)
        tables = [
            table_of(
                groups=1, count=end - begin, outer=1, inner=n, left_step=self.values.image, right_outer=0,
                right_inner=self.result_slopes.image, added_row=units, result_row=units, left=begin,
                right=self.result_slopes.begin, result=begin * units,
            )
            for begin, end in _cuts(self.terms, _GRADIENT_ROWS, self.plan.unit)
        ]  # fmt: skip
        yield from self._collect(n, tables)


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
