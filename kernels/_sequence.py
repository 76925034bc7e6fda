"""Convolutional networks: layers in a row, each a pair of functions, forward and backward, on grids of images.

A layer says what is to be done for a batch, as a list of `Work`; a `_Plan` puts the works of all layers in a row,
forwards, the loss, and backwards. Works on images one by one, of layers that follow each other, are done together, a
few images at a time, which so stay in the second-level cache from layer to layer. Others are cut in parts: units of a
layer that sees all values, parts of a gradient. Threads share images and parts. Where a layer needs all images, which
is where a mean over the batch is made, and between images and parts they wait for each other.

Every number is made by one thread in one order, which does not depend on who makes it: same bits for any number of
threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _threads
from ._backprop import LOSS_ROWS, LOSSES, RULES
from ._conv import NUMBERS, collect, convolve, pass_back, turn
from ._grids import Grid, pitch_of
from ._image_layers import (
    STEP_ENTRIES,
    average_pool,
    average_pool_slopes,
    channel_spreads,
    channel_sums,
    copy_lines,
    drop_out,
    fetch,
    loss_slopes,
    max_pool,
    max_pool_slopes,
    normalize,
    normalize_slopes,
    relu,
    relu_slopes,
    slope_sums,
    take_step,
)
from ._jit import readonly
from ._stacks import aligned

__all__ = [
    "AveragePooling", "Convolution", "Dense", "Dropping", "Flattening", "Images", "Layer", "MaxPooling", "Network",
    "Normalization", "Rectifier", "SequenceTraining", "Weights", "differentiated", "scores_of_images", "worked",
]  # fmt: skip

Array = NDArray[Any]
Shape = tuple[int, int, int]

#: Columns of a part of a product, and rows of a part of a gradient, at most.
_COLUMNS, _GRADIENT_ROWS = 48, 512

#: Units that the slopes of a part are passed back to, and parameters whose step is a part.
_BACK, _STEP_PART = 256, 1 << 16

#: Bytes of images that are worked on together.
_GROUP_BYTES = 1 << 18

#: Bytes that the values of the images may take that are scored together; how many there are at least and at most.
_SCORED_BYTES, _LEAST_SCORED, _MOST_SCORED = 1 << 26, 8, 256

#: Seconds of a multiply-add and of an entry of a grid, and of a batch below which a second thread does not pay.
_PRODUCT, _ENTRY, _SERIAL_SECONDS = 1.2e-11, 1e-9, 1e-3


class Work(NamedTuple):
    """Something to do: ``call(first, last)`` on images (`parts` is None), on so many parts, or once (0 of them)."""

    call: Callable[[int, int], object]
    parts: int | None = None


def _once(call: Callable[[], object]) -> Work:
    return Work(lambda first, last: call(), 0)


def _table(**numbers: int) -> Array:
    """Return the table of a product."""
    return readonly(np.array([numbers.get(name, 0) for name in NUMBERS], np.int64))


def _cuts(width: int, most: int, unit: int) -> list[tuple[int, int]]:
    """Cut a width into parts of about the same size, multiples of `unit`."""
    parts = -(-width // most)
    edges = [-(-width * part // parts // unit) * unit for part in range(parts)]
    return list(zip(edges, [*edges[1:], width], strict=True))


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


def _part(flat: Array, place: tuple[int, tuple[int, ...]]) -> Array:
    begin, shape = place
    return flat[begin : begin + int(np.prod(shape))].reshape(shape)


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
                    _part(weights.running, place)[:] = given["running_mean"], given["running_var"]
                else:
                    layer.put(name, _part(weights.flat, place), given[name])
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
                    of_layer[name] = np.ascontiguousarray(layer.get(name, _part(flat, place)))
                elif running is not None:
                    mean, variance = _part(running, place)
                    of_layer |= {"running_mean": mean.copy(), "running_var": variance.copy()}
            result.append(of_layer)
        return result


# ---------------------------------------------------------------------------------------------- layers


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

    def attach(self, plan: _Plan, number: int) -> None:
        """Take a place in a plan, and make what is needed for its batches."""
        self.plan, self.number = plan, number
        self.values, self.result = plan.values[number], plan.values[number + 1]
        self.slopes, self.result_slopes = plan.slopes[number], plan.slopes[number + 1]

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

    def attach(self, plan: _Plan, number: int) -> None:
        super().attach(plan, number)
        places, parameters = plan.network.places.of_layers[number], readonly(plan.weights.flat)
        self.weights, self.biases = _part(parameters, places["weight"]), _part(parameters, places["bias"])
        self.flat_weights = self.weights.reshape(-1)
        if plan.training:
            self.weights_gradient = _part(plan.gradient, places["weight"]).reshape(-1)
            self.biases_gradient = _part(plan.gradient, places["bias"])
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

        yield _once(biases)


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

    def attach(self, plan: _Plan, number: int) -> None:
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

    def forward(self, n: int) -> Iterator[Work]:
        values, result, kernel, stride = self.values, self.result, self.kernel, self.stride
        units, inner = len(self.biases), kernel * values.pitch
        table = _table(
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
        yield _once(lambda: turn(self.by_place, self.turned, 0, kernel * kernel))
        result = given if spread is None else spread
        if spread is not None:
            places = given.fixed, given.place, spread.flat, spread.place
            yield Work(lambda first, last: copy_lines(*places, first, last))
        inner = kernel * result.pitch
        table = _table(
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
            _table(
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

    def attach(self, plan: _Plan, number: int) -> None:
        super().attach(plan, number)
        self.terms = self.values.image
        self.back = self.slopes
        if self.slopes is not None and not self.slopes.dense:
            self.back = Grid(plan.rows, self.input, plan.dtype)

    def forward(self, n: int) -> Iterator[Work]:
        units = len(self.biases)
        table = _table(
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
            _table(
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

    def attach(self, plan: _Plan, number: int) -> None:
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

    def attach(self, plan: _Plan, number: int) -> None:
        super().attach(plan, number)
        places, pitch = plan.network.places.of_layers[number], self.values.pitch
        self.factors, self.shifts = (_part(plan.weights.flat, places[name]) for name in ("weight", "bias"))
        self.running = _part(plan.weights.running, places["running"])
        self.lines = np.zeros((4, self.shape[2] * pitch), plan.dtype)
        self.fixed_lines = readonly(self.lines)
        if plan.training:
            self.factors_gradient, self.shifts_gradient = (
                _part(plan.gradient, places[name]) for name in ("weight", "bias")
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
            yield _once(self._use_running)
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

        yield _once(combine)
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

        yield _once(combine)
        if self.slopes is not None:
            yield Work(
                lambda first, last: normalize_slopes(
                    slopes.flat, slopes.place, values.fixed, values.place, lines, first, last
                )
            )

    def move_running(self) -> None:
        """Take the batch into the running mean and variance, the latter as an unbiased estimate."""
        channels = self.shape[0]
        unbiased = self.variance * (self.count / max(1, self.count - 1))
        for running, value in zip(self.running, (self.mean, unbiased), strict=True):
            running[:] += self.momentum * (value[:channels] - running)


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


class _Plan:
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
                works.append(Work(self._fetch))
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
    plan = _Plan(network, weights, 1, training=False, dropping=False)
    bytes_of_image = sum(grid.image for grid in {id(grid): grid for grid in plan.values}.values()) * scores.itemsize
    rows = min(n, _MOST_SCORED, max(_LEAST_SCORED, _SCORED_BYTES // max(1, bytes_of_image)))
    plan = _Plan(network, weights, rows, training=False, dropping=False)
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


def _plan_of_layer(layer: Layer, X: Array, parameters: dict[str, Array], *, back: bool) -> _Plan:
    network = Network([layer], X.dtype, exact=False)
    weights = network.pack([parameters])
    training = back or isinstance(layer, Normalization)
    plan = _Plan(network, weights, max(1, len(X)), training=training, dropping=False, to_input=back)
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
        self._plan: _Plan | None = None
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
            self._plan = _Plan(self.network, self.weights, batch_size, training=True, dropping=self._dropping)
            self._plan.images, self._plan.seed = self._images, self._seed
        plan, batches = self._plan, -(-order.size // batch_size)
        threads = _thread_count(self._n_threads, plan.seconds(batch_size))
        sizes, losses = np.broadcast_to(np.asarray(steps, np.float64), (batches,)), np.zeros(batches)
        for batch in range(batches):
            rows = order[batch * batch_size : (batch + 1) * batch_size]
            losses[batch] = self._differentiate(plan, rows, threads)
            self._take_step(plan, float(sizes[batch]), threads)
        return losses

    def loss_gradient(self, order: Array) -> tuple[float, list[dict[str, Array]]]:
        """Return the mean loss of some images, without penalty, and its gradient in the parameters of each layer."""
        plan = _Plan(self.network, self.weights, len(order), training=True, dropping=self._dropping)
        plan.images, plan.seed = self._images, self._seed
        loss = self._differentiate(plan, order, _thread_count(self._n_threads, plan.seconds(len(order))))
        return loss, self.network._public(plan.gradient, None)

    def _differentiate(self, plan: _Plan, rows: Array, threads: int) -> float:
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

    def _take_step(self, plan: _Plan, size: float, threads: int) -> None:
        """Take a step; once begun it is completed, whatever comes."""
        corrections = (1 - beta ** (self.n_steps + 1.0) for beta in self._betas)
        of_mean, of_square = (correction if correction > 0 else 1.0 for correction in corrections)
        step = readonly(np.array([size, size / of_mean, of_square**-0.5]).astype(plan.dtype))
        done = np.zeros(len(self._steps) + 1, np.uint8)
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

        try:
            _threads.run(move, len(self._steps), threads)
            self._complete(plan, done)
        except BaseException:
            for part in range(len(self._steps)):
                move(part)
            self._complete(plan, done)
            raise

    def _complete(self, plan: _Plan, done: Array) -> None:
        """Do what belongs to a step beside the parameters."""
        if done[-1]:
            return
        for layer in plan.layers:
            if isinstance(layer, Normalization):
                layer.move_running()
        self.n_steps += 1
        done[-1] = 1
