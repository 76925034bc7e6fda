"""Panels: how work on distances is cut, how rows of Y are packed, and how blocks of totals are made from them.

Rows of Y are copied into panels before they are used, so that a vector holds one column of many points::

    step 0: point 0 .. point 95 | step 1: point 0 .. point 95 | ...

A step is one column (eight for uint8). The copy pads incomplete panels with zeros, so that tiles have no
tails; it costs O(m D) for each `TASK_ROWS` rows of X. The values of X that a tile takes are copied as
well where they must be (see `tiles.accumulate`), once for all panels of a block. A block is at most `X_ROWS` x
`Y_POINTS` distances.

The columns are taken in chunks: one chunk of every panel stays in the second-level cache while all rows
of a block pass by, and the rounding error of a float sum grows with (chunk + number of chunks) instead
of with D. Chunks are of about equal length, because a short one is all overhead. A block of Y is packed chunk by
chunk, panel after panel in each, so that tiles read what lies in order, and may ask for it ahead.

`PanelPlan` says all this in numbers. `distances_of_block` makes a block of totals, which `fill` writes as distances
(for `pairwise`) and others look through (for `neighbors`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..runtime.jit import inner, kernel, readonly
from ..runtime.memory import CACHE_LINE
from . import scales, tile_shapes, tiles
from ._conclusions import conclude
from .arguments import DEFINITIONS, L2, METRIC_CODES, Metric, result_dtype

__all__ = [
    "KEY_DTYPES",
    "PanelPlan",
    "aligned_like",
    "chunk_length",
    "distances_of_block",
    "fill",
    "limits",
    "ordinary_totals",
    "pack",
    "pack_part",
    "plan",
    "scattered",
    "scattered_place",
    "scattering_step",
    "seconds",
    "task_rows",
    "totals",
    "whole_steps",
    "y_ranges",
]

Item = TypeVar("Item")

#: Bytes of a row in a chunk, give or take a half: fewer where each value of X takes the room of a vector.
CHUNK_BYTES, BROADCAST_CHUNK_BYTES = 1024, 512

#: Steps of a chunk of bits, give or take a half: their counts are added up in bytes.
_BITS_CHUNK = 20

#: One chunk of all panels of a block: half of a usual second-level cache.
_BLOCK_BYTES = 480 << 10

#: Most rows and points of a block: multiples of all tile heights (4, 6) and of `POINTS_STEP`.
X_ROWS, Y_POINTS = 84, _BLOCK_BYTES // BROADCAST_CHUNK_BYTES

#: Panels of long rows are fewer, but enough to repay the broadcasting of X.
_PANEL_BYTES = 8 << 20
_FEWEST_POINTS = 288

#: With so few rows of X all time goes into packing, so what is packed shall be used while it is in cache.
_FEW_ROWS = 8

#: Points of a block are multiples of this: of all tile widths, and of the keys that are compared at once.
POINTS_STEP = 96

#: Seconds of a byte of the differences of all pairs, roughly, and bytes that come on top of those of each pair.
_BYTE_SECONDS, _PAIR_BYTES = 6e-12, 256

#: Most rows of X in one task; every panel of Y that it packs is used for all of them.
TASK_ROWS = 12 * X_ROWS

#: Pairs x columns that one compiled call may do: about 0.05 s at 20 Gelem/s.
CALL_ELEMENTS = 1 << 30

#: The integers whose order is that of totals: see `neighbors`.
KEY_DTYPES = {np.dtype(name): np.dtype(f"i{np.dtype(name).itemsize}") for name in ("f4", "f8", "i4", "i8")}


class PanelPlan(NamedTuple):
    """How distances are cut, on Numba's target."""

    #: Its number: see `arguments.METRIC_CODES`.
    metric: int
    tile_rows: int
    tile_points: int
    #: Rows, and steps, that are transposed at once when Y is packed.
    transpose_width: int
    columns_per_step: int
    #: Steps of a chunk, give or take a half.
    chunk_steps: int
    #: Size of the workspace in which values of X are broadcast, or copied.
    workspace: int
    #: Most points of a block.
    block_points: int


@lru_cache(maxsize=256)
def plan(metric: Metric, dtype: np.dtype[Any], n: int, d: int) -> PanelPlan:
    """Return how distances of `n` rows of `d` columns are cut."""
    tile, copies = tile_shapes.tile_shape(metric, dtype), tile_shapes.copies(metric, dtype)
    columns = tile_shapes.columns_per_lane(dtype)
    chunk_bytes = BROADCAST_CHUNK_BYTES if dtype.kind == "f" and copies > 1 else CHUNK_BYTES
    chunk = _BITS_CHUNK if dtype == tile_shapes.BITS else chunk_bytes // (columns * dtype.itemsize)
    points = _PANEL_BYTES // max(1, d * dtype.itemsize) // POINTS_STEP * POINTS_STEP
    points = max(_FEWEST_POINTS, min(_BLOCK_BYTES // chunk_bytes, points))
    return PanelPlan(
        metric=METRIC_CODES.get(metric, L2),  # what is compiled alone is told by its dtypes
        tile_rows=tile.rows,
        tile_points=tile.points,
        transpose_width=tile_shapes.transpose_width(dtype),
        columns_per_step=columns,
        chunk_steps=chunk,
        workspace=tile.rows
        * (2 * chunk * columns * copies if copies > 1 else tile_shapes.X_PITCH_BYTES // dtype.itemsize),
        block_points=POINTS_STEP if n <= _FEW_ROWS else points,
    )


def seconds(n: int, m: int, row_bytes: int) -> float:
    """Return roughly how long the distances between n and m rows take one core."""
    return n * m * (row_bytes + _PAIR_BYTES) * _BYTE_SECONDS


def task_rows(n: int, n_threads: int) -> int:
    """Return the rows of X of one task: enough to repay the packing of Y, few enough to feed every thread."""
    tasks = n_threads * -(-n // (n_threads * TASK_ROWS))  # as many for every thread
    return max(1, min(n, max(64, -(-n // max(1, tasks)))))


def whole_steps(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return rows of X as tiles read them: rows of bytes padded with zeros to groups of eight columns.

    Where panels have a step beyond their columns, so have these rows; it holds the sum of squares.
    """
    columns = tile_shapes.columns_per_lane(rows.dtype)
    n, d = rows.shape
    steps, norms = -(-d // columns), tile_shapes.norm_steps(rows.dtype)
    if d % columns or norms:
        lacking = 128 if rows.dtype == tile_shapes.HALVED else 0
        padded = np.full((n, (steps + norms) * columns), -lacking, rows.dtype)
        padded[:, :d] = rows
        if norms:
            _write_norms(padded, lacking)
        rows = padded
    return readonly(rows)


@kernel
def _write_norms(rows, lacking):  # type: ignore[no-untyped-def]
    """Write the sum of squares of a row's bytes, each with what it is `lacking`, into the last eight."""
    steps = rows.shape[1] - 8
    for i in range(rows.shape[0]):
        total = np.int64(0)
        for value in rows[i, :steps]:
            whole = np.int64(value) + lacking
            total += whole * whole
        rows[i, steps:].view(np.int64)[0] = total


def y_ranges(x_rows: int, y_first: int, y_last: int, per_pair: int) -> list[tuple[int, int]]:
    """Cut rows of Y so that no compiled call does over `CALL_ELEMENTS`, or the fewest rows that are worth one.

    `per_pair` is the work that a pair makes, in columns: its own, and what is done with the distance.
    """
    step = max(Y_POINTS, CALL_ELEMENTS // max(1, x_rows * per_pair) // Y_POINTS * Y_POINTS)
    return [(first, min(y_last, first + step)) for first in range(y_first, y_last, step)]


def _scattered_place(turn, count, step):  # type: ignore[no-untyped-def]
    """Return which of `count` places comes at a `turn`: the first, the last, then others from all over."""
    return 1 + (count - 2 + (turn - 1) * step) % (count - 1) if turn else 0


def _step(count):  # type: ignore[no-untyped-def]
    """Return a step that leads to all of `count` places, to and fro: about 0.38 of them, and prime to their number."""
    step = max(1, int(0.381966 * count))
    while math.gcd(step, count) != 1:
        step += 1
    return step


scattered_place, scattering_step = inner(_scattered_place), inner(_step)


def scattered(items: Sequence[Item]) -> Iterator[Item]:
    """Yield items from all over.

    The fewer rows of Y are nearer than all before them, the sooner heaps are done. In random order these are few,
    but rows often come sorted by something. So they are visited in an order that has little to do with theirs: the
    first ones first, since of equals the first is nearer, then the last ones, since the next query is often like them.
    """
    step = _step(max(1, len(items) - 1))
    for turn in range(len(items)):
        yield items[_scattered_place(turn, len(items), step)]


@cache
def ordinary_totals(metric: Metric, dtype: np.dtype[Any], d: int) -> np.ndarray[Any, Any]:
    """Return the least and the most that a total may be without being made again in another scale.

    Of squared L2 distances of floats these are bounds that a total can pass, see `scales`; of all others the range of
    the totals' dtype. So kernels also learn what to allocate.
    """
    total = KEY_DTYPES[dtype] if metric == "inner_product" else result_dtype(metric, dtype, d, squared=True)
    if total.kind == "i":
        least = np.iinfo(total).min if metric == "inner_product" else 0
        return readonly(np.array([least, np.iinfo(total).max], total))
    return readonly(np.array(scales.ordinary(dtype, d) if DEFINITIONS[metric].root else (0, np.inf), total))


@cache
def limits(metric: Metric, dtype: np.dtype[Any], d: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return `ordinary_totals`, and their bits, which are whole numbers in the same order."""
    ordinary = ordinary_totals(metric, dtype, d)
    return ordinary, ordinary.view(KEY_DTYPES[ordinary.dtype])


def totals(metric: Metric, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the totals of so few pairs that they are made in one compiled call."""
    ordinary, keys = limits(metric, x.dtype, x.shape[1])
    found = np.empty((len(x), len(y)), ordinary.dtype)
    rows, cut = whole_steps(x), tuple(plan(metric, x.dtype, *x.shape))
    fill(cut, False, False, False, rows, 0, readonly(y), 0, len(y), ordinary, keys, found)
    return found


@inner
def aligned_like(size, like):  # type: ignore[no-untyped-def]
    """Return an uninitialised flat array of `like`'s dtype that starts at a cache line."""
    spare = CACHE_LINE // like.itemsize
    array = np.empty(size + spare, like.dtype)
    skip = (-array.ctypes.data % CACHE_LINE) // like.itemsize
    return array[skip : skip + size]


@inner
def pack(plan, source, first, last, panels):  # type: ignore[no-untyped-def]
    """Copy rows ``first:last`` of `source` into panels, padded with zeros."""
    pack_part(plan, source, first, last, panels, np.intp(0), last - first)


@inner
def pack_part(plan, source, first, last, panels, begin, points):  # type: ignore[no-untyped-def]
    """Pack rows as those of a block of so many `points` that come from `begin` on, the first point of a panel."""
    width, side, columns = plan.tile_points, plan.transpose_width, plan.columns_per_step
    n_columns = source.shape[1]
    norms = tiles.has_norm_step(panels) and plan.metric == L2
    steps = -(-n_columns // columns)
    chunk = chunk_length(steps, plan.chunk_steps)
    height = -(-points // width) * width
    stride = width * columns
    for top in range(first, last, width):
        point = begin + top - first
        for lanes in range(0, width, side):
            row, square = top + lanes, lanes + side <= width and top + lanes + side <= last
            for step in range(0, max(steps, 1), max(chunk, 1)):
                length = min(chunk, steps - step)
                base = (step * height + point * length + lanes) * columns
                whole, done = min(length, n_columns // columns - step), 0
                while square and side <= whole and done < whole:
                    at = min(done, whole - side)  # the last square may lie over the one before
                    tiles.transpose(
                        source, row * n_columns + (step + at) * columns, n_columns, panels, base + at * stride, stride
                    )
                    done = at + side
                for lane in range(min(side, width - lanes)):
                    at = base + done * stride + lane * columns
                    if row + lane < last and done < length:
                        _pack_rest(source[row + lane], step + done, step + length, columns, panels[at:], stride)
                    elif done < length:
                        for place in range(at, at + (length - done) * stride, stride):
                            panels[place : place + columns] = 0
                if norms:
                    tiles.norm_terms(
                        panels, base, stride, length, (steps * height + point + lanes) * columns, step == 0
                    )


@inner
def _pack_rest(row, done, steps, columns, panel, stride):  # type: ignore[no-untyped-def]
    """Copy what was not transposed at once: a row's columns from step `done` on, then zeros."""
    for step in range(done, steps):
        for column in range(columns):
            place = step * columns + column
            panel[(step - done) * stride + column] = row[place] if place < row.size else 0


@inner
def chunk_length(steps, usual):  # type: ignore[no-untyped-def]
    """Return the steps of a chunk: about the usual number, and of all chunks but the last the same."""
    return -(-steps // max(1, (steps + usual // 2) // usual))


@inner
def distances_of_block(plan, X, top, bottom, Y, begin, end, broadcast_x, totals):  # type: ignore[no-untyped-def]
    """Fill ``totals[: bottom - top, begin:end]`` (and its padding) from rows of X and a block of Y, of `end` points.

    `begin` is the first point of a panel. The totals are what kernels compare (L1, squared L2, L-infinity);
    `broadcast_x` is work space, of the size that the plan says.
    """
    points, columns = plan.tile_points, plan.columns_per_step
    norms = tiles.has_norm_step(Y)
    steps = X.shape[1] // columns - norms
    chunk = chunk_length(steps, plan.chunk_steps)
    height = -(-end // points) * points
    count = (height - begin) // points
    for step in range(0, max(steps, 1), max(chunk, 1)):  # without columns one empty chunk writes the zeros
        length = min(chunk, steps - step)
        y_at = (step * height + begin * length) * columns
        _accumulate(plan.metric, X, top, bottom, step, Y, y_at, count, length, broadcast_x, totals, begin, step == 0)
    if norms and plan.metric == L2:
        y_at = (steps * height + begin) * columns
        for row in range(bottom - top):
            x_at = (top + row + 1) * X.shape[1] - columns
            tiles.complete(X, x_at, Y, y_at, height - begin, totals, row, begin)
    for row in range(bottom - top):
        conclude(Y, totals, row, begin, end)


# A function of its own: with the code of all metrics written into the loops above, L2 took a quarter longer in some
# processes, and compiling took as long.
@inner
def _accumulate(metric, X, top, bottom, step, Y, y_at, count, length, broadcast_x, totals, begin, first):  # type: ignore[no-untyped-def]
    tiles.accumulate(metric, X, top, bottom, step, Y, y_at, count, length, broadcast_x, totals, begin, first)


@kernel
def fill(  # type: ignore[no-untyped-def]
    cut, root, same, symmetric, X, first, Y, y_first, y_last, ordinary, ordinary_keys, out
):
    """Write ``out[first : first + len(X), y_first:y_last]``; of a symmetric one the upper triangle and its mirror.

    Returns whether there are totals below and above the `ordinary` ones; where X and Y are the `same`, those of rows
    with themselves do not count. `cut` is the plan as a plain tuple, which is handed over faster than a named one.
    """
    plan = PanelPlan(*cut)
    points, at_once = plan.tile_points, plan.block_points
    n = X.shape[0]
    height = -(-min(X_ROWS, n) // plan.tile_rows) * plan.tile_rows
    width = -(-min(at_once, y_last - y_first) // points) * points
    panels, broadcast_x = aligned_like(width * X.shape[1], Y), aligned_like(plan.workspace, Y)
    totals = aligned_like(height * width, ordinary).reshape((height, width))
    small, large = False, False
    for left in range(y_first, y_last, at_once):
        right = min(y_last, left + at_once)
        if symmetric and right <= first:
            continue
        pack(plan, Y, left, right, panels)
        for top in range(0, n, X_ROWS):
            bottom = min(n, top + X_ROWS)
            # Of a symmetric result the panels that are wholly to the left of the diagonal come from the mirror.
            begin = max(0, first + top - left) // points * points if symmetric else 0
            if begin < right - left:
                distances_of_block(plan, X, top, bottom, panels, begin, right - left, broadcast_x, totals)
                place = first + top, first + bottom, left, right
                odd = _finish(totals, root, same, symmetric, *place, ordinary, ordinary_keys, out)
                small, large = small or odd[0], large or odd[1]
    return small, large


@inner
def _finish(  # type: ignore[no-untyped-def]
    totals, root, same, symmetric, top, bottom, left, right, ordinary, ordinary_keys, out
):
    """Move a block's totals to the result, under the root where one is asked for; tell if some are not ordinary."""
    keys = totals.view(ordinary_keys.dtype)
    least, most = ordinary_keys[0], ordinary_keys[1]
    small, large = False, False
    begin = max(left, top) if symmetric else left
    for i in range(top, bottom):
        source, target = totals[i - top, begin - left : right - left], out[i, begin:right]
        row, lowest, highest = keys[i - top, begin - left : right - left], most, least
        own = ordinary[0]
        if same and begin <= i < right:
            own, source[i - begin] = source[i - begin], own
        if root:
            for j in range(target.size):  # a root takes so long that the rest is free
                target[j] = np.sqrt(source[j])
                lowest = min(lowest, row[j])
                highest = max(highest, row[j])
        elif least > 0:
            for j in range(target.size):
                target[j] = source[j]
                lowest = min(lowest, row[j])
                highest = max(highest, row[j])
        else:
            for j in range(target.size):
                target[j] = source[j]
        if (lowest < least and not small) or (highest > most and not large):  # if not because of NaN
            for j in range(source.size):
                small |= source[j] < ordinary[0]
                large |= source[j] > ordinary[1]
        if same and begin <= i < right:
            target[i - begin] = np.sqrt(own) if root else own
    if symmetric:
        for j in range(max(left, bottom), right):
            for i in range(top, bottom):
                out[j, i] = out[i, j]
    return small, large
