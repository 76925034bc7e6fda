"""Pruning by bounds from rows rounded to bytes: most float distances need not be made to know that they are too large.

Rows of X and Y are rounded to a grid of 256 steps per column, the same step for all columns; those of Y to every other
step where bytes are multiplied faster so (`tile_shapes.HALVED`). With x' and y' the rounded rows, any of the three
distances d obeys the triangle inequality,

    d(x, y) >= d(x', y') - d(x, x') - d(y, y').

d(x', y') is a step times an exact integer, which tiles of bytes make several times faster than tiles of floats
make d(x, y); d(x, x') and d(y, y') are known for each row. So where the right side is not below the distance of
the worst neighbor so far, the pair is pruned. Of the others the float distance is made, one column after
the other within the same chunks and with the same operations as in a tile: the same bits. The result is
the one that all distances would give; only the time depends on how well the data can be rounded.

Rounding errors. All bounds are made in float64 and widened by what rounding can do to them:
    - a scaled difference to the grid, computed in the rows' dtype with unit roundoff u, is off by at most
      4 u (its distance to the grid) + 544 u steps (`_distance_to_grid`), a sum of D of them by a factor 1 + D u;
    - a computed distance (for L2: squared) is off by a factor 1 +- (D + 8) 2 u, whatever the order of its sum, and by
      8 D of the smallest normal number where parts of it underflow, even where the processor flushes
      them to zero (`_cutoff`); where it overflows it is infinite, and nothing is pruned.

Rows that are not finite have an infinite distance to the grid: they are never pruned. Rows of X whose pairs
are not pruned often enough are refused: the caller makes all their distances.

`fill_heaps` leads, `_prune` is the compiled loop. Lengths in the grid are told in its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.jit import inner, kernel, readonly, scalar
from ..runtime.target import target
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from ..simd.functions import like
from ..simd.rows import frozen
from . import panels, tile_shapes, tiles
from ._heaps import KeyRule, key_of, replace_root
from .arguments import L1, L2, LINF, METRIC_CODES, METRICS, Metric, most_int32_columns
from .panels import POINTS_STEP, X_ROWS, aligned_like, chunk_length, distances_of_block, pack

__all__ = ["Grid", "choose_grid", "fill_heaps", "is_worthwhile"]

#: With less work, shorter rows, fewer rows of X to repay the rounding of Y, or more neighbours, it does not pay.
_FEWEST_ELEMENTS = 1 << 31
_FEWEST_COLUMNS, _FEWEST_QUERIES, _ROWS_PER_NEIGHBOR = 64, 64, 32

#: Rows of X, and as many of Y, from which the grid is chosen.
_SAMPLE_ROWS = 16

#: Steps between these leave room to scale.
_STEPS = {"float32": (1e-25, 1e25), "float64": (1e-200, 1e200)}

#: Pairs x columns that one compiled call may do: bytes go several times faster than floats.
_CALL_ELEMENTS = 4 * panels.CALL_ELEMENTS

#: A distance made alone costs as much as several of a tile: with more than one in so many not pruned, tiles are faster.
_PAIRS_PER_SURVIVOR = 10

#: After a block that refused most rows so many blocks go without, and each time this happens so many times as many.
_PATIENCE = 4

_LARGEST = np.iinfo(np.int32).max


class Grid(NamedTuple):
    """Column c of a row x is rounded to the step nearest to ``(x[c] - origin[c]) * scale``, of 0 to 255."""

    #: Of the rows' dtype, as `scale` is.
    origin: NDArray[Any]
    scale: Any


class Side(NamedTuple):
    """How steps of the grid become the bytes of X, or of Y: how many units they are, less `taken`; see `HALVED`."""

    #: Steps that a unit is, and its inverse; all of the rows' dtype.
    unit: Any
    inverse: Any
    #: The last step that a byte can stand for.
    highest: Any
    taken: Any


class Precision(NamedTuple):
    """What bounds must know of the rows' dtype, and of the grid."""

    steps_per_unit: float
    eps: float
    #: The smallest normal number.
    tiny: float
    #: Half the largest number.
    huge: float


class Queries(NamedTuple):
    """Rows of X and what is kept for each while Y passes by."""

    rows: NDArray[Any]
    groups: NDArray[np.intp]
    #: Each row as bytes, and its distance to the grid.
    as_bytes: NDArray[Any]
    to_grid: NDArray[np.float64]
    #: Its heap.
    keys: NDArray[Any]
    indices: NDArray[np.intp]
    #: Candidates that wait until they fill a vector, and how many do.
    waiting: NDArray[np.intp]
    counts: NDArray[np.intp]
    #: How many steps away its worst neighbor so far is, or more.
    cutoffs: NDArray[np.float64]
    #: For each `X_ROWS` of them: that pruning did not pay in the last block.
    refused: NDArray[np.bool_]


def is_worthwhile(metric: Metric, dtype: np.dtype[Any], n: int, m: int, d: int, k: int) -> bool:
    """Whether bounds may save more than they cost, as far as sizes and Numba's target tell."""
    by_bytes = {"avx2", "avx512bw"} & target().features
    return bool(
        METRICS[metric].can_be_pruned
        and dtype.kind == "f"
        and by_bytes
        and _FEWEST_COLUMNS <= d <= most_int32_columns("l2")
        and n >= _FEWEST_QUERIES
        and n * m * d >= _FEWEST_ELEMENTS
        and k * _ROWS_PER_NEIGHBOR <= m
    )


@np.errstate(all="ignore")
def choose_grid(metric: Metric, x: NDArray[Any], y: NDArray[Any]) -> Grid | None:
    """Return the grid to which a sample of the rows is nearest; None where there is none."""
    rows = np.concatenate([side[:: max(1, len(side) // _SAMPLE_ROWS)][:_SAMPLE_ROWS] for side in (x, y)])
    sample = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    if not len(sample):
        return None
    lowest, highest = sample.min(), sample.max()
    chosen, nearest = None, np.inf
    for center in (np.full(x.shape[1], lowest / 2 + highest / 2), sample.mean(axis=0)):
        away = sample - center
        largest = np.abs(away).max()
        for half in (largest, min(largest, 4 * np.sqrt(np.square(away).mean()))):
            step = 2 * half / 255
            least, most = _STEPS[x.dtype.name]
            if not least < step < most:
                continue
            candidate = Grid((center - half).astype(x.dtype), x.dtype.type(1 / step))
            scaled = (sample - candidate.origin) * float(candidate.scale)
            beside = np.abs(scaled - np.clip(np.rint(scaled), 0, 255)) / float(candidate.scale)
            norm = {"l1": beside.sum(axis=1), "l2": np.sqrt(np.square(beside).sum(axis=1)), "linf": beside.max(axis=1)}
            if (distance := float(np.median(norm[metric]))) < nearest:
                chosen, nearest = candidate, distance
    return chosen


def fill_heaps(
    metric: Metric,
    grid: Grid,
    rows: NDArray[Any],
    groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    y_first: int,
    y_last: int,
    rule: KeyRule,
    keys: NDArray[Any],
    indices: NDArray[np.intp],
    search: Callable[[int, int, int, int], Iterator[None]],
) -> Iterator[None]:
    """Fill the heaps `keys` and `indices` of some rows of X with the nearest of the rows ``y_first:y_last`` of Y.

    ``search(top, bottom, begin, end)`` offers the rows ``begin:end`` of Y to some heaps without pruning.
    """
    n, d = rows.shape
    dtypes = rows.dtype, tile_shapes.rounded_dtype(metric)
    plan, byte_plan = (panels.plan(metric, dtype, n, d) for dtype in dtypes)
    grid, precision = grid._replace(origin=readonly(grid.origin)), _precision(grid, rows.dtype)
    x_side, y_side = _sides(*dtypes)
    as_bytes, to_grid = np.empty((n, d), dtypes[1]), np.empty(n)
    rows_at_once = max(1, panels.CALL_ELEMENTS // (8 * d))
    for first in range(0, n, rows_at_once):
        some = slice(first, first + rows_at_once)
        _round_rows(METRIC_CODES[metric], rows[some], grid, x_side, as_bytes[some], to_grid[some])
        yield
    keys[:] = np.iinfo(keys.dtype).max
    indices[:] = np.iinfo(np.intp).max
    queries = Queries(
        rows,
        groups,
        panels.whole_steps(as_bytes),
        to_grid,
        keys,
        indices,
        waiting=np.empty((n, tile_shapes.transpose_width(rows.dtype)), np.intp),
        counts=np.zeros(n, np.intp),
        cutoffs=np.full(n, np.inf),
        refused=np.zeros(-(-n // X_ROWS), np.bool_),
    )
    refused, like = queries.refused, tuple(panels.ordinary_totals(metric, dtype, d) for dtype in dtypes)
    block = byte_plan.block_points
    step = max(block, _CALL_ELEMENTS // max(1, n * d) // block * block)
    begin, pause = y_first, 1
    plans, rounding = (plan, byte_plan), (grid, y_side)
    stride, sampled = 0, False
    while begin < y_last:
        refused[:] = False
        part, whole = (begin, min(y_last, begin + step)), (y_first, y_last, stride)
        left, begin = _prune(
            plans, rounding, precision, queries, y, y_groups, part, whole, like, rule, _PAIRS_PER_SURVIVOR
        )
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
            _offer_all_waiting(plan, queries, y, like[0], rule)
            yield from search(0, n, left, begin)
            pause *= _PATIENCE
    _offer_all_waiting(plan, queries, y, like[0], rule)
    yield


def _precision(grid: Grid, dtype: np.dtype[Any]) -> Precision:
    kind = np.finfo(dtype)
    return Precision(float(grid.scale), float(kind.eps), float(kind.tiny), float(kind.max / 2))


def _sides(dtype: np.dtype[Any], rounded: np.dtype[Any]) -> tuple[Side, Side]:
    """Return how rows of X and of Y are rounded."""
    unit, taken = tile_shapes.y_unit(rounded), 128 if rounded == tile_shapes.HALVED else 0
    sides = (1, 1, 255, taken), (unit, 1 / unit, 256 - unit, 0)
    return Side(*map(dtype.type, sides[0])), Side(*map(dtype.type, sides[1]))


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where flags are set, from each first to after each last."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


@kernel
def _round_rows(metric, rows, grid, side, as_bytes, to_grid):  # type: ignore[no-untyped-def]
    """Round rows to the grid, and measure how far from it they are, in steps."""
    for i in range(rows.shape[0]):
        to_grid[i] = _round_row(metric, rows[i], grid, side, as_bytes[i])


@inner
def _round_row(metric, row, grid, side, as_bytes):  # type: ignore[no-untyped-def]
    """Round a row to the grid and return a bound of its distance to it, in steps; infinity where there is none."""
    origin, scale, taken = grid.origin, grid.scale, np.int64(side.taken)
    for c in range(row.size):
        as_bytes[c] = _rounded(row[c], origin[c], grid, side) - taken
    total, beyond = like(scale, 0), 0
    if metric == L2:
        for c in range(row.size):
            residual = _residual(row[c], origin[c], grid, side, as_bytes[c])
            total += residual * residual
    else:
        for c in range(row.size):
            residual = abs(_residual(row[c], origin[c], grid, side, as_bytes[c]))
            total += residual
            beyond += residual > like(scale, 0.5)
    if metric == LINF and total < np.inf:
        if beyond == 0:
            total = min(total, like(scale, 0.5))
        else:
            total = like(scale, 0)
            for c in range(row.size):
                total = max(total, abs(_residual(row[c], origin[c], grid, side, as_bytes[c])))
    return _distance_to_grid(metric, np.float64(total), np.float64(row.size), np.float64(np.finfo(row.dtype).eps) / 2)


@scalar
def _rounded(value, origin, grid, side):  # type: ignore[no-untyped-def]
    """Return how many units are nearest to a scaled value, 0 for NaN; bounds hold whichever number it is."""
    place = (value - origin) * grid.scale
    place = place if place > 0 else like(place, 0)
    place = place if place < side.highest else side.highest
    return np.uint8(place * side.inverse + like(place, 0.5))


@scalar
def _residual(value, origin, grid, side, byte):  # type: ignore[no-untyped-def]
    """Return how far a scaled value is from what its byte stands for; the operations keep their order."""
    return (value - origin) * grid.scale - (like(grid.scale, byte) + side.taken) * side.unit


@scalar
def _distance_to_grid(metric, total, d, roundoff):  # type: ignore[no-untyped-def]
    """Return a row's distance to the grid, widened by all that rounding can have taken from it."""
    if not total < np.inf:
        return np.inf
    distance = np.sqrt(total) if metric == L2 else total
    grain = d if metric == L1 else np.sqrt(d) if metric == L2 else 1.0
    return (distance * (1 + (d + 16) * roundoff) + 544 * roundoff * grain) * (1 + 1e-9)


@scalar
def _cutoff(metric, total, d, precision):  # type: ignore[no-untyped-def]
    """Return so many steps that a pair as far apart has a computed total above `total`."""
    if not total < precision.huge:
        return np.inf  # what is computed may have overflowed, and then all that is farther is as far
    true = (total + 8 * d * precision.tiny) / (1 - (d + 8) * precision.eps)
    return (np.sqrt(true) if metric == L2 else true) * precision.steps_per_unit * (1 + 1e-9)


@scalar
def _computed(metric, steps, d, precision):  # type: ignore[no-untyped-def]
    """Return a bound of the computed total of a pair that is at most so many steps apart."""
    distance = steps / precision.steps_per_unit
    total = distance * distance if metric == L2 else distance
    return total * (1 + (d + 8) * precision.eps) + 8 * d * precision.tiny


@scalar
def _bound(metric, total, steps, d, precision):  # type: ignore[no-untyped-def]
    """Return a bound of the computed total of rows with such a byte total and at most so many steps from the grid."""
    if total == _LARGEST:
        return np.inf
    apart = np.sqrt(np.float64(total)) if metric == L2 else np.float64(total)
    return _computed(metric, apart + steps, d, precision)


@scalar
def _limit(metric, steps):  # type: ignore[no-untyped-def]
    """Return the byte total from which on rows are at least so many steps apart."""
    total = (steps * steps if metric == L2 else steps) * (1 + 1e-9) + 1
    return np.int64(total) if total < _LARGEST - 1 else np.int64(_LARGEST)


@kernel
def _prune(  # type: ignore[no-untyped-def]
    plans, rounding, precision, queries, Y, y_groups, y_range, sample, like_totals, rule, one_in
):
    """Offer the rows of Y from `y_range` to the heaps of the queries, but for those that bounds prune.

    A `sample` is ``(begin, end, stride)``: with a stride, every so many-th of these rows of Y is looked at before:
    the k-th nearest of these is a bound.
    Stops after a block in which a group of queries was refused, and returns where this block is.
    """
    (plan, byte_plan), (like_total, like_byte_total) = plans, like_totals
    metric, block = plan.metric, byte_plan.block_points
    (y_first, y_last), (y_begin, y_end, stride) = y_range, sample
    keys, cutoffs, refused, to_grid = queries.keys, queries.cutoffs, queries.refused, queries.to_grid
    n, d = queries.rows.shape
    height = -(-min(X_ROWS, n) // byte_plan.tile_rows) * byte_plan.tile_rows
    width = -(-min(block, y_end - y_begin) // POINTS_STEP) * POINTS_STEP
    as_bytes = queries.as_bytes
    panels, broadcast_x = aligned_like(width * as_bytes.shape[1], as_bytes), aligned_like(byte_plan.workspace, as_bytes)
    totals = aligned_like(height * width, like_byte_total).reshape((height, width))
    rounded = aligned_like(byte_plan.tile_points * d, as_bytes).reshape((byte_plan.tile_points, d))
    radius = np.empty(width // KEYS_AT_ONCE)
    found = np.empty((height, width // KEYS_AT_ONCE), np.int64)
    few = aligned_like(queries.waiting.shape[1], like_total)
    nearest, places = np.empty(keys.shape[1], totals.dtype), np.empty(keys.shape[1], np.intp)
    worst = keys.view(like_total.dtype)
    for i in range(n):
        cutoffs[i] = min(cutoffs[i], _cutoff(metric, np.float64(worst[i, 0]), d, precision))
    if stride:
        size = -(-(y_end - y_begin) // stride)
        _pack_rounded(byte_plan, rounding, Y, y_begin, size, stride, rounded, panels, radius)
        farthest = radius[: -(-size // KEYS_AT_ONCE)].max()
        for top in range(0, n, X_ROWS):
            bottom = min(n, top + X_ROWS)
            distances_of_block(byte_plan, as_bytes, top, bottom, panels, np.intp(0), size, broadcast_x, totals)
            for i in range(top, bottom):
                own = queries.groups[i] if queries.groups.size else 0
                total = _kth_total(totals[i - top], size, y_begin, stride, own, y_groups, nearest, places)
                bound = _bound(metric, total, to_grid[i] + farthest, d, precision)
                cutoffs[i] = min(cutoffs[i], _cutoff(metric, bound, d, precision))
    for left in range(y_first, y_last, block):
        right = min(y_last, left + block)
        size = right - left
        _pack_rounded(byte_plan, rounding, Y, left, size, np.intp(1), rounded, panels, radius)
        farthest = radius[: -(-size // KEYS_AT_ONCE)].max()
        any_refused, all_refused = False, False
        for top in range(0, n, X_ROWS):
            bottom = min(n, top + X_ROWS)
            if all_refused:
                refused[top // X_ROWS] = True
                continue
            distances_of_block(byte_plan, as_bytes, top, bottom, panels, np.intp(0), size, broadcast_x, totals)
            remaining = 0
            for i in range(top, bottom):
                own = queries.groups[i] if queries.groups.size else 0
                row = totals[i - top]
                if keys[i, 0] == np.iinfo(keys.dtype).max and keys.shape[1] <= size:
                    total = _kth_total(row, size, left, np.intp(1), own, y_groups, nearest, places)
                    bound = _bound(metric, total, to_grid[i] + farthest, d, precision)
                    cutoffs[i] = min(cutoffs[i], _cutoff(metric, bound, d, precision))
                remaining += _note_candidates(metric, row, size, to_grid[i] + cutoffs[i], radius, found[i - top])
            if remaining * one_in > (bottom - top) * size:
                refused[top // X_ROWS] = any_refused = True
                all_refused = top == 0
                continue
            for i in range(top, bottom):
                own = queries.groups[i] if queries.groups.size else 0
                for begin in range(0, size, KEYS_AT_ONCE):
                    candidates = found[i - top, begin // KEYS_AT_ONCE]
                    while candidates:
                        j = left + begin + comparisons.lowest_bit(candidates)
                        candidates &= candidates - 1
                        if y_groups.size and y_groups[j] == own:
                            continue
                        queries.waiting[i, queries.counts[i]] = j
                        queries.counts[i] += 1
                        if queries.counts[i] == queries.waiting.shape[1]:
                            _offer_waiting(plan, queries, i, Y, few, rule)
                            cutoffs[i] = min(cutoffs[i], _cutoff(metric, np.float64(worst[i, 0]), d, precision))
        if any_refused:
            for i in range(n):
                if refused[i // X_ROWS]:
                    _offer_waiting(plan, queries, i, Y, few, rule)
            return left, right
    return y_last, y_last


@inner
def _pack_rounded(plan, rounding, Y, left, size, stride, rounded, panels, radius):  # type: ignore[no-untyped-def]
    """Pack `size` rounded rows of Y, `stride` apart, and note the largest distance to the grid among each 32."""
    grid, side = rounding
    points = plan.tile_points
    panel = panels.size // (radius.size * KEYS_AT_ONCE) * points
    radius[:] = 0
    for top in range(0, size, points):
        bottom = min(size, top + points)
        for j in range(top, bottom):
            place = j // KEYS_AT_ONCE
            to_grid = _round_row(plan.metric, Y[left + j * stride], grid, side, rounded[j - top])
            radius[place] = max(radius[place], to_grid)
        pack(plan, frozen(rounded), np.intp(0), bottom - top, panels[top // points * panel :])


@inner
def _kth_total(row, size, left, stride, own, groups, nearest, places):  # type: ignore[no-untyped-def]
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
def _note_candidates(metric, row, size, steps, radius, found):  # type: ignore[no-untyped-def]
    """Note which pairs of a row bounds do not prune, and return how many."""
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
def _offer_waiting(plan, queries, i, Y, few, rule):  # type: ignore[no-untyped-def]
    """Make the distances of a query's waiting candidates, and offer them to its heap."""
    X, keys, indices, waiting = queries.rows, queries.keys, queries.indices, queries.waiting[i]
    count = queries.counts[i]
    if count == 0:
        return
    queries.counts[i] = 0
    waiting[count:] = waiting[count - 1]
    chunk = chunk_length(X.shape[1], plan.chunk_steps)
    for begin in range(0, X.shape[1], chunk):
        tiles.accumulate_few(plan.metric, X, i, Y, waiting, begin, min(X.shape[1], begin + chunk), few)
    few_keys = few.view(keys.dtype)
    for place in range(count):
        key = key_of(few_keys[place], rule)
        if key < keys[i, 0]:
            replace_root(keys[i], indices[i], keys.shape[1], key, waiting[place])


@kernel
def _offer_all_waiting(plan, queries, Y, like_total, rule):  # type: ignore[no-untyped-def]
    """Offer what still waits."""
    few = aligned_like(queries.waiting.shape[1], like_total)
    for i in range(queries.rows.shape[0]):
        _offer_waiting(plan, queries, i, Y, few, rule)
