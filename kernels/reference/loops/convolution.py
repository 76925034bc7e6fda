"""Images: convolutions, pools and batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...arguments.arrays import Array
from ...convolution import arguments
from ._common import quiet

__all__ = [
    "avg_pool2d",
    "avg_pool2d_gradient",
    "batch_norm",
    "batch_norm_gradient",
    "conv2d",
    "conv2d_gradient",
    "max_pool2d",
    "max_pool2d_gradient",
]


def _terms(a: arguments.ConvolutionArguments) -> Iterator[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]:
    """Yield for each product of a convolution (channel out, y, x, dy) and (channel in, row, column, dx)."""
    channels, channels_in, size, _ = a.W.shape
    height, width = _places(a.X.shape, size, a.stride, a.padding)
    for o, c, dy, dx in product(range(channels), range(channels_in), range(size), range(size)):
        for y, x in product(range(height), range(width)):
            row, column = y * a.stride + dy - a.padding, x * a.stride + dx - a.padding
            if 0 <= row < a.X.shape[2] and 0 <= column < a.X.shape[3]:
                yield (o, y, x, dy), (c, row, column, dx)


def _places(shape: tuple[int, ...], size: int, stride: int, padding: int = 0) -> tuple[int, int]:
    """Return how many places a window has, down and to the right."""
    height, width = ((length + 2 * padding - size) // stride + 1 for length in shape[2:])
    return height, width


def _nested(*shape: int) -> Any:
    """Return nested lists of 0."""
    return [_nested(*shape[1:]) for _ in range(shape[0])] if len(shape) > 1 else [0.0] * shape[0]


def _images(values: list[Any], shape: tuple[int, ...], dtype: Any) -> Array:
    return np.array(values, np.float64).reshape(shape).astype(dtype)


@quiet
def conv2d(X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, stride: int = 1, padding: int = 0) -> Array:
    """Sum over the pixels that the kernel lies on, and all channels; see `kernels.conv2d`."""
    a = arguments.convolution(X, W, b, stride, padding)
    shape = (len(a.X), len(a.W), *_places(a.X.shape, a.W.shape[2], a.stride, a.padding))
    weights, shifts, terms, result = a.W.tolist(), a.b.tolist(), list(_terms(a)), []
    for image in a.X.tolist():
        z = [[[shift] * shape[3] for _ in range(shape[2])] for shift in shifts]
        for (o, y, x, dy), (c, row, column, dx) in terms:
            z[o][y][x] += weights[o][c][dy][dx] * image[c][row][column]
        result.append(z)
    return _images(result, shape, a.X.dtype)


@quiet
def conv2d_gradient(
    dZ: ArrayLike, X: ArrayLike, W: ArrayLike, *, stride: int = 1, padding: int = 0
) -> tuple[Array, Array, Array]:
    """Gradient in X, W and b: each product of `conv2d` is a term of two of them; see `kernels.conv2d_gradient`."""
    a = arguments.convolution(X, W, None, stride, padding)
    shape = (len(a.X), len(a.W), *_places(a.X.shape, a.W.shape[2], a.stride, a.padding))
    weights, terms = a.W.tolist(), list(_terms(a))
    dX, dW, db = [], _nested(*a.W.shape), [0.0] * len(a.W)
    grads = arguments.output_gradient(dZ, shape, a.X.dtype).tolist()
    for image, of_image in zip(a.X.tolist(), grads, strict=True):
        dx_image = _nested(*a.X.shape[1:])
        for (o, y, x, dy), (c, row, column, dx) in terms:
            d = of_image[o][y][x]
            dx_image[c][row][column] += weights[o][c][dy][dx] * d
            dW[o][c][dy][dx] += image[c][row][column] * d
        for o, lines in enumerate(of_image):
            db[o] += sum(map(sum, lines))
        dX.append(dx_image)
    dtype = a.X.dtype
    return _images(dX, a.X.shape, dtype), _images(dW, a.W.shape, dtype), np.array(db, np.float64).astype(dtype)


def _windows(a: arguments.PoolingArguments) -> Iterator[tuple[int, int, int, list[tuple[int, int]]]]:
    """Yield channel and place of each window, and the pixels in it."""
    height, width = _places(a.X.shape, a.size, a.stride)
    for c, y, x in product(range(a.X.shape[1]), range(height), range(width)):
        yield c, y, x, [(y * a.stride + dy, x * a.stride + dx) for dy in range(a.size) for dx in range(a.size)]


def _first_largest(values: list[float]) -> int:
    """Return the place of the first NaN, else of the first of the largest."""
    for place, value in enumerate(values):
        if value != value:
            return place
    return values.index(max(values))


def _pool(a: arguments.PoolingArguments, of_window: Callable[[list[float]], float]) -> Array:
    shape = (*a.X.shape[:2], *_places(a.X.shape, a.size, a.stride))
    windows, result = list(_windows(a)), []
    for image in a.X.tolist():
        result.append([of_window([image[c][row][column] for row, column in pixels]) for c, _, _, pixels in windows])
    return _images(result, shape, a.X.dtype)


def _pool_gradient(
    dZ: ArrayLike, a: arguments.PoolingArguments, shares: Callable[[list[float]], list[float | None]]
) -> Array:
    shape = (*a.X.shape[:2], *_places(a.X.shape, a.size, a.stride))
    windows, result = list(_windows(a)), []
    grads = arguments.output_gradient(dZ, shape, a.X.dtype).tolist()
    for image, of_image in zip(a.X.tolist(), grads, strict=True):
        dx_image = _nested(*a.X.shape[1:])
        for c, y, x, pixels in windows:
            of_pixels = shares([image[c][row][column] for row, column in pixels])
            for (row, column), share in zip(pixels, of_pixels, strict=True):
                if share is not None:
                    dx_image[c][row][column] += share * of_image[c][y][x]
        result.append(dx_image)
    return _images(result, a.X.shape, a.X.dtype)


@quiet
def max_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Largest value of each window, NaN where there is one; see `kernels.max_pool2d`."""
    return _pool(arguments.pooling(X, size, stride), lambda values: values[_first_largest(values)])


@quiet
def max_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X: what a window gets goes to the first of its largest values; see `kernels.max_pool2d_gradient`."""

    def shares(values: list[float]) -> list[float | None]:
        largest = _first_largest(values)
        return [1.0 if place == largest else None for place in range(len(values))]

    return _pool_gradient(dZ, arguments.pooling(X, size, stride), shares)


@quiet
def avg_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Mean of each window; see `kernels.avg_pool2d`."""
    return _pool(arguments.pooling(X, size, stride), lambda values: sum(values) / len(values))


@quiet
def avg_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X: what a window gets goes to all its pixels alike; see `kernels.avg_pool2d_gradient`."""
    return _pool_gradient(dZ, arguments.pooling(X, size, stride), lambda values: [1 / len(values)] * len(values))


def _of_channels(X: Array) -> list[list[float]]:
    """Return the values of each channel."""
    values: list[list[float]] = X.transpose(1, 0, 2, 3).reshape(X.shape[1], -1).tolist()
    return values


def _as_images(channels: list[list[float]], like: Array) -> Array:
    shape = (like.shape[1], like.shape[0], *like.shape[2:])
    return np.ascontiguousarray(np.array(channels, np.float64).reshape(shape).transpose(1, 0, 2, 3).astype(like.dtype))


def _standard(values: list[float], epsilon: float) -> tuple[list[float], float]:
    """Return values less their mean, times a factor, and that."""
    mean = math.fsum(values) / len(values)
    factor = 1 / math.sqrt(math.fsum((x - mean) ** 2 for x in values) / len(values) + epsilon)
    return [(x - mean) * factor for x in values], factor


@quiet
def batch_norm(X: ArrayLike, gamma: ArrayLike, beta: ArrayLike, *, epsilon: float = 1e-5) -> Array:
    """Each channel less its mean, over √(variance + ε), times gamma plus beta; see `kernels.batch_norm`."""
    a = arguments.normalization(X, gamma, beta, epsilon)
    result = []
    for values, factor, shift in zip(_of_channels(a.X), a.gamma.tolist(), a.beta.tolist(), strict=True):
        result.append([factor * x + shift for x in _standard(values, a.epsilon)[0]])
    return _as_images(result, a.X)


@quiet
def batch_norm_gradient(
    dZ: ArrayLike, X: ArrayLike, gamma: ArrayLike, *, epsilon: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradient in X, gamma and beta; see `kernels.batch_norm_gradient`."""
    a = arguments.normalization(X, gamma, None, epsilon)
    dZ = arguments.output_gradient(dZ, a.X.shape, a.X.dtype)
    dX, dgamma, dbeta = [], [], []
    for values, grads, weight in zip(_of_channels(a.X), _of_channels(dZ), a.gamma.tolist(), strict=True):
        standard, factor = _standard(values, a.epsilon)
        dgamma.append(math.fsum(d * x for d, x in zip(grads, standard, strict=True)))
        dbeta.append(math.fsum(grads))
        mean, along = dbeta[-1] / len(values), dgamma[-1] / len(values)
        dX.append([weight * factor * (d - mean - x * along) for d, x in zip(grads, standard, strict=True)])
    dtype = a.X.dtype
    return _as_images(dX, a.X), np.array(dgamma).astype(dtype), np.array(dbeta).astype(dtype)
