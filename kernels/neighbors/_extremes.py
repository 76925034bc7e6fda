"""Neighbours whose squared L2 distances leave the range of their dtype, put in the right order.

A search by totals alone cannot tell those apart that are too small, or too large: `distances.extremes` makes them again
in another scale, and here those that are wanted are found among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..distances import extremes, panels, scales
from ..distances.extremes import are_equal, totals_again
from ..runtime import parallel
from . import _selection

__all__ = ["correct_nearest"]

#: Neighbours that are put in order together, of so many queries at most: totals of all are made with those of all.
_NEIGHBORS, _QUERIES = 1 << 12, 16

_LEFT_OUT = np.iinfo(np.int64).max


def correct_nearest(
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    totals: NDArray[Any],
    indices: NDArray[np.intp],
    n_threads: int,
    nearest: Callable[..., NDArray[np.intp]],
    root: bool,
) -> NDArray[Any]:
    """Return the distances of the neighbours that were found by `totals` alone (n, k), and put `indices` right.

    Without the `root` it is the squares that are returned, in the order of the distances.

    A row that has its worst neighbour among the ordinary ones has all that are too small. One whose k neighbours are
    equal to it has the right ones. Of another whose worst neighbour is too small or too large, the others of its kind
    are searched again: ``nearest(x, x_groups, y, y_groups, k)`` returns indices of neighbours by totals alone.
    """
    k, columns = totals.shape[1], x.shape[1]
    least, most = scales.ordinary(x.dtype, columns)
    distances: NDArray[Any] = np.sqrt(totals) if root else totals.copy()
    small, large = totals < least, totals > most
    i, j = np.nonzero(small)
    small[i, j] = ~are_equal(x, y, i, indices[i, j])
    i = np.flatnonzero(large.any(axis=1))
    large[i] &= np.isfinite(x[i]).all(axis=1)[:, np.newaxis]  # else infinity is right
    unclear = np.flatnonzero(small.any(axis=1) | large.any(axis=1))
    searched = small.any(axis=1) & (totals[:, -1] < least), large[:, -1]
    # So many neighbours of the kinds up to too small, or up to ordinary, must be found.
    wanted = np.where(searched[0], k, np.count_nonzero(totals <= most, axis=1))
    for kind, which in enumerate(searched):
        if (rows := np.flatnonzero(which)).size:
            own = x_groups[rows] if y_groups.size else x_groups
            sides = scales.rescaled(x[rows], kind == 1), scales.rescaled(y, kind == 1)
            indices[rows] = nearest(sides[0], own, sides[1], y_groups, k)
    together = max(1, min(_QUERIES, _NEIGHBORS // k))
    missed = np.zeros(len(x), np.bool_)

    def arrange(task: int) -> None:
        rows = unclear[task * together : (task + 1) * together]
        distances[rows], indices[rows], kinds = _in_order(x[rows], y, indices[rows], root)
        for kind, which in enumerate(searched):
            missed[rows] |= which[rows] & (np.count_nonzero(kinds <= kind, axis=1) != wanted[rows])

    parallel.run(arrange, -(-unclear.size // together), n_threads)
    if missed.any():  # totals at the border of two kinds come in another order than the kinds
        for kind, which in enumerate(searched):
            _select(x, x_groups, y, y_groups, indices, np.flatnonzero(which & missed), kind == 1, n_threads)
        unclear = np.flatnonzero(missed)
        parallel.run(arrange, -(-unclear.size // together), n_threads)
    return distances


def _select(
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    indices: NDArray[np.intp],
    rows: NDArray[np.intp],
    large: bool,
    n_threads: int,
) -> None:
    """Find from all totals the neighbours of `rows` that are `large`, after all nearer ones, or that are small."""
    k, columns = indices.shape[1], x.shape[1]
    least, most = scales.ordinary(x.dtype, columns)
    step = max(1, min(extremes.PAIRS, panels.CALL_ELEMENTS // max(1, columns)) // _selection.part_rows(len(y), k))

    def search(task: int) -> Iterator[None]:
        some = rows[task * step : (task + 1) * step]
        queries = x[some]

        def keys_of(left: int, right: int) -> NDArray[np.int64]:
            candidates = y[left:right]
            totals = panels.totals("l2", queries, candidates)
            again = totals_again(queries, candidates, large)
            if large:
                keys = np.where(totals > most, again.view(np.int64), np.where(totals <= most, -1, _LEFT_OUT))
            else:
                keys = np.where(totals < least, again.view(np.int64), _LEFT_OUT)
            if y_groups.size:
                keys[x_groups[some, np.newaxis] == y_groups[left:right]] = _LEFT_OUT
            return keys

        keys, chosen = np.empty((some.size, k), np.int64), np.empty((some.size, k), np.intp)
        yield from _selection.select(keys_of, len(y), keys, chosen)
        indices[some] = chosen

    parallel.run(search, -(-rows.size // step), n_threads)


def _in_order(x: NDArray[Any], y: NDArray[Any], indices: NDArray[np.intp], root: bool) -> tuple[NDArray[Any], ...]:
    """Return the distances of some rows from their neighbours, these, and the kinds of the pairs, in their order.

    Kind 0 is too small, 1 ordinary, 2 too large, and 3 is NaN.
    """
    least, most = scales.ordinary(x.dtype, x.shape[1])
    exist = indices < len(y)
    places, inverse = np.unique(indices[exist], return_inverse=True)
    at = np.arange(len(x))[:, np.newaxis], np.zeros_like(indices)
    at[1][exist] = inverse
    neighbors = y[places]
    totals = np.where(exist, panels.totals("l2", x, neighbors)[at], np.nan)
    values, distances = totals.astype(np.float64), (np.sqrt(totals) if root else totals).astype(x.dtype)
    kinds = np.select([totals < least, totals <= most, totals > most], [0, 1, 2], default=3)
    for large in (False, True):
        extreme = kinds == (2 if large else 0)
        if extreme.any():
            values[extreme] = totals_again(x, neighbors, large)[at][extreme]
            if root:
                distances[extreme] = scales.distances(values[extreme], large, x.dtype, x.shape[1])
            elif not large:
                distances[extreme] = scales.squares(values[extreme], x.dtype, x.shape[1])
    order = np.lexsort((indices, values, kinds), axis=1)
    return tuple(np.take_along_axis(values, order, axis=1) for values in (distances, indices, kinds))
