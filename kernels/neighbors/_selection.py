"""The k smallest of a block of keys, by (key, index): NumPy's partition and sort, where k is too large for heaps.

Keys are whole numbers (see `_heaps`), for a part of Y at a time. Four-byte keys are joined with their indices in
one number, which is compared in one go; of eight-byte keys the ties are settled afterwards. The largest number there
is stands for what is left out: where a row has fewer than k others, its last places have that key and no valid index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..distances import panels
from ..distances.arguments import Metric
from ..runtime import parallel
from ._heaps import key_rule

__all__ = ["fill", "is_worthwhile", "part_rows", "select", "select_sorted"]

#: Rows of Y whose keys are selected from at once: at least so many, and so many for each neighbour.
_PART_ROWS, _PART_ROWS_PER_NEIGHBOR = 4096, 4

#: Fewer neighbours, or pairs, are found sooner with heaps whatever the sizes. A move in a heap takes as long as
#: selecting from so many keys does.
_FEWEST_NEIGHBORS, _FEWEST_PAIRS, _KEYS_PER_MOVE = 64, 1 << 17, 7

#: Pairs from which neighbors are selected at once.
_SELECTED_PAIRS = 1 << 18

_INDEX = (1 << 32) - 1

KeysOf = Callable[[int, int], NDArray[Any]]


def is_worthwhile(n: int, m: int, k: int) -> bool:
    """Whether selection from blocks is faster than heaps: in random order a row moves about k (1 + ln(m / k)) times."""
    return (
        k >= _FEWEST_NEIGHBORS
        and n * m >= _FEWEST_PAIRS
        and m < _INDEX
        and _KEYS_PER_MOVE * k * (1 + math.log(m / k)) > m
    )


def part_rows(m: int, k: int) -> int:
    """Return how many rows of Y are looked at together."""
    return min(m, max(_PART_ROWS, _PART_ROWS_PER_NEIGHBOR * k))


def fill(
    metric: Metric,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    keys: NDArray[Any],
    indices: NDArray[np.intp],
    threads: int,
) -> None:
    """Fill `keys` and `indices` (n, k) with the nearest rows of Y of other groups than a query's."""
    (n, d), k = x.shape, keys.shape[1]
    part = part_rows(len(y), k)
    most = max(1, min(_SELECTED_PAIRS, panels.CALL_ELEMENTS // max(1, d)) // part)
    step = max(1, min(most, -(-n // threads)))
    mask, nan_key = key_rule(panels.ordinary_totals(metric, x.dtype, d).dtype)

    def search(task: int) -> Iterator[None]:
        some = slice(task * step, (task + 1) * step)
        queries, own = x[some], x_groups[some, np.newaxis]

        def keys_of(left: int, right: int) -> NDArray[Any]:
            found = panels.totals(metric, queries, y[left:right]).view(keys.dtype)
            np.bitwise_and(found, found.dtype.type(mask), out=found)
            np.minimum(found, found.dtype.type(nan_key), out=found)
            if y_groups.size:
                found[own == y_groups[left:right]] = np.iinfo(found.dtype).max
            return found

        yield from select_sorted(keys_of, len(y), keys[some], indices[some])

    parallel.run(search, -(-n // step), threads)


def select_sorted(keys_of: KeysOf, m: int, keys: NDArray[Any], indices: NDArray[np.intp]) -> Iterator[None]:
    """Fill `keys` and `indices` (n, k) with the smallest keys of each row, sorted; see `select`."""
    largest = np.iinfo(keys.dtype).max
    if keys.itemsize == 4:
        yield from _select_joined(keys_of, m, keys, indices)
    else:
        yield from select(keys_of, m, keys, indices)
        order = np.argsort(keys, axis=1)
        ordered = np.take_along_axis(keys, order, axis=1)
        ties = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        order[ties] = np.argsort(keys[ties], axis=1, kind="stable")
        keys[:], indices[:] = ordered, np.take_along_axis(indices, order, axis=1)
    indices[keys == largest] = np.iinfo(np.intp).max


def _select_joined(keys_of: KeysOf, m: int, keys: NDArray[Any], indices: NDArray[np.intp]) -> Iterator[None]:
    k, step = keys.shape[1], part_rows(m, keys.shape[1])
    best = np.empty((len(keys), 0), np.int64)
    for left in range(0, m, step):
        right = min(m, left + step)
        found = keys_of(left, right).astype(np.int64)
        found <<= 32
        found |= np.arange(left, right)
        best = np.concatenate([best, found], axis=1) if left else found
        if best.shape[1] > k:
            best.partition(k - 1, axis=1)
            best = best[:, :k]
        yield
    best = np.sort(best, axis=1)
    keys[:], indices[:] = best >> 32, best & _INDEX


def select(keys_of: KeysOf, m: int, keys: NDArray[Any], indices: NDArray[np.intp]) -> Iterator[None]:
    """Fill `keys` and `indices` (n, k) with the smallest keys of each row, in the order of the indices.

    ``keys_of(left, right)`` returns the keys of the rows ``left:right`` of Y, of the dtype of `keys`.
    """
    k, step = keys.shape[1], part_rows(m, keys.shape[1])
    for left in range(0, m, step):
        found = keys_of(left, min(m, left + step))
        if left == 0:
            places = _smallest(found, k)
            keys[:], indices[:] = np.take_along_axis(found, places, axis=1), places
        else:
            found = np.concatenate([keys, found], axis=1)
            places = _smallest(found, k)
            before = np.take_along_axis(indices, np.minimum(places, k - 1), axis=1)
            indices[:] = np.where(places < k, before, left + places - k)
            keys[:] = np.take_along_axis(found, places, axis=1)
        yield


def _smallest(keys: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Return where the k smallest keys of each row are, the first ones of equals, in ascending order."""
    last = np.partition(keys, k - 1, axis=1)[:, k - 1 : k]
    taken = keys < last
    missing = k - np.count_nonzero(taken, axis=1)
    ties = keys == last
    many = np.flatnonzero(np.count_nonzero(ties, axis=1) > missing)
    ties[many] &= np.cumsum(ties[many], axis=1) <= missing[many, np.newaxis]
    return np.nonzero(taken | ties)[1].reshape(len(keys), k)
