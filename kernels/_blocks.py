"""Blocks of distances: packed panels, register tiles over them, and how work is cut.

Rows of Y are copied into panels before they are used, so that a vector holds one column of many points::

    step 0: point 0 .. point 127 | step 1: point 0 .. point 127 | ...

A step is one column (eight for uint8). The copy pads incomplete panels with zeros, so that tiles have no
tails; it costs O(m D) for each `TASK_ROWS` rows of X. Rows of X are read where they lie. A block is at
most `X_ROWS` x `Y_POINTS` distances, whose panels and totals stay in the second-level cache.

The columns are taken in chunks of 1,024 bytes: one chunk of every panel is in cache at a time, and the
rounding error of a float sum grows with (chunk + number of chunks) instead of with D.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from . import _simd
from ._jit import inner, readonly
from ._validate import Metric, result_dtype

__all__ = [
    "METRIC_CODES",
    "aligned",
    "distances_of_block",
    "empty_totals",
    "pack",
    "plan",
    "task_rows",
    "whole_steps",
    "y_ranges",
]

METRIC_CODES = {"l1": 0, "l2": 1, "linf": 2}

CHUNK_BYTES = 1024
X_ROWS, Y_POINTS = 252, 256  # rows: a multiple of all tile heights (2, 4, 6)

#: Most rows of X in one task; every panel of Y that it packs is used for all of them.
TASK_ROWS = 4 * X_ROWS

#: Pairs x columns that one compiled call may do: about 0.05 s at 20 Gelem/s.
CALL_ELEMENTS = 1 << 30


@cache
def plan(metric: Metric, dtype: np.dtype[Any]) -> tuple[int, int, int, int, int]:
    """Return how distances between rows of one dtype by one metric are cut, on Numba's target.

    Rows and points of a tile, side of the square that is transposed at once, columns of a step, steps
    of a chunk: a plain tuple, because a named one takes longer to hand to a kernel than all the rest.
    """
    tile = _simd.tile_shape(metric, dtype)
    columns = _simd.group(dtype)
    return tile.rows, tile.points, _simd.square(dtype), columns, CHUNK_BYTES // (columns * dtype.itemsize)


def task_rows(n: int, n_threads: int) -> int:
    """Rows of X for one task: enough to repay the packing of Y, few enough to feed every thread."""
    return max(1, min(n, TASK_ROWS, max(64, -(-n // n_threads))))


def whole_steps(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return rows of X as tiles read them: uint8 rows padded with zeros to groups of eight columns."""
    columns = _simd.group(rows.dtype)
    n, d = rows.shape
    if d % columns:
        padded = np.zeros((n, -(-d // columns) * columns), rows.dtype)
        padded[:, :d] = rows
        rows = padded
    return readonly(rows)


def y_ranges(x_rows: int, y_first: int, y_last: int, per_pair: int) -> Iterator[tuple[int, int]]:
    """Cut rows of Y so that no compiled call does over `CALL_ELEMENTS`.

    `per_pair` is the work that a pair makes, in columns: its own, and what is done with the distance.
    """
    step = max(Y_POINTS, CALL_ELEMENTS // max(1, x_rows * per_pair) // Y_POINTS * Y_POINTS)
    for first in range(y_first, y_last, step):
        yield first, min(y_last, first + step)


@cache
def empty_totals(metric: Metric, dtype: np.dtype[Any], d: int) -> np.ndarray[Any, Any]:
    """Return an empty array of the dtype that totals have: it tells kernels what to allocate."""
    return readonly(np.empty(0, result_dtype(metric, dtype, d, squared=True)))


@inner
def aligned(size, like):  # type: ignore[no-untyped-def]
    """Return an uninitialised flat array of `like`'s dtype that starts at a cache line."""
    spare = 64 // like.itemsize
    array = np.empty(size + spare, like.dtype)
    skip = (-array.ctypes.data % 64) // like.itemsize
    return array[skip : skip + size]


@inner
def pack(source, first, last, width, side, columns, panels):  # type: ignore[no-untyped-def]
    """Copy rows ``first:last`` of `source` into panels of `width` rows, padded with zeros."""
    n_columns = source.shape[1]
    steps = -(-n_columns // columns)
    stride = width * columns
    for top in range(first, last, width):
        base = (top - first) * steps * columns
        for lanes in range(0, width, side):
            row = top + lanes
            done = 0
            if lanes + side <= width and row + side <= last:
                while (done + side) * columns <= n_columns:
                    at = base + done * stride + lanes * columns
                    _simd.transpose(source, row * n_columns + done * columns, n_columns, panels, at, stride)
                    done += side
            for lane in range(lanes, min(width, lanes + side)):
                at = base + done * stride + lane * columns
                if top + lane < last:
                    _pack_rest(source[top + lane], done, steps, columns, panels[at:], stride)
                else:
                    for step in range(steps - done):
                        panels[at + step * stride : at + step * stride + columns] = 0


@inner
def _pack_rest(row, done, steps, columns, panel, stride):  # type: ignore[no-untyped-def]
    """Copy what a square could not take: a row's columns from step `done` on, then zeros."""
    for step in range(done, steps):
        for column in range(columns):
            place = step * columns + column
            panel[(step - done) * stride + column] = row[place] if place < row.size else 0


@inner
def distances_of_block(metric, plan, X, top, bottom, Y, y_points, totals):  # type: ignore[no-untyped-def]
    """Fill ``totals[: bottom - top, :y_points]`` (and its padding) from rows of X and packed panels of Y.

    The totals are L1, squared L2 or L-infinity distances.
    """
    rows, points, _, columns, chunk = plan
    steps = X.shape[1] // columns
    for begin in range(0, max(steps, 1), chunk):  # without columns one empty chunk writes the zeros
        length = min(chunk, steps - begin)
        first = begin == 0
        for column in range(0, y_points, points):
            y_at = (column * steps + begin * points) * columns
            for row in range(0, bottom - top, rows):
                at = top + row
                if metric == 0:
                    _simd.accumulate("l1", X, at, begin, Y, y_at, length, totals, row, column, first)
                elif metric == 1:
                    _simd.accumulate("l2", X, at, begin, Y, y_at, length, totals, row, column, first)
                else:
                    _simd.accumulate("linf", X, at, begin, Y, y_at, length, totals, row, column, first)
