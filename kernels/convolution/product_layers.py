"""Layers that are products: convolution and fully connected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..runtime.jit import readonly
from ..runtime.memory import aligned
from ._grid import Grid, pitch_of
from ._grid_loops import channel_sums, copy_lines
from ._products import NUMBERS, collect, convolve, pass_back, turn
from .layers import Array, Layer, Shape, Work, once, part_of

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["Convolution", "Dense", "table_of"]

#: Columns of a part of a product, and rows of a part of a gradient, at most.
_COLUMNS, _GRADIENT_ROWS = 48, 512

#: Units that the slopes of a part are passed back to.
_BACK = 256


def table_of(**numbers: int) -> Array:
    """Return the table of a product."""
    return readonly(np.array([numbers.get(name, 0) for name in NUMBERS], np.int64))


def _cuts(width: int, most: int, unit: int) -> list[tuple[int, int]]:
    """Cut a width into parts of about the same size, multiples of `unit`."""
    parts = -(-width // most)
    edges = [-(-width * part // parts // unit) * unit for part in range(parts)]
    return list(zip(edges, [*edges[1:], width], strict=True))


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
