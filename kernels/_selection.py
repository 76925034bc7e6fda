"""The k smallest of a block of keys, by (key, index)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["part_rows", "select"]

#: Rows of Y whose keys are selected from at once: at least so many, and so many for each neighbour.
_PART_ROWS, _PART_ROWS_PER_NEIGHBOR = 4096, 4


def part_rows(m: int, k: int) -> int:
    """Return how many rows of Y are looked at together."""
    return min(m, max(_PART_ROWS, _PART_ROWS_PER_NEIGHBOR * k))


def select(
    keys_of: Callable[[int, int], NDArray[Any]], m: int, keys: NDArray[Any], indices: NDArray[np.intp]
) -> Iterator[None]:
    """Fill `keys` and `indices` (n, k) with the smallest keys of each row, in the order of the indices.

    ``keys_of(left, right)`` returns the keys of some rows of Y, whole numbers. The largest there is stands for what is
    left out: where there are fewer than k others, the last places have that key.
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
            keys[:], indices[:] = (
                np.take_along_axis(found, places, axis=1),
                np.where(places < k, before, left + places - k),
            )
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
