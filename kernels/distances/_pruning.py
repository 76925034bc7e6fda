"""Bounds from rows rounded to bytes: most float distances need not be made to know that they are too large.

Rows of X and Y are rounded to a grid of 256 steps per column, the same step for all columns. With x' and y'
the rounded rows, any of the three distances d obeys the triangle inequality,

    d(x, y) >= d(x', y') - d(x, x') - d(y, y').

d(x', y') is a step times an exact integer, which tiles of bytes make several times faster than tiles of floats
make d(x, y); d(x, x') and d(y, y') are known for each row. So where the right side is not below the distance of
the worst neighbour so far, the pair is dismissed. Of the others the float distance is made, one column after
the other within the same chunks and with the same operations as in a tile: the same bits. The result is
the one that all distances would give; only the time depends on how well the data can be rounded.

Rounding errors. All bounds are made in float64 and widened by what rounding can do to them:
    - a scaled difference to the grid, computed in the rows' dtype with unit roundoff u, is off by at most
      4 u (its distance to the grid) + 544 u steps (`_radius`), a sum of D of them by a factor 1 + D u;
    - a computed distance (for L2: squared) is off by a factor 1 +- (D + 8) 2 u, whatever the order of its sum, and by
      8 D of the smallest normal number where parts of it underflow, even where the processor flushes
      them to zero (`_reach`); where it overflows it is infinite, and nothing is dismissed.

Rows that are not finite have an infinite distance to the grid: they are never dismissed. Rows of X whose pairs
are not dismissed often enough are refused: the caller makes all their distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments.arrays import UINT8
from ..runtime import target
from ..runtime.jit import inner, kernel, readonly, scalar
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from ..simd.functions import like
from . import panels, tiles
from ._heaps import replace_root
from .arguments import INT32_COLUMNS_SQUARED_L2, Metric
from .panels import POINTS_STEP, X_ROWS, aligned, chunk_length, distances_of_block, pack

__all__ = ["Grid", "grid", "sift"]

#: With less work, shorter rows, fewer rows of X to repay the rounding of Y, or more neighbours, it does not pay.
_FEWEST_ELEMENTS = 1 << 31
_FEWEST_COLUMNS, _FEWEST_QUERIES, _ROWS_PER_NEIGHBOR = 64, 64, 32

#: Rows of X, and as many of Y, from which the grid is chosen.
_SAMPLE_ROWS = 16

#: Steps between these leave room to scale.
_STEPS = {"float32": (1e-25, 1e25), "float64": (1e-200, 1e200)}

#: Pairs x columns that one compiled call may do: bytes go several times faster than floats.
_CALL_ELEMENTS = 4 * panels.CALL_ELEMENTS

#: A distance made alone costs as much as several of a tile: with more than one in so many left, tiles are faster.
_LEFT = 10

#: After a block that refused most rows so many blocks go without, and each time this happens so many times as many.
_PATIENCE = 4

_LARGEST = np.iinfo(np.int32).max


class Grid(NamedTuple):
    """Column c of a row x is rounded to the byte nearest to ``(x[c] - origin[c]) * scale``."""

    origin: NDArray[Any]
    scale: float


def pays(metric: Metric, dtype: np.dtype[Any], n: int, m: int, d: int, k: int) -> bool:
    """Whether bounds may save more than they cost, as far as sizes and Numba's target tell."""
    by_bytes = {"avx2", "avx512bw"} & target.target().features
    products = metric != "l2" or dtype.itemsize == 8 or tiles.own_steps(UINT8)  # else floats are nearly as fast
    return bool(
        dtype.kind == "f"
        and by_bytes
        and products
        and _FEWEST_COLUMNS <= d <= INT32_COLUMNS_SQUARED_L2
        and n >= _FEWEST_QUERIES
        and n * m * d >= _FEWEST_ELEMENTS
        and k * _ROWS_PER_NEIGHBOR <= m
    )


@np.errstate(all="ignore")
def grid(metric: Metric, x: NDArray[Any], y: NDArray[Any]) -> Grid | None:
    """Choose the grid to which a sample of the rows is nearest; None where there is none."""
    rows = np.concatenate([side[:: max(1, len(side) // _SAMPLE_ROWS)][:_SAMPLE_ROWS] for side in (x, y)])
    sample = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    if not len(sample):
        return None
    lowest, highest = sample.min(), sample.max()
    chosen, nearest = None, np.inf
    for centre in (np.full(x.shape[1], lowest / 2 + highest / 2), sample.mean(axis=0)):
        away = sample - centre
        largest = np.abs(away).max()
        for half in (largest, min(largest, 4 * np.sqrt(np.square(away).mean()))):
            step = 2 * half / 255
            least, most = _STEPS[x.dtype.name]
            if not least < step < most:
                continue
            candidate = Grid((centre - half).astype(x.dtype), float(x.dtype.type(1 / step)))
            scaled = (sample - candidate.origin) * candidate.scale
            beside = np.abs(scaled - np.clip(np.rint(scaled), 0, 255)) / candidate.scale
            norm = {"l1": beside.sum(axis=1), "l2": np.sqrt(np.square(beside).sum(axis=1)), "linf": beside.max(axis=1)}
            if (distance := float(np.median(norm[metric]))) < nearest:
                chosen, nearest = candidate, distance
    return chosen


def sift(
    metric: Metric,
    chosen: Grid,
    queries: NDArray[Any],
    own: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    y_first: int,
    y_last: int,
    rule: tuple[NDArray[Any], int, int],
    best: NDArray[Any],
    indices: NDArray[np.intp],
    search: Callable[[int, int, int, int], Iterator[None]],
) -> Iterator[None]:
    """Fill the heaps `best` and `indices` with the nearest of the rows ``y_first:y_last`` of Y.

    ``search(top, bottom, begin, end)`` offers the rows ``begin:end`` of Y to some heaps without bounds.
    """
    n, d = queries.shape
    code = panels.METRIC_CODES[metric]
    cut, byte_cut = (panels.plan(metric, dtype, n, d) for dtype in (queries.dtype, UINT8))
    numbers = _numbers(chosen, queries.dtype)
    scale, origin = queries.dtype.type(chosen.scale), readonly(chosen.origin)
    x_bytes, x_radius = np.empty((n, d), np.uint8), np.empty(n)
    rows_at_once = max(1, panels.CALL_ELEMENTS // (8 * d))
    for first in range(0, n, rows_at_once):
        some = slice(first, first + rows_at_once)
        _round_rows(code, queries[some], origin, scale, x_bytes[some], x_radius[some])
        yield
    x_bytes = panels.whole_steps(x_bytes)
    best[:] = np.iinfo(best.dtype).max
    indices[:] = np.iinfo(np.intp).max
    waiting, counts = np.empty((n, tiles.square(queries.dtype)), np.intp), np.zeros(n, np.intp)
    reach = np.full(n, np.inf)
    refused = np.zeros(-(-n // X_ROWS), np.bool_)
    byte_totals = panels.ordinary_totals(metric, UINT8, d)
    block = byte_cut[-1]
    step = max(block, _CALL_ELEMENTS // max(1, n * d) // block * block)
    begin, pause = y_first, 1
    stride, sampled = 0, False
    while begin < y_last:
        refused[:] = False
        end = min(y_last, begin + step)
        left, begin = _sift(
            code, cut, byte_cut, queries, x_bytes, x_radius, own, y, y_groups, begin, end, y_first, y_last, stride,
            origin, scale, numbers, *rule, byte_totals, best, indices, waiting, counts, reach, refused, _LEFT,
        )  # fmt: skip
        yield
        stride = 0
        if not refused.any():
            continue
        for first, last in _runs(refused):
            yield from search(first * X_ROWS, min(n, last * X_ROWS), left, begin)
        if not sampled:  # perhaps the rows are in some order
            stride, sampled = -(-(y_last - y_first) // block), True
        elif 2 * refused.sum() > len(refused):
            left, begin = begin, min(y_last, begin + pause * block)
            _settle_all(code, cut, queries, y, *rule, best, indices, waiting, counts)
            yield from search(0, n, left, begin)
            pause *= _PATIENCE
    _settle_all(code, cut, queries, y, *rule, best, indices, waiting, counts)
    yield


def _numbers(chosen: Grid, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return steps per unit, and of the dtype the precision, the smallest normal number and half the largest."""
    kind = np.finfo(dtype)
    return np.array([chosen.scale, kind.eps, kind.tiny, kind.max / 2], np.float64)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where flags are set, from each first to after each last."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


@kernel
def _round_rows(metric, rows, origin, scale, rounded, radius):  # type: ignore[no-untyped-def]
    """Round rows to the grid, and measure how far from it they are, in steps."""
    for i in range(rows.shape[0]):
        radius[i] = _round(metric, rows[i], origin, scale, rounded[i])


@inner
def _round(metric, row, origin, scale, rounded):  # type: ignore[no-untyped-def]
    """Round a row to the grid and return a bound of its distance to it, in steps; infinity where there is none."""
    for c in range(row.size):
        rounded[c] = _nearest_byte(row[c], origin[c], scale)
    total, beyond = like(scale, 0), 0
    if metric == 1:
        for c in range(row.size):
            beside = _beside(row[c], origin[c], scale, rounded[c])
            total += beside * beside
    else:
        for c in range(row.size):
            beside = abs(_beside(row[c], origin[c], scale, rounded[c]))
            total += beside
            beyond += beside > like(scale, 0.5)
    if metric == 2 and total < np.inf:
        if beyond == 0:
            total = min(total, like(scale, 0.5))
        else:
            total = like(scale, 0)
            for c in range(row.size):
                total = max(total, abs(_beside(row[c], origin[c], scale, rounded[c])))
    return _radius(metric, np.float64(total), np.float64(row.size), np.float64(np.finfo(row.dtype).eps) / 2)


@scalar
def _nearest_byte(value, origin, scale):  # type: ignore[no-untyped-def]
    """Return the byte nearest to a scaled value, 0 for NaN; bounds hold whichever byte it is."""
    place = (value - origin) * scale + like(scale, 0.5)
    place = place if place > 0 else like(scale, 0)
    return np.uint8(place if place < like(scale, 255) else like(scale, 255))


@scalar
def _beside(value, origin, scale, rounded):  # type: ignore[no-untyped-def]
    """Return how far a scaled value is from its byte; the operations keep their order."""
    return (value - origin) * scale - like(scale, rounded)


@scalar
def _radius(metric, total, d, roundoff):  # type: ignore[no-untyped-def]
    """Return a row's distance to the grid, widened by all that rounding can have taken from it."""
    if not total < np.inf:
        return np.inf
    distance = np.sqrt(total) if metric == 1 else total
    grain = d if metric == 0 else np.sqrt(d) if metric == 1 else 1.0
    return (distance * (1 + (d + 16) * roundoff) + 544 * roundoff * grain) * (1 + 1e-9)


@scalar
def _reach(metric, total, d, scale, eps, tiny, huge):  # type: ignore[no-untyped-def]
    """Return so many steps that a pair as far apart has a computed total above `total`."""
    if not total < huge:
        return np.inf  # what is computed may have overflowed, and then all that is farther is as far
    true = (total + 8 * d * tiny) / (1 - (d + 8) * eps)
    return (np.sqrt(true) if metric == 1 else true) * scale * (1 + 1e-9)


@scalar
def _computed(metric, steps, d, scale, eps, tiny):  # type: ignore[no-untyped-def]
    """Return a bound of the computed total of a pair that is at most so many steps apart."""
    distance = steps / scale
    return (distance * distance if metric == 1 else distance) * (1 + (d + 8) * eps) + 8 * d * tiny


@scalar
def _bound(metric, total, steps, d, scale, eps, tiny):  # type: ignore[no-untyped-def]
    """Return a bound of the computed total of rows with such a byte total and at most so many steps from the grid."""
    if total == _LARGEST:
        return np.inf
    apart = np.sqrt(np.float64(total)) if metric == 1 else np.float64(total)
    return _computed(metric, apart + steps, d, scale, eps, tiny)


@scalar
def _limit(metric, steps):  # type: ignore[no-untyped-def]
    """Return the byte total from which on rows are at least so many steps apart."""
    total = (steps * steps if metric == 1 else steps) * (1 + 1e-9) + 1
    return np.int64(total) if total < _LARGEST - 1 else np.int64(_LARGEST)


@kernel
def _sift(  # type: ignore[no-untyped-def]
    metric, plan, byte_plan, X, x_bytes, x_radius, x_groups, Y, y_groups, y_first, y_last, y_begin, y_end, stride,
    origin, scale, numbers, like_totals, mask, nan_key, byte_totals, keys, indices, waiting, counts, reach, refused,
    one_in,
):  # fmt: skip
    """Offer the rows ``y_first:y_last`` of Y to the heaps of the rows of X, but for those that bounds dismiss.

    With a `stride`, every so many-th of the rows ``y_begin:y_end`` is looked at before: the k-th nearest of these is
    a bound.
    Candidates wait until they fill a vector. ``reach[i]`` is how many steps away row i has its worst neighbour so
    far, or more. Stops after a block in which a group of rows was `refused`, and returns where this block is.
    """
    rows, points, side, columns, _, space, block = byte_plan
    n, d = X.shape
    scale64, eps, tiny, huge = numbers
    height = -(-min(X_ROWS, n) // rows) * rows
    width = -(-min(block, y_end - y_begin) // POINTS_STEP) * POINTS_STEP
    panels, spread_x = aligned(width * x_bytes.shape[1], x_bytes), aligned(space, x_bytes)
    totals = aligned(height * width, byte_totals).reshape((height, width))
    rounded = aligned(points * d, x_bytes).reshape((points, d))
    radius = np.empty(width // KEYS_AT_ONCE)
    found = np.empty((height, width // KEYS_AT_ONCE), np.int64)
    few = aligned(waiting.shape[1], like_totals)
    nearest, places = np.empty(keys.shape[1], totals.dtype), np.empty(keys.shape[1], np.intp)
    worst = keys.view(like_totals.dtype)
    for i in range(n):
        reach[i] = min(reach[i], _reach(metric, np.float64(worst[i, 0]), d, scale64, eps, tiny, huge))
    if stride:
        size = -(-(y_end - y_begin) // stride)
        _round_block(metric, Y, y_begin, size, stride, origin, scale, rounded, points, side, columns, panels, radius)
        farthest = radius[: -(-size // KEYS_AT_ONCE)].max()
        for top in range(0, n, X_ROWS):
            bottom = min(n, top + X_ROWS)
            distances_of_block(metric, byte_plan, x_bytes, top, bottom, panels, 0, size, spread_x, totals)
            for i in range(top, bottom):
                own = x_groups[i] if x_groups.size else 0
                total = _kth(totals[i - top], size, y_begin, stride, own, y_groups, nearest, places)
                bound = _bound(metric, total, x_radius[i] + farthest, d, scale64, eps, tiny)
                reach[i] = min(reach[i], _reach(metric, bound, d, scale64, eps, tiny, huge))
    for left in range(y_first, y_last, block):
        right = min(y_last, left + block)
        size = right - left
        _round_block(metric, Y, left, size, 1, origin, scale, rounded, points, side, columns, panels, radius)
        farthest = radius[: -(-size // KEYS_AT_ONCE)].max()
        any_refused, all_refused = False, False
        for top in range(0, n, X_ROWS):
            bottom = min(n, top + X_ROWS)
            if all_refused:
                refused[top // X_ROWS] = True
                continue
            distances_of_block(metric, byte_plan, x_bytes, top, bottom, panels, 0, right - left, spread_x, totals)
            left_over = 0
            for i in range(top, bottom):
                own = x_groups[i] if x_groups.size else 0
                row = totals[i - top]
                if keys[i, 0] == np.iinfo(keys.dtype).max and keys.shape[1] <= size:
                    total = _kth(row, size, left, 1, own, y_groups, nearest, places)
                    bound = _bound(metric, total, x_radius[i] + farthest, d, scale64, eps, tiny)
                    reach[i] = min(reach[i], _reach(metric, bound, d, scale64, eps, tiny, huge))
                left_over += _look_through(metric, row, right - left, x_radius[i] + reach[i], radius, found[i - top])
            if left_over * one_in > (bottom - top) * (right - left):
                refused[top // X_ROWS] = any_refused = True
                all_refused = top == 0
                continue
            for i in range(top, bottom):
                own = x_groups[i] if x_groups.size else 0
                for begin in range(0, right - left, KEYS_AT_ONCE):
                    candidates = found[i - top, begin // KEYS_AT_ONCE]
                    while candidates:
                        j = left + begin + comparisons.lowest_bit(candidates)
                        candidates &= candidates - 1
                        if y_groups.size and y_groups[j] == own:
                            continue
                        waiting[i, counts[i]] = j
                        counts[i] += 1
                        if counts[i] == waiting.shape[1]:
                            _settle(metric, plan, X, i, Y, waiting[i], counts, few, mask, nan_key, keys, indices)
                            reach[i] = min(
                                reach[i], _reach(metric, np.float64(worst[i, 0]), d, scale64, eps, tiny, huge)
                            )
        if any_refused:
            for i in range(n):
                if refused[i // X_ROWS]:
                    _settle(metric, plan, X, i, Y, waiting[i], counts, few, mask, nan_key, keys, indices)
            return left, right
    return y_last, y_last


@inner
def _round_block(  # type: ignore[no-untyped-def]
    metric, Y, left, size, stride, origin, scale, rounded, points, side, columns, panels, radius
):
    """Pack `size` rounded rows of Y, `stride` apart, and note the largest distance to the grid among each 32."""
    panel = panels.size // (radius.size * KEYS_AT_ONCE) * points
    radius[:] = 0
    for top in range(0, size, points):
        bottom = min(size, top + points)
        for j in range(top, bottom):
            place = j // KEYS_AT_ONCE
            beside = _round(metric, Y[left + j * stride], origin, scale, rounded[j - top])
            radius[place] = max(radius[place], beside)
        pack(rounded, 0, bottom - top, points, side, columns, panels[top // points * panel :])


@inner
def _kth(row, size, left, stride, own, groups, nearest, places):  # type: ignore[no-untyped-def]
    """Return the total of the k-th nearest candidate of a sample, the largest integer if it has fewer."""
    nearest[:] = _LARGEST
    places[:] = 0
    for begin in range(0, size, KEYS_AT_ONCE):
        candidates = comparisons.below(row, begin, nearest[0], _LARGEST, _LARGEST)
        if size - begin < KEYS_AT_ONCE:
            candidates &= (1 << (size - begin)) - 1
        while candidates:
            j = begin + comparisons.lowest_bit(candidates)
            candidates &= candidates - 1
            if row[j] < nearest[0] and (groups.size == 0 or groups[left + j * stride] != own):
                replace_root(nearest, places, nearest.size, row[j], j)
    return nearest[0]


@inner
def _look_through(metric, row, size, steps, radius, found):  # type: ignore[no-untyped-def]
    """Note which pairs of a row bounds do not dismiss, and return how many."""
    count = 0
    for begin in range(0, size, KEYS_AT_ONCE):
        limit = _limit(metric, steps + radius[begin // KEYS_AT_ONCE])
        candidates = comparisons.below(row, begin, limit, _LARGEST, _LARGEST)
        if size - begin < KEYS_AT_ONCE:
            candidates &= (1 << (size - begin)) - 1
        found[begin // KEYS_AT_ONCE] = candidates
        while candidates:
            candidates &= candidates - 1
            count += 1
    return count


@inner
def _settle(metric, plan, X, i, Y, waiting, counts, few, mask, nan_key, keys, indices):  # type: ignore[no-untyped-def]
    """Make the distances of a row's waiting candidates, and offer them to its heap."""
    count = counts[i]
    if count == 0:
        return
    counts[i] = 0
    waiting[count:] = waiting[count - 1]
    chunk = chunk_length(X.shape[1], plan[4])
    for begin in range(0, X.shape[1], chunk):
        _accumulate_few(metric, X, i, Y, waiting, begin, min(X.shape[1], begin + chunk), few)
    few_keys = few.view(keys.dtype)
    for place in range(count):
        key = min(few_keys[place] & mask, nan_key)
        if key < keys[i, 0]:
            replace_root(keys[i], indices[i], keys.shape[1], key, waiting[place])


@inner
def _accumulate_few(metric, X, i, Y, places, begin, end, totals):  # type: ignore[no-untyped-def]
    if metric == 0:
        tiles.accumulate_few("l1", X, i, Y, places, begin, end, totals)
    elif metric == 1:
        tiles.accumulate_few("l2", X, i, Y, places, begin, end, totals)
    else:
        tiles.accumulate_few("linf", X, i, Y, places, begin, end, totals)


@kernel
def _settle_all(metric, plan, X, Y, like_totals, mask, nan_key, keys, indices, waiting, counts):  # type: ignore[no-untyped-def]
    """Settle what still waits."""
    few = aligned(waiting.shape[1], like_totals)
    for i in range(X.shape[0]):
        _settle(metric, plan, X, i, Y, waiting[i], counts, few, mask, nan_key, keys, indices)
