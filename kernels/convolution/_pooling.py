"""Pools of images as the public functions have them: each channel of an image is a plane.

Networks have their images with channels last, and kernels of their own for that (`_grid_loops`). To bring images there
and back costs more than what is done to them: memory is the limit. Here all goes through the memory in the order in
which it lies there: what comes in is read once, what goes out is written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numpy.typing import NDArray

from ..runtime import parallel
from ..runtime.jit import inner, intrinsic, kernel, readonly, scalar
from ..simd.functions import like
from ..simd.rows import apart, copy

__all__ = ["pool", "pool_backward", "seconds_of"]

Array = NDArray[Any]


#: Seconds of a byte of images, roughly, and pixels that one compiled call may do.
_BYTE_SECONDS, _CALL = 4e-11, 1 << 22


def seconds_of(planes: Array) -> float:
    """Return roughly how long a pass over images takes one core."""
    return planes.nbytes * _BYTE_SECONDS


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
    copy(plane[top], tall)
    for dy in range(1, size):
        if average:
            _add(plane[top + dy], tall)
        else:
            _take_over(plane[top + dy], tall)
    if stride == 1:
        copy(tall[: out.size], out)
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
def _pool_planes(X, size, stride, average, first, last, result):  # type: ignore[no-untyped-def]
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
def _largest_of_fours_backward(grad, above, below, out_above, out_below):  # type: ignore[no-untyped-def]
    apart()
    zero = like(grad[0], 0)
    for x in range(grad.size):
        a, b = _pair(above, x)
        c, d = _pair(below, x)
        right, low_right = _beats(b, a), _beats(d, c)
        top, low = b if right else a, d if low_right else c
        g, is_low = grad[x], _beats(low, top)
        of_top, of_low = zero if is_low else g, g if is_low else zero
        _put_pair(out_above, x, zero if right else of_top, of_top if right else zero)
        _put_pair(out_below, x, zero if low_right else of_low, of_low if low_right else zero)


@inner
def _means_of_fours_backward(grad, share, out_above, out_below):  # type: ignore[no-untyped-def]
    apart()
    for x in range(grad.size):
        part = share * grad[x]
        _put_pair(out_above, x, part, part)
        _put_pair(out_below, x, part, part)


@inner
def _max_pool_line_backward(grad, plane, top, size, stride, best, index, result):  # type: ignore[no-untyped-def]
    """Add the gradient in a line of windows to where the largest values are."""
    for k in range(size * size):
        line = plane[top + k // size][k % size :]
        for x in range(grad.size):
            takes = k == 0 or _beats(line[x * stride], best[x])
            best[x] = line[x * stride] if takes else best[x]
            index[x] = k if takes else index[x]
    for k in range(size * size):
        line = result[top + k // size][k % size :]
        for x in range(grad.size):
            line[x * stride] += grad[x] if index[x] == k else like(grad[x], 0)


@inner
def _avg_pool_line_backward(grad, share, top, size, stride, wide, result):  # type: ignore[no-untyped-def]
    """Add the gradient in a line of windows to all of each window: first to the right, then down."""
    wide[:] = 0
    for dx in range(size):
        line = wide[dx:]
        for x in range(grad.size):
            line[x * stride] += share * grad[x]
    for dy in range(size):
        _add(wide, result[top + dy])


@kernel
def _pool_planes_backward(grad, X, size, stride, average, first, last, result):  # type: ignore[no-untyped-def]
    """Gradient in the planes `first` to `last` of X, of which the values matter for the largest only."""
    lines, width = grad.shape[1], grad.shape[2]
    best, index = np.empty(width, grad.dtype), np.empty(width, np.uint8)
    wide = np.empty(result.shape[2], grad.dtype)
    share = like(best[0], 1) / like(best[0], size * size)
    fours = size == 2 and stride == 2
    for i in range(first, last):
        out = result[i]
        if fours:
            out[2 * lines :] = 0
        else:
            out[:] = 0
        for y in range(lines):
            given, top = grad[i, y], y * stride
            if fours:
                out[top, 2 * width :] = 0
                out[top + 1, 2 * width :] = 0
            if fours and average:
                _means_of_fours_backward(given, share, out[top], out[top + 1])
            elif fours:
                _largest_of_fours_backward(given, X[i, top], X[i, top + 1], out[top], out[top + 1])
            elif average:
                _avg_pool_line_backward(given, share, top, size, stride, wide, out)
            else:
                _max_pool_line_backward(given, X[i], top, size, stride, best, index, out)


def pool(X: Array, size: int, stride: int, n_threads: int | None, *, average: bool) -> Array:
    """Return the largest value, or the mean, of each window of settled images (n, C, H, W)."""
    planes = readonly(X.reshape(-1, *X.shape[2:]))
    result = np.empty((len(planes), *((length - size) // stride + 1 for length in X.shape[2:])), X.dtype)

    def task(first: int, last: int) -> None:
        _pool_planes(planes, size, stride, average, first, last, result)

    _over_planes(task, planes, n_threads)
    return result.reshape(*X.shape[:2], *result.shape[1:])


def pool_backward(grad: Array, X: Array, size: int, stride: int, n_threads: int | None, *, average: bool) -> Array:
    """Return the gradient in X from a settled one in what `pool` makes of it."""
    planes, given = readonly(X.reshape(-1, *X.shape[2:])), readonly(grad.reshape(-1, *grad.shape[2:]))
    result = np.empty(planes.shape, X.dtype)

    def task(first: int, last: int) -> None:
        _pool_planes_backward(given, planes, size, stride, average, first, last, result)

    _over_planes(task, planes, n_threads)
    return result.reshape(X.shape)


def _over_planes(task: Callable[[int, int], None], planes: Array, n_threads: int | None) -> None:
    most = max(1, _CALL // math.prod(planes.shape[1:]))
    parallel.run_ranges(task, len(planes), n_threads, most=most, seconds=seconds_of(planes))
