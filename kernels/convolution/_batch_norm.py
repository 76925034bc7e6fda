"""Batch normalisation of images as the public functions have it: each channel of an image is a plane.

Sums over at most `_PIECE` pixels are in the dtype of the images, what they are added up to is in float64, in the order
of the images. A variance comes from deviations from the mean of a piece. A block of images is measured by one thread
and the bounds of blocks depend on the shapes alone: same bits for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly, scalar
from ..simd.functions import like
from ..simd.rows import copy, sum_of
from ._grid_loops import center
from ._pooling import Array, seconds_of

__all__ = ["normalize", "normalize_backward"]

#: Pixels that are summed up in the dtype of the images, at most.
_PIECE = 1024

#: Pixels of a part of a normalisation, about, and blocks of images at most.
_BLOCK, _MOST_BLOCKS = 1 << 18, 64

#: Pixels of a plane below which channels are laid together first.
_FEW_PIXELS = 16


# ----------------------------------------------------------------------------------- batch normalisation
#
# A state is what is known of some pixels of a channel: how many, their mean, the sum of squared deviations from it,
# the sum of the gradient and that of gradient times deviation.
#
# Images are passed through twice, in the order in which they lie in memory: the planes of one channel are apart by
# powers of two often, so that a cache holds few of them at a time.

_STATE = 5


@scalar
def _joined(of_all, of_more):  # type: ignore[no-untyped-def]
    """State of all pixels from those of two parts.

    Source: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1982).
    """
    count, mean, spread, grad_sum, product = of_all
    more, more_mean, more_spread, more_grad_sum, more_product = of_more
    total, off = count + more, more_mean - mean
    moves = off * (more / total)
    product = (product - moves * grad_sum) + (more_product + (off - moves) * more_grad_sum)
    return total, mean + moves, spread + more_spread + off * moves * count, grad_sum + more_grad_sum, product


@scalar
def _off(x, about):  # type: ignore[no-untyped-def]
    return x - about


@scalar
def _about_their_mean(count, about, off, square):  # type: ignore[no-untyped-def]
    """Mean and sum of squared deviations from it, from the sums of deviations from a number, and of their squares."""
    spread = square - off * (off / count)
    return about + off / count, 0.0 if spread < 0.0 else spread


@inner
def _deviations(x, about):  # type: ignore[no-untyped-def]
    """Sum of the deviations from a number, and of their squares."""
    total, squares = like(about, 0), like(about, 0)
    for j in range(x.size):
        off = _off(x[j], about)
        total += off
        squares += off * off
    return total, squares


@inner
def _products(d, x, about):  # type: ignore[no-untyped-def]
    """Sum of the gradient, and of gradient times deviation."""
    total, products = like(about, 0), like(about, 0)
    for j in range(x.size):
        total += d[j]
        products += d[j] * _off(x[j], about)
    return total, products


@kernel
def _measure(X, grad, first, last, begin, end, states):  # type: ignore[no-untyped-def]
    """States of the channels `begin` to `end` of the images `first` to `last`; `grad` may be empty."""
    states[begin:end] = 0
    for i in range(first, last):
        for c in range(begin, end):
            before, plane = states[c], X[i, c]
            state = before[0], before[1], before[2], before[3], before[4]
            for at in range(0, plane.size, _PIECE):
                x = plane[at : at + _PIECE]
                about = sum_of(x) / like(x[0], x.size)
                off, square = _deviations(x, about)
                count, near = float(x.size), float(about)
                mean, spread = _about_their_mean(count, near, float(off), float(square))
                grad_sum, product = 0.0, 0.0
                if grad.size > 0:
                    of_grad, of_products = _products(grad[i, c][at : at + _PIECE], x, about)
                    grad_sum = float(of_grad)
                    product = float(of_products) + _off(near, mean) * grad_sum
                state = _joined(state, (count, mean, spread, grad_sum, product))
            copy(state, states[c])


@inner
def _normalize_plane(x, mean, factor, shift, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = center(x[j], mean, factor, shift)


@kernel
def _normalize_planes(X, means, factors, shifts, first, last, begin, end, result):  # type: ignore[no-untyped-def]
    """(x - mean) factor + shift for the channels `begin` to `end` of the images `first` to `last`."""
    for i in range(first, last):
        for c in range(begin, end):
            _normalize_plane(X[i, c], means[c], factors[c], shifts[c], result[i, c])


@inner
def _normalize_plane_backward(d, x, mean, of_grad, of_value, shift, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = of_grad * d[j] + center(x[j], mean, of_value, shift)


@kernel
def _normalize_planes_backward(  # type: ignore[no-untyped-def]
    grad, X, means, of_grad, of_values, shifts, first, last, begin, end, result
):  # fmt: skip
    """Gradient in the images that `_normalize_planes` was given."""
    for i in range(first, last):
        for c in range(begin, end):
            _normalize_plane_backward(grad[i, c], X[i, c], means[c], of_grad[c], of_values[c], shifts[c], result[i, c])


class _Parts:
    """How images (n, C, pixels) are shared: blocks of them, and groups of channels, by their shape alone."""

    def __init__(self, planes: Array, n_threads: int | None) -> None:
        self.n, self.channels, pixels = planes.shape
        self.images = max(1, _BLOCK // (self.channels * pixels), -(-self.n // _MOST_BLOCKS))
        self.group = max(1, min(self.channels, _BLOCK // pixels))
        self.blocks, self.groups = -(-self.n // self.images), -(-self.channels // self.group)
        self.threads = parallel.resolve(n_threads, seconds=seconds_of(planes))

    def run(self, work: Callable[..., None]) -> None:
        """Call ``work(block, first, last, begin, end)`` for each block of images and group of channels."""

        def part(task: int) -> Iterator[None]:
            block, group = divmod(task, self.groups)
            begin, end = group * self.group, min(self.channels, (group + 1) * self.group)
            work(block, block * self.images, min(self.n, (block + 1) * self.images), begin, end)
            yield

        parallel.run(part, self.blocks * self.groups, self.threads)


def _measured(planes: Array, grad: Array, parts: _Parts) -> list[Array]:
    """Return the numbers of the states of all channels."""
    states = np.empty((parts.blocks, parts.channels, _STATE))
    parts.run(lambda block, i, j, c, d: _measure(planes, grad, i, j, c, d, states[block]))
    counts, means, spreads, of_grad, products = np.moveaxis(states, 2, 0)
    count = counts.sum(axis=0)
    mean = means[0] + (counts * (means - means[0])).sum(axis=0) / count
    off = means - mean
    spread = (spreads + counts * off * off).sum(axis=0)
    return [count, mean, spread, of_grad.sum(axis=0), (products + off * of_grad).sum(axis=0)]


@np.errstate(all="ignore")
def normalize(X: Array, gamma: Array, beta: Array, epsilon: float, n_threads: int | None) -> Array:
    """Return settled images (n, C, H, W), each channel normalised, scaled by gamma and shifted by beta."""
    planes = readonly(_long_planes(X))
    parts, result = _Parts(planes, n_threads), np.empty(planes.shape, X.dtype)
    count, mean, spread, _, _ = _measured(planes, planes[:0], parts)
    numbers = _rounded(mean, gamma / np.sqrt(spread / count + epsilon), beta, X.dtype)
    parts.run(lambda block, i, j, c, d: _normalize_planes(planes, *numbers, i, j, c, d, result))
    return _as_images(result, X.shape)


@np.errstate(all="ignore")
def normalize_backward(
    grad: Array, X: Array, gamma: Array, epsilon: float, n_threads: int | None
) -> tuple[Array, Array, Array]:
    """Return the gradient in X, gamma and beta from a settled one in what `normalize` makes."""
    planes, given = readonly(_long_planes(X)), readonly(_long_planes(grad))
    parts, result = _Parts(planes, n_threads), np.empty(planes.shape, X.dtype)
    count, mean, spread, grad_sum, product = _measured(planes, given, parts)
    inverse = 1 / np.sqrt(spread / count + epsilon)
    factor = gamma * inverse
    means, of_values, shifts = _rounded(
        mean, -factor * inverse**2 * product / count, -factor * grad_sum / count, X.dtype
    )
    numbers = means, readonly(factor.astype(X.dtype)), of_values, shifts
    parts.run(lambda block, i, j, c, d: _normalize_planes_backward(given, planes, *numbers, i, j, c, d, result))
    return _as_images(result, X.shape), (product * inverse).astype(X.dtype), grad_sum.astype(X.dtype)


def _rounded(mean: Array, factor: Array, shift: Array, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Return mean, factor and shift in the dtype of images; what the mean loses there goes to the shift."""
    means = mean.astype(dtype)
    shifts = shift - (mean - means) * factor
    return readonly(means), readonly(factor.astype(dtype)), readonly(shifts.astype(dtype))


def _long_planes(X: Array) -> Array:
    """Return images as (n, C, pixels); tiny ones as one image, each channel of all in a row."""
    n, channels, pixels = *X.shape[:2], math.prod(X.shape[2:])
    planes = X.reshape(n, channels, pixels)
    if pixels >= _FEW_PIXELS:
        return planes
    return np.ascontiguousarray(planes.transpose(1, 0, 2)).reshape(1, channels, n * pixels)


def _as_images(planes: Array, shape: tuple[int, ...]) -> Array:
    """Undo `_long_planes`."""
    n, channels, pixels = *shape[:2], math.prod(shape[2:])
    if pixels < _FEW_PIXELS:
        planes = np.ascontiguousarray(planes.reshape(channels, n, pixels).transpose(1, 0, 2))
    return planes.reshape(shape)
