"""L2 distances whose squares leave the range of their dtype: found among others, and made again in another scale.

`scales` says which pairs these are and how their distances come about. The totals of rescaled rows are made by the
same tiles as all others, so their bits, too, depend on the two rows alone. Nothing of this is done, or compiled, unless
there are such pairs: the kernels tell, as a by-product of what they do anyway, whether there may be some.

Equal rows have the total 0, which is too small as well, but right. They are common, so they are sorted out first by
comparing the rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime import parallel
from . import panels, scales

__all__ = ["PAIRS", "are_equal", "correct", "totals_again"]

#: Pairs of a block of a result, and its rows.
PAIRS, _ROWS = 1 << 18, 64

#: Pairs of rows that are compared at once, and about so many first, to see whether it is worth it.
_COMPARED, _SAMPLE = 1 << 12, 64


def correct(
    x: NDArray[Any],
    y: NDArray[Any],
    out: NDArray[Any],
    rectangles: list[tuple[tuple[int, int, int, int], bool, bool]],
    squared: bool,
    symmetric: bool,
    n_threads: int,
) -> None:
    """Make those L2 distances in `rectangles` of a result again whose totals left their range.

    A rectangle is the first and last row of X, and of Y; with it comes whether it has totals that are too small, and
    whether it has such that are too large.
    """
    columns = x.shape[1]
    least, _ = scales.ordinary(x.dtype, columns)
    border = least if squared else math.sqrt(least)
    width = max(1, min(PAIRS, panels.CALL_ELEMENTS // max(1, columns)) // _ROWS)

    # Before a large result is searched it is asked whether its values can differ by so little at all.
    only_equal = min(out.shape) >= _ROWS and min(_least_difference(x), _least_difference(y)) >= math.sqrt(least)

    def correct_block(top: int, bottom: int, left: int, right: int, large: bool) -> None:
        part = out[top:bottom, left:right]
        extreme = np.isinf(part) if large else part < border
        if not large:
            i, j = np.nonzero(extreme)
            some = slice(None, None, i.size // _SAMPLE + 1)
            if are_equal(x, y, top + i[some], left + j[some]).all():
                extreme[i, j] = ~are_equal(x, y, top + i, left + j)
        i, j = np.flatnonzero(extreme.any(axis=1)), np.flatnonzero(extreme.any(axis=0))
        if not i.size:
            return
        totals = totals_again(x[top + i], y[left + j], large)
        if squared:
            again = scales.squares(totals, x.dtype, columns)
        else:
            again = scales.distances(totals, large, x.dtype, columns)
        part[extreme] = again[extreme[np.ix_(i, j)]]
        if symmetric:
            i, j = np.nonzero(extreme)
            out[left + j, top + i] = part[extreme]

    def work(task: int) -> Iterator[None]:
        (first, last, y_first, y_last), *extreme = rectangles[task]
        kinds = [large for large in (False, True) if extreme[large] and (large or not only_equal)]
        for large, top in itertools.product(kinds, range(first, last, _ROWS)):
            for left in range(y_first, y_last, width):
                correct_block(top, min(last, top + _ROWS), left, min(y_last, left + width), large)
                yield

    parallel.run(work, len(rectangles), n_threads)


def totals_again(x: NDArray[Any], y: NDArray[Any], large: bool) -> NDArray[np.float64]:
    """Return the totals of rows in the scale of those that are too large, or too small."""
    return panels.totals("l2", scales.rescaled(x, large), scales.rescaled(y, large))


def are_equal(x: NDArray[Any], y: NDArray[Any], i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether rows `i` of X equal rows `j` of Y, pair by pair."""
    equal = np.ones(i.size, np.bool_)
    for first in range(0, i.size, _COMPARED):
        some = np.arange(first, min(i.size, first + _COMPARED))
        left, width = 0, 1
        while left < x.shape[1] and some.size:  # a few columns tell most unequal rows apart
            columns = slice(left, left + width)
            alike = (x[i[some], columns] == y[j[some], columns]).all(axis=1)
            equal[some[~alike]] = False
            some, left, width = some[alike], left + width, 8 * width
    return equal


def _least_difference(rows: NDArray[Any]) -> float:
    """Return a bound of all differences between values that are not equal, from the smallest of them but 0."""
    smallest, step = math.inf, max(1, PAIRS // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        sizes = np.abs(rows[first : first + step])
        smallest = min(smallest, float(sizes.min(where=sizes > 0, initial=np.inf)))
    return smallest * float(np.finfo(rows.dtype).eps) / 2
