"""Sums over rows by cells: `CELL` rows each, added up in a binary tree over the cells' numbers.

The tree is that of the numbers alone: cells 0 and 1 are added, 2 and 3, then these two sums, and so on; what has no
partner waits for one. So the bits depend neither on threads nor on how rows are cut into ranges, and whoever has rows
that begin at a cell can add up sums of others. A sum goes through log2(cells) additions.

Ranges have a power of two of cells. One thread works through a range and keeps the sums that wait on a stack: with c
cells done there are as many as c has bits that are set, the next cell's place is above them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime import parallel
from ..runtime.jit import inner

__all__ = ["CELL", "call_rows", "end_of_cell", "place_of", "set_bits", "sums_of_cells"]

Array = NDArray[np.float64]

CELL = 1024

#: Ranges at most, seconds of one at least, as calls have their cost, and bytes of all their sums; but 4 there may be.
_RANGES_PER_THREAD, _RANGE_SECONDS, _RANGE_BYTES = 16, 4e-5, 1 << 26


def sums_of_cells(
    add: Callable[[int, int, Array], Any],
    n: int,
    shape: tuple[int, ...],
    *,
    seconds: float,
    call_rows: int,
    n_threads: int | None,
) -> Array:
    """Return the sum over `n` rows.

    Parameters
    ----------
    add : callable
        ``add(first, last, stack)`` sums the rows ``first:last`` with `place_of` and `end_of_cell`.
    n : int
        Rows, one or more.
    shape : tuple of int
        Shape of a sum.
    seconds : float
        What it takes one thread, roughly: see `parallel`.
    call_rows : int
        Rows of a call of `add`: a divisor or a multiple of `CELL`.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Notes
    -----
    Work space: a sum for each range, and for each thread one more than log2 of a range's cells.
    """
    threads = parallel.resolve(n_threads, seconds=seconds)
    if threads == 1 and n <= min(CELL, call_rows):  # one cell, at once: all else would be a tenth of the time
        stack = np.empty((1, *shape))
        add(0, n, stack)
        return stack[0]
    limits = _RANGES_PER_THREAD * threads, int(seconds / _RANGE_SECONDS), _RANGE_BYTES // (8 * math.prod(shape) + 1)
    most = 1 if threads == 1 else max(4, min(limits))
    cells = -(-n // CELL)
    length = 1 << (-(-cells // most) - 1).bit_length()
    rows, ranges = length * CELL, -(-cells // length)
    sums = np.empty((ranges, *shape))

    def work(number: int) -> Iterator[None]:
        stack = np.empty((length.bit_length(), *shape))
        bottom = min(n, (number + 1) * rows)
        for first in range(number * rows, bottom, call_rows):
            add(first, min(bottom, first + call_rows), stack)
            yield
        sums[number] = stack[0]

    parallel.run(work, ranges, threads)
    while len(sums) > 1:
        even, odd = sums[::2], sums[1::2]
        even[: len(odd)] += odd
        sums = even
    return sums[0]


def call_rows(products: int, row_products: int) -> int:
    """Return how many rows a compiled call may take: so many multiplications, in whole cells or by a part of one."""
    return max(32, 1 << (products // max(1, row_products)).bit_length() >> 1)


@inner
def set_bits(number):  # type: ignore[no-untyped-def]
    """How many bits of a number are set."""
    count = 0
    while number > 0:
        count += number % 2
        number //= 2
    return count


@inner
def place_of(row, stack):  # type: ignore[no-untyped-def]
    """Return the sum of the cell that has `row`, cleared if it begins there."""
    place = stack[set_bits(row // CELL % (1 << (stack.shape[0] - 1)))]
    if row % CELL == 0:
        place[:] = 0.0
    return place


@inner
def end_of_cell(last, n, stack):  # type: ignore[no-untyped-def]
    """Add up what has a partner, if a cell ends at row `last`; all of it if the `n` rows end there."""
    if last % CELL > 0 and last < n:
        return
    done = (last - 1) // CELL % (1 << (stack.shape[0] - 1)) + 1
    top = set_bits(done - 1)
    while top > 0 and (done % 2 == 0 or last == n):
        top -= 1
        for c in range(stack.shape[1]):
            target, source = stack[top, c], stack[top + 1, c]
            for d in range(target.size):
                target[d] += source[d]
        done //= 2
