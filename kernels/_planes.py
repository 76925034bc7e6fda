"""Pools and batch normalisation of images as the public functions have them: each channel of an image is a plane.

Networks have their images with channels last, and functions of their own for that (`_image_layers`). To bring images
there and back costs more than what is done to them: memory is the limit. Here all goes through the memory in the order
in which it lies there: pools read once what comes in, batch normalisation twice, and what goes out is written once.

Sums over at most `_PIECE` pixels are in the dtype of the images, what they are added up to is in float64, in the order
of the images. A variance comes from deviations from the mean of a piece. A block of images is measured by one thread
and the bounds of blocks depend on the shapes alone: same bits for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numpy.typing import NDArray

from . import _threads
from ._image_layers import center
from ._jit import inner, intrinsic, kernel, readonly, scalar
from ._math import like
from ._pointwise import sum_of

__all__ = ["normalized", "normalized_slopes", "pooled", "pooled_slopes"]

Array = NDArray[Any]

#: Pixels that are summed up in the dtype of the images, at most.
_PIECE = 1024

#: Pixels of a part of a normalisation, about, and blocks of images at most.
_BLOCK, _MOST_BLOCKS = 1 << 18, 64

#: Pixels of a plane below which channels are laid together first.
_FEW_PIXELS = 16

#: Pixels below which a second thread costs more than it gains, and which one compiled call may do.
_SERIAL, _CALL = 1 << 18, 1 << 22


# ------------------------------------------------------------------------------------------- pairs
#
# A plain index 2 x might be negative, for all the compiler knows, and then means another place: no vectors.


def _pair_twin(line: Any, x: Any) -> Any:
    return line[2 * x], line[2 * x + 1]


@intrinsic(twin=_pair_twin)
def _pair(typingctx, line, x):  # type: ignore[no-untyped-def]
    """``_pair(line, x)``: entries 2 x and 2 x + 1."""
    both = types.UniTuple(line.dtype, 2)

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        places = _places(context, builder, line, arguments)
        return context.make_tuple(builder, both, [builder.load(place) for place in places])

    return both(line, types.intp), emit


def _put_pair_twin(line: Any, x: Any, left: Any, right: Any) -> None:
    line[2 * x], line[2 * x + 1] = left, right


@intrinsic(twin=_put_pair_twin)
def _put_pair(typingctx, line, x, left, right):  # type: ignore[no-untyped-def]
    """``_put_pair(line, x, left, right)``: store entries 2 x and 2 x + 1."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        for place, value in zip(_places(context, builder, line, arguments), arguments[2:], strict=True):
            builder.store(value, place)
        return context.get_dummy_value()

    return types.void(line, types.intp, line.dtype, line.dtype), emit


def _places(context: Any, builder: Any, line: Any, arguments: Any) -> list[ir.Value]:
    data, number = context.make_array(line)(context, builder, arguments[0]).data, ir.IntType(32)
    pairs = builder.bitcast(data, ir.ArrayType(context.get_data_type(line.dtype), 2).as_pointer())
    return [builder.gep(pairs, [arguments[1], number(place)], inbounds=True) for place in range(2)]


# ------------------------------------------------------------------------------------------- pools


@scalar
def _beats(x, best):  # type: ignore[no-untyped-def]
    """Whether x takes the place of what came before: the first of equals stays, and the first NaN."""
    return (not (x <= best)) & (best == best)


@inner
def _largest_of_fours(above, below, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        a, b = _pair(above, x)
        c, d = _pair(below, x)
        top, low = b if _beats(b, a) else a, d if _beats(d, c) else c
        out[x] = low if _beats(low, top) else top


@inner
def _means_of_fours(above, below, share, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        a, b = _pair(above, x)
        c, d = _pair(below, x)
        out[x] = share * ((a + b) + (c + d))


@inner
def _take_over(line, best):  # type: ignore[no-untyped-def]
    for x in range(best.size):
        best[x] = line[x] if _beats(line[x], best[x]) else best[x]


@inner
def _add(line, total):  # type: ignore[no-untyped-def]
    for x in range(total.size):
        total[x] += line[x]


@inner
def _pool_line(plane, top, size, stride, average, tall, out):  # type: ignore[no-untyped-def]
    """Pool a line of windows: first down, then to the right."""
    tall[:] = plane[top]
    for dy in range(1, size):
        if average:
            _add(plane[top + dy], tall)
        else:
            _take_over(plane[top + dy], tall)
    if stride == 1:
        out[:] = tall[: out.size]
        for dx in range(1, size):
            if average:
                _add(tall[dx:], out)
            else:
                _take_over(tall[dx:], out)
        return
    for x in range(out.size):
        window = tall[x * stride : x * stride + size]
        best = window[0]
        for dx in range(1, size):
            if average:
                best += window[dx]
            else:
                best = window[dx] if _beats(window[dx], best) else best
        out[x] = best


@kernel
def _pool(X, size, stride, average, first, last, result):  # type: ignore[no-untyped-def]
    """Mean or largest value of each window of the planes `first` to `last`."""
    tall = np.empty(X.shape[2], X.dtype)
    share = like(tall[0], 1) / like(tall[0], size * size)
    for i in range(first, last):
        plane = X[i]
        for y in range(result.shape[1]):
            out, top = result[i, y], y * stride
            if size == 2 and stride == 2 and average:
                _means_of_fours(plane[top], plane[top + 1], share, out)
            elif size == 2 and stride == 2:
                _largest_of_fours(plane[top], plane[top + 1], out)
            else:
                _pool_line(plane, top, size, stride, average, tall, out)
                if average:
                    for x in range(out.size):
                        out[x] *= share


@inner
def _slopes_of_fours(slopes, above, below, out_above, out_below):  # type: ignore[no-untyped-def]
    zero = like(slopes[0], 0)
    for x in range(slopes.size):
        a, b = _pair(above, x)
        c, d = _pair(below, x)
        right, low_right = _beats(b, a), _beats(d, c)
        top, low = b if right else a, d if low_right else c
        slope, is_low = slopes[x], _beats(low, top)
        of_top, of_low = zero if is_low else slope, slope if is_low else zero
        _put_pair(out_above, x, zero if right else of_top, of_top if right else zero)
        _put_pair(out_below, x, zero if low_right else of_low, of_low if low_right else zero)


@inner
def _shares_of_fours(slopes, share, out_above, out_below):  # type: ignore[no-untyped-def]
    for x in range(slopes.size):
        part = share * slopes[x]
        _put_pair(out_above, x, part, part)
        _put_pair(out_below, x, part, part)


@inner
def _add_slopes_of_line(slopes, plane, top, size, stride, best, index, result):  # type: ignore[no-untyped-def]
    """Add the slopes in a line of windows to where the largest values are."""
    for k in range(size * size):
        line = plane[top + k // size][k % size :]
        for x in range(slopes.size):
            takes = k == 0 or _beats(line[x * stride], best[x])
            best[x] = line[x * stride] if takes else best[x]
            index[x] = k if takes else index[x]
    for k in range(size * size):
        line = result[top + k // size][k % size :]
        for x in range(slopes.size):
            line[x * stride] += slopes[x] if index[x] == k else like(slopes[x], 0)


@inner
def _add_shares_of_line(slopes, share, top, size, stride, wide, result):  # type: ignore[no-untyped-def]
    """Add the slopes in a line of windows to all of each window: first to the right, then down."""
    wide[:] = 0
    for dx in range(size):
        line = wide[dx:]
        for x in range(slopes.size):
            line[x * stride] += share * slopes[x]
    for dy in range(size):
        _add(wide, result[top + dy])


@kernel
def _pool_slopes(slopes, X, size, stride, average, first, last, result):  # type: ignore[no-untyped-def]
    """Slopes in the planes `first` to `last` of X, of which the values matter for the largest only."""
    lines, width = slopes.shape[1], slopes.shape[2]
    best, index = np.empty(width, slopes.dtype), np.empty(width, np.uint8)
    wide = np.empty(result.shape[2], slopes.dtype)
    share = like(best[0], 1) / like(best[0], size * size)
    fours = size == 2 and stride == 2
    for i in range(first, last):
        out = result[i]
        if fours:
            out[2 * lines :] = 0
        else:
            out[:] = 0
        for y in range(lines):
            given, top = slopes[i, y], y * stride
            if fours:
                out[top, 2 * width :] = 0
                out[top + 1, 2 * width :] = 0
            if fours and average:
                _shares_of_fours(given, share, out[top], out[top + 1])
            elif fours:
                _slopes_of_fours(given, X[i, top], X[i, top + 1], out[top], out[top + 1])
            elif average:
                _add_shares_of_line(given, share, top, size, stride, wide, out)
            else:
                _add_slopes_of_line(given, X[i], top, size, stride, best, index, out)


def pooled(X: Array, size: int, stride: int, n_threads: int | None, *, average: bool) -> Array:
    """Return the largest value, or the mean, of each window of settled images (n, C, H, W)."""
    planes = readonly(X.reshape(-1, *X.shape[2:]))
    result = np.empty((len(planes), *((length - size) // stride + 1 for length in X.shape[2:])), X.dtype)

    def work(first: int, last: int) -> None:
        _pool(planes, size, stride, average, first, last, result)

    _over_planes(work, planes, n_threads)
    return result.reshape(*X.shape[:2], *result.shape[1:])


def pooled_slopes(slopes: Array, X: Array, size: int, stride: int, n_threads: int | None, *, average: bool) -> Array:
    """Return slopes in X from settled slopes in what `pooled` makes of it."""
    planes, given = readonly(X.reshape(-1, *X.shape[2:])), readonly(slopes.reshape(-1, *slopes.shape[2:]))
    result = np.empty(planes.shape, X.dtype)

    def work(first: int, last: int) -> None:
        _pool_slopes(given, planes, size, stride, average, first, last, result)

    _over_planes(work, planes, n_threads)
    return result.reshape(X.shape)


def _over_planes(work: Callable[[int, int], None], planes: Array, n_threads: int | None) -> None:
    most = max(1, _CALL // math.prod(planes.shape[1:]))
    _threads.run_ranges(work, len(planes), _thread_count(n_threads, planes.size), most=most)


def _thread_count(n_threads: int | None, pixels: int) -> int:
    return 1 if n_threads is None and pixels < _SERIAL else _threads.resolve(n_threads)


# ----------------------------------------------------------------------------------- batch normalisation
#
# A state is what is known of some pixels of a channel: how many, their mean, the sum of squared deviations from it,
# the sum of the slopes and that of slope times deviation.
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
    count, mean, spread, slope, product = of_all
    more, more_mean, more_spread, more_slope, more_product = of_more
    total, off = count + more, more_mean - mean
    moves = off * (more / total)
    product = (product - moves * slope) + (more_product + (off - moves) * more_slope)
    return total, mean + moves, spread + more_spread + off * moves * count, slope + more_slope, product


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
    """Sum of the slopes, and of slope times deviation."""
    total, products = like(about, 0), like(about, 0)
    for j in range(x.size):
        total += d[j]
        products += d[j] * _off(x[j], about)
    return total, products


@kernel
def _measure(X, slopes, first, last, begin, end, states):  # type: ignore[no-untyped-def]
    """States of the channels `begin` to `end` of the images `first` to `last`; `slopes` may be empty."""
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
                slope, product = 0.0, 0.0
                if slopes.size > 0:
                    of_slopes, of_products = _products(slopes[i, c][at : at + _PIECE], x, about)
                    slope = float(of_slopes)
                    product = float(of_products) + _off(near, mean) * slope
                state = _joined(state, (count, mean, spread, slope, product))
            states[c] = state


@inner
def _normalize_plane(x, mean, factor, shift, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = center(x[j], mean, factor, shift)


@kernel
def _normalize(X, means, factors, shifts, first, last, begin, end, result):  # type: ignore[no-untyped-def]
    """(x - mean) factor + shift for the channels `begin` to `end` of the images `first` to `last`."""
    for i in range(first, last):
        for c in range(begin, end):
            _normalize_plane(X[i, c], means[c], factors[c], shifts[c], result[i, c])


@inner
def _slopes_of_plane(d, x, mean, of_slope, of_value, shift, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] = of_slope * d[j] + center(x[j], mean, of_value, shift)


@kernel
def _normalize_slopes(  # type: ignore[no-untyped-def]
    slopes, X, means, of_slopes, of_values, shifts, first, last, begin, end, result
):  # fmt: skip
    """Slopes in the images that `_normalize` was given."""
    for i in range(first, last):
        for c in range(begin, end):
            _slopes_of_plane(slopes[i, c], X[i, c], means[c], of_slopes[c], of_values[c], shifts[c], result[i, c])


class _Parts:
    """How images (n, C, pixels) are shared: blocks of them, and groups of channels, by their shape alone."""

    def __init__(self, planes: Array, n_threads: int | None) -> None:
        self.n, self.channels, pixels = planes.shape
        self.images = max(1, _BLOCK // (self.channels * pixels), -(-self.n // _MOST_BLOCKS))
        self.group = max(1, min(self.channels, _BLOCK // pixels))
        self.blocks, self.groups = -(-self.n // self.images), -(-self.channels // self.group)
        self.threads = _thread_count(n_threads, planes.size)

    def run(self, work: Callable[..., None]) -> None:
        """Call ``work(block, first, last, begin, end)`` for each block of images and group of channels."""

        def part(task: int) -> Iterator[None]:
            block, group = divmod(task, self.groups)
            begin, end = group * self.group, min(self.channels, (group + 1) * self.group)
            work(block, block * self.images, min(self.n, (block + 1) * self.images), begin, end)
            yield

        _threads.run(part, self.blocks * self.groups, self.threads)


def _measured(planes: Array, slopes: Array, parts: _Parts) -> list[Array]:
    """Return the numbers of the states of all channels."""
    states = np.empty((parts.blocks, parts.channels, _STATE))
    parts.run(lambda block, i, j, c, d: _measure(planes, slopes, i, j, c, d, states[block]))
    counts, means, spreads, of_slopes, products = np.moveaxis(states, 2, 0)
    count = counts.sum(axis=0)
    mean = means[0] + (counts * (means - means[0])).sum(axis=0) / count
    off = means - mean
    spread = (spreads + counts * off * off).sum(axis=0)
    return [count, mean, spread, of_slopes.sum(axis=0), (products + off * of_slopes).sum(axis=0)]


@np.errstate(all="ignore")
def normalized(X: Array, gamma: Array, beta: Array, epsilon: float, n_threads: int | None) -> Array:
    """Return settled images (n, C, H, W), each channel normalised, scaled by gamma and shifted by beta."""
    planes = readonly(_long_planes(X))
    parts, result = _Parts(planes, n_threads), np.empty(planes.shape, X.dtype)
    count, mean, spread, _, _ = _measured(planes, planes[:0], parts)
    numbers = _rounded(mean, gamma / np.sqrt(spread / count + epsilon), beta, X.dtype)
    parts.run(lambda block, i, j, c, d: _normalize(planes, *numbers, i, j, c, d, result))
    return _as_images(result, X.shape)


@np.errstate(all="ignore")
def normalized_slopes(
    slopes: Array, X: Array, gamma: Array, epsilon: float, n_threads: int | None
) -> tuple[Array, Array, Array]:
    """Return slopes in X, gamma and beta from settled slopes in what `normalized` makes."""
    planes, given = readonly(_long_planes(X)), readonly(_long_planes(slopes))
    parts, result = _Parts(planes, n_threads), np.empty(planes.shape, X.dtype)
    count, mean, spread, slope, product = _measured(planes, given, parts)
    inverse = 1 / np.sqrt(spread / count + epsilon)
    factor = gamma * inverse
    means, of_values, shifts = _rounded(mean, -factor * inverse**2 * product / count, -factor * slope / count, X.dtype)
    numbers = means, readonly(factor.astype(X.dtype)), of_values, shifts
    parts.run(lambda block, i, j, c, d: _normalize_slopes(given, planes, *numbers, i, j, c, d, result))
    return _as_images(result, X.shape), (product * inverse).astype(X.dtype), slope.astype(X.dtype)


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
