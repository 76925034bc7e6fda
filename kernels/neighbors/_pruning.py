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

What is rounded may be other rows, their *features*, of which is known that they are hardly farther apart than the rows
themselves: principal columns (see `_principal`). Their slack is added to the distances to the grid.

Which grid, whether of rows or of features, or whether there are bounds at all, is chosen in `_bounds`. `fill_heaps`
leads, `_prune` is the compiled loop. Lengths in the grid are told in its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..distances import panels, tile_shapes, tiles
from ..distances.arguments import L1, L2, LINF, METRIC_CODES, Metric
from ..distances.panels import POINTS_STEP, X_ROWS, aligned_like, chunk_length, distances_of_block, pack_part
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly, scalar
from ..runtime.memory import aligned
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from ..simd.functions import like
from ..simd.rows import frozen
from . import _principal
from ._bounds import Bounds, Grid, Packed
from ._heaps import KeyRule, key_of, replace_root

__all__ = ["fill_heaps", "packed"]

#: Of features so many rows of Y, as a share, are looked at first.
_FIRST_SHARE = 8

#: Pairs x columns that one compiled call may do: bytes go several times faster than floats.
_CALL_ELEMENTS = 4 * panels.CALL_ELEMENTS

#: A distance made alone costs as much as several of a tile: with more than one in so many not pruned, tiles are faster.
_PAIRS_PER_SURVIVOR = 10

#: Looking at a pair costs as much as so many columns of bytes.
_LOOKING = 32

#: After a block that refused most rows so many blocks go without, and each time this happens so many times as many.
_PATIENCE = 4

_LARGEST = np.iinfo(np.int32).max


class Side(NamedTuple):
    """How steps of the grid become the bytes of X, or of Y: how many units they are, less `taken`; see `HALVED`."""

    #: Steps that a unit is, and its inverse; all of the rows' dtype.
    unit: Any
    inverse: Any
    #: The last step that a byte can stand for.
    highest: Any
    taken: Any


class Precision(NamedTuple):
    """What bounds must know of the grid, and of the dtype of totals."""

    steps_per_unit: float
    #: Of exact totals 0, as `tiny` is.
    eps: float
    #: The smallest normal number.
    tiny: float
    #: Half the largest number; of exact totals the largest.
    huge: float


class Queries(NamedTuple):
    """Rows of X as tiles read them, and what is kept for each while Y passes by."""

    rows: NDArray[Any]
    groups: NDArray[np.intp]
    #: What of each row is rounded; as bytes, and how far these are from it.
    features: _principal.Features
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


def fill_heaps(
    metric: Metric,
    bounds: Bounds,
    first: int,
    last: int,
    queries: NDArray[Any],
    groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    y_range: tuple[int, int],
    rule: KeyRule,
    keys: NDArray[Any],
    indices: NDArray[np.intp],
    search: Callable[[int, int, int, int], Iterator[None]],
) -> Iterator[None]:
    """Fill the heaps `keys` and `indices` of the rows ``first:last`` of X with the nearest of some rows of Y.

    `queries` is these rows as tiles read them. ``search(top, bottom, begin, end)`` offers the rows ``begin:end`` of Y
    to some heaps without pruning.
    """
    x_features, y_features = (
        _principal.Features(readonly(side.rows[some]), readonly(side.slack[some]))
        for side, some in ((bounds.x, slice(first, last)), (bounds.y, slice(None)))
    )
    n, d = x_features.rows.shape
    dtypes = y_features.rows.dtype, tile_shapes.rounded_dtype(metric)
    plan, byte_plan = panels.plan(metric, y.dtype, n, y.shape[1]), panels.plan(metric, dtypes[1], n, d)
    grid = bounds.grid._replace(origin=readonly(bounds.grid.origin))
    like = panels.ordinary_totals(metric, y.dtype, y.shape[1]), panels.ordinary_totals(metric, dtypes[1], d)
    precision = _precision(grid, bounds.stretch, like[0].dtype)
    x_side, y_side = _sides(*dtypes)
    as_bytes, to_grid = np.empty((n, d), dtypes[1]), np.empty(n)
    rows_at_once = max(1, panels.CALL_ELEMENTS // (8 * d))
    for begin in range(0, n, rows_at_once):
        some = slice(begin, begin + rows_at_once)
        _round_rows(METRIC_CODES[metric], x_features.rows[some], grid, x_side, as_bytes[some], to_grid[some])
        yield
    if x_features.slack.size:
        to_grid += x_features.slack * float(grid.scale) * (1 + 1e-9)
    keys[:] = np.iinfo(keys.dtype).max
    indices[:] = np.iinfo(np.intp).max
    kept = tuple(bounds.packed or (np.empty(0, dtypes[1]), np.empty(0)))
    waiting = tile_shapes.few_rows(y.dtype)
    rows = Queries(
        queries,
        groups,
        x_features,
        panels.whole_steps(as_bytes),
        to_grid,
        keys,
        indices,
        waiting=np.empty((n, waiting), np.intp),
        counts=np.zeros(n, np.intp),
        cutoffs=np.full(n, np.inf),
        refused=np.zeros(-(-n // X_ROWS), np.bool_),
    )
    refused, (y_first, y_last) = rows.refused, y_range
    block = byte_plan.block_points if bounds.packed is None else POINTS_STEP
    step = max(block, _CALL_ELEMENTS // max(1, n * (d + _LOOKING)) // block * block)
    plans, rounding = (plan, byte_plan), (grid, y_side)
    one_in = _PAIRS_PER_SURVIVOR // (2 if y_features.slack.size else 1)

    def prune(begin: int, end: int, stride: int = 0) -> tuple[int, int]:
        place = y, y_features, kept, y_groups, (begin, end, stride)
        return _prune(plans, rounding, precision, rows, *place, like, rule, one_in)

    begin, pause, every_so_many = y_first, 1, -(-(y_last - y_first) // block)
    # Features tell only what is much farther than neighbors; what their bytes leave is not made before they are asked.
    looked = y_features.slack.size > 0
    if looked:
        prune(y_first, y_last, min(every_so_many, _FIRST_SHARE))
        yield
    while begin < y_last:
        refused[:] = False
        left, begin = prune(begin, min(y_last, begin + step))
        yield
        if not refused.any():
            continue
        for top, bottom in _runs(refused):
            yield from search(top * X_ROWS, min(n, bottom * X_ROWS), left, begin)
        if not looked:  # perhaps the rows are in some order
            prune(y_first, y_last, every_so_many)
            looked = True
        elif 2 * refused.sum() > len(refused):
            left, begin = begin, min(y_last, begin + pause * block)
            _offer_all_waiting(plan, rows, y, like[0], rule)
            yield from search(0, n, left, begin)
            pause *= _PATIENCE
    _offer_all_waiting(plan, rows, y, like[0], rule)
    yield


def _precision(grid: Grid, stretch: float, totals: np.dtype[Any]) -> Precision:
    if totals.kind == "i":
        return Precision(float(grid.scale) * stretch, 0.0, 0.0, float(np.iinfo(totals).max))
    kind = np.finfo(totals)
    return Precision(float(grid.scale) * stretch, float(kind.eps), float(kind.tiny), float(kind.max / 2))


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


@inner
def _farthest(plan, queries, i, Y, places, few, rule):  # type: ignore[no-untyped-def]
    """Return the largest total of a query with rows of Y."""
    few_keys, waiting = few.view(queries.keys.dtype), np.empty(few.size, np.intp)
    largest = np.int64(0)
    for begin in range(0, places.size, waiting.size):
        for place in range(waiting.size):
            waiting[place] = places[min(begin + place, places.size - 1)]
        _make_totals(plan, queries.rows, i, Y, waiting, few)
        for place in range(waiting.size):
            largest = max(largest, np.int64(key_of(few_keys[place], rule)))
    few_keys[0] = largest
    return np.float64(few[0])


@kernel
def _prune(  # type: ignore[no-untyped-def]
    plans, rounding, precision, queries, Y, features, packed, y_groups, y_range, like_totals, rule, one_in
):
    """Offer the rows of Y from `y_range` to the heaps of the queries, but for those that bounds prune.

    Bounds are made of the rows' `features`, which may be rounded and `packed` already. `y_range` is
    ``(first, last, stride)``. With a stride, every so many-th of the rows is only looked at, and cutoffs are made from
    the k that seem nearest. Else this stops after a block in which a group of queries was refused, and returns where
    this block is.
    """
    (plan, byte_plan), (like_total, like_byte_total) = plans, like_totals
    y_first, y_last, stride = y_range
    is_packed = packed[1].size > 0 and stride == 0
    metric, block = plan.metric, POINTS_STEP if is_packed else byte_plan.block_points
    keys, cutoffs, refused, to_grid = queries.keys, queries.cutoffs, queries.refused, queries.to_grid
    n, d, as_bytes, k = queries.rows.shape[0], np.float64(Y.shape[1]), queries.as_bytes, keys.shape[1]
    every = max(1, stride)
    count, scale = -(-(y_last - y_first) // every), np.float64(rounding[0].scale)
    height = -(-min(X_ROWS, n) // byte_plan.tile_rows) * byte_plan.tile_rows
    width = -(-min(block, count) // POINTS_STEP) * POINTS_STEP
    fresh_panels = aligned_like((not is_packed) * width * as_bytes.shape[1], as_bytes)
    broadcast_x = aligned_like(byte_plan.workspace, as_bytes)
    totals = aligned_like(height * width, like_byte_total).reshape((height, width))
    shape = byte_plan.tile_points, features.rows.shape[1]
    rounded = aligned_like(shape[0] * shape[1], as_bytes).reshape(shape)
    fresh_radius = np.empty(width // KEYS_AT_ONCE)
    found = np.empty((height, width // KEYS_AT_ONCE), np.int64)
    few = aligned_like(queries.waiting.shape[1], like_total)
    sampled = n if stride else 1
    nearest, places = np.full((sampled, k), _LARGEST, totals.dtype), np.full((sampled, k), -1, np.intp)
    worst = keys.view(like_total.dtype)
    for i in range(n):
        cutoffs[i] = min(cutoffs[i], _cutoff(metric, np.float64(worst[i, 0]), d, precision))
    farthest = 0.0
    for begin in range(0, count, block):
        size = min(block, count - begin)
        left, right = y_first + begin * every, y_first + begin + size
        if is_packed:
            panels, radius = packed[0][left * as_bytes.shape[1] :], packed[1][left // KEYS_AT_ONCE :]
        else:
            panels, radius = fresh_panels, fresh_radius
            _pack_rounded(byte_plan, rounding, features, left, size, every, rounded, panels, radius)
        farthest = max(farthest * (stride > 0), radius[: -(-size // KEYS_AT_ONCE)].max())
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
                row, place = totals[i - top], i if stride else 0
                is_first = features.slack.size == 0 and keys[i, 0] == np.iinfo(keys.dtype).max and k <= size
                if stride or is_first:
                    if not stride:
                        nearest[0] = _LARGEST
                    _find_nearest(row, size, left, every, own, y_groups, nearest[place], places[place])
                if stride:
                    continue
                if is_first:
                    bound = _bound(metric, nearest[0, 0], to_grid[i] + farthest, d, precision)
                    cutoffs[i] = min(cutoffs[i], _cutoff(metric, bound, d, precision))
                remaining += _note_candidates(metric, row, size, to_grid[i] + cutoffs[i], radius, found[i - top])
            if stride:
                continue
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
                        if features.slack.size and _are_apart(queries, i, features, j, scale):
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
    for i in range(n if stride else 0):
        total = np.inf
        if features.slack.size == 0:
            total = _bound(metric, nearest[i, 0], to_grid[i] + farthest, d, precision)
        elif nearest[i, 0] < _LARGEST:
            total = _farthest(plan, queries, i, Y, places[i], few, rule)
        cutoffs[i] = min(cutoffs[i], _cutoff(metric, total, d, precision))
    return y_last, y_last


def packed(metric: Metric, bounds: Bounds, n_threads: int) -> Packed:
    """Return the rows of Y, rounded and packed, of which bounds are made."""
    rows, dtype = bounds.y.rows, tile_shapes.rounded_dtype(metric)
    m, d = rows.shape
    plan = panels.plan(metric, dtype, 1, d)
    columns = (-(-d // plan.columns_per_step) + tile_shapes.norm_steps(dtype)) * plan.columns_per_step
    room = -(-m // POINTS_STEP) * POINTS_STEP
    kept, radius = aligned((room * columns,), dtype), np.zeros(room // KEYS_AT_ONCE)
    rounding = bounds.grid._replace(origin=readonly(bounds.grid.origin)), _sides(rows.dtype, dtype)[1]
    features = _principal.Features(readonly(rows), readonly(bounds.y.slack))

    def work(first: int, last: int) -> None:
        some = first * POINTS_STEP, min(m, last * POINTS_STEP)
        _pack_all(plan, rounding, features, *some, kept, radius)

    most = max(1, panels.CALL_ELEMENTS // (8 * d * POINTS_STEP))
    parallel.run_ranges(work, room // POINTS_STEP, n_threads, most=most)
    return Packed(kept, radius)


@kernel
def _pack_all(plan, rounding, features, first, last, panels, radius):  # type: ignore[no-untyped-def]
    """Round and pack some rows of Y, in blocks of `POINTS_STEP`, of which the first begins here."""
    shape, columns = (plan.tile_points, features.rows.shape[1]), panels.size // (radius.size * KEYS_AT_ONCE)
    rounded = aligned_like(shape[0] * shape[1], panels).reshape(shape)
    for left in range(first, last, POINTS_STEP):
        own = panels[left * columns : (left + POINTS_STEP) * columns]
        around = radius[left // KEYS_AT_ONCE : (left + POINTS_STEP) // KEYS_AT_ONCE]
        _pack_rounded(plan, rounding, features, left, min(POINTS_STEP, last - left), 1, rounded, own, around)


@inner
def _pack_rounded(plan, rounding, features, left, size, stride, rounded, panels, radius):  # type: ignore[no-untyped-def]
    """Pack `size` rounded rows of Y, `stride` apart, and note the largest distance to the grid among each 32."""
    grid, side = rounding
    points = plan.tile_points
    radius[:] = 0
    for top in range(0, size, points):
        bottom = min(size, top + points)
        for j in range(top, bottom):
            place, row = j // KEYS_AT_ONCE, left + j * stride
            to_grid = _round_row(plan.metric, features.rows[row], grid, side, rounded[j - top])
            if features.slack.size:
                to_grid += features.slack[row] * np.float64(grid.scale) * (1 + 1e-9)
            radius[place] = max(radius[place], to_grid)
        pack_part(plan, frozen(rounded), np.intp(0), bottom - top, panels, top, size)


@inner
def _find_nearest(row, size, left, stride, own, groups, nearest, places):  # type: ignore[no-untyped-def]
    """Offer the byte totals of a block of a sample to a heap of the k smallest."""
    for begin in range(0, size, KEYS_AT_ONCE):
        candidates = comparisons.below(row, begin, nearest[0], _LARGEST, _LARGEST)
        if size - begin < KEYS_AT_ONCE:
            candidates &= (1 << (size - begin)) - 1
        while candidates:
            j = begin + comparisons.lowest_bit(candidates)
            candidates &= candidates - 1
            if row[j] < nearest[0] and (groups.size == 0 or groups[left + j * stride] != own):
                replace_root(nearest, places, nearest.size, row[j], left + j * stride)


@inner
def _are_apart(queries, i, features, j, scale):  # type: ignore[no-untyped-def]
    """Whether features as they are, in float64, prune a pair."""
    x, y = queries.features.rows[i], features.rows[j]
    total = 0.0
    for c in range(x.size):
        difference = np.float64(x[c]) - np.float64(y[c])
        total += difference * difference
    reach = queries.cutoffs[i] / scale + queries.features.slack[i] + features.slack[j]
    return total > reach * reach * (1 + 1e-9)


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
def _make_totals(plan, X, i, Y, places, few):  # type: ignore[no-untyped-def]
    """Make the totals of row i of X and a vector of rows of Y, with the operations of a tile in their order."""
    columns = Y.shape[1]
    chunk = chunk_length(columns, plan.chunk_steps * plan.columns_per_step)
    for begin in range(0, columns, chunk):
        tiles.accumulate_few(plan.metric, X, i, Y, places, begin, min(columns, begin + chunk), few)


@inner
def _offer_waiting(plan, queries, i, Y, few, rule):  # type: ignore[no-untyped-def]
    """Make the distances of a query's waiting candidates, and offer them to its heap."""
    X, keys, indices, waiting = queries.rows, queries.keys, queries.indices, queries.waiting[i]
    count = queries.counts[i]
    if count == 0:
        return
    queries.counts[i] = 0
    waiting[count:] = waiting[count - 1]
    _make_totals(plan, X, i, Y, waiting, few)
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
