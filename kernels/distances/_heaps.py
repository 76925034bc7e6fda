"""Heaps of the nearest candidates so far: pairs of an integer key and an index, the worst pair at the root.

Totals are compared as integers: the bits of floats that are not negative have the order of the floats, with
NaN above infinity. (key, index) is a total order, so what a heap holds in the end does not depend on the
order in which candidates came.

`nearest`, `_pruning` and `_symmetric` fill heaps, each in its way; here they are emptied, sorted and merged.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.jit import inner, kernel
from ..simd.rows import copy

__all__ = [
    "KEY_DTYPES",
    "KeyRule",
    "before",
    "key_of",
    "key_rule",
    "merge",
    "new_heaps",
    "replace_root",
    "sort_heaps",
    "sort_rows",
]

#: The integers whose order is that of the totals.
KEY_DTYPES = {np.dtype(name): np.dtype(f"i{np.dtype(name).itemsize}") for name in ("f4", "f8", "i4", "i8")}


class KeyRule(NamedTuple):
    """How a total becomes a key: ``min(bits & mask, nan_key)``."""

    #: Clears a float's sign.
    mask: int
    #: The one key that stands for every NaN.
    nan_key: int


@cache
def key_rule(totals: np.dtype[Any]) -> KeyRule:
    """Return how totals of a dtype become keys."""
    integer = KEY_DTYPES[totals]
    largest = int(np.iinfo(integer).max)
    if totals.kind == "i":
        return KeyRule(largest, largest)
    return KeyRule(largest, int(np.array(np.nan, totals).view(integer)[()]) & largest)


@inner
def key_of(bits, rule):  # type: ignore[no-untyped-def]
    """Return the key of a total, given as an integer."""
    return min(bits & rule.mask, rule.nan_key)


def new_heaps(parts: int, n: int, k: int, totals: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return room for the keys and the indices of `n` heaps of `k` pairs, for each part of Y."""
    return np.empty((parts, n, k), KEY_DTYPES[totals]), np.empty((parts, n, k), np.intp)


@inner
def replace_root(keys, indices, size, key, index):  # type: ignore[no-untyped-def]
    """Put (key, index) in the place of the heap's largest pair."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and before(keys, indices, child, keys[child + 1], indices[child + 1]):
            child += 1
        if before(keys, indices, child, key, index):
            break
        keys[place], indices[place] = keys[child], indices[child]
        place = child
    keys[place], indices[place] = key, index


@inner
def before(keys, indices, place, key, index):  # type: ignore[no-untyped-def]
    """Whether the pair at `place` comes before (key, index)."""
    return keys[place] < key or (keys[place] == key and indices[place] < index)


@inner
def _sort(keys, indices):  # type: ignore[no-untyped-def]
    """Sort a heap ascending: its root, the largest, moves to the end, again and again."""
    for size in range(keys.size - 1, 0, -1):
        key, index = keys[size], indices[size]
        keys[size], indices[size] = keys[0], indices[0]
        replace_root(keys, indices, size, key, index)


@inner
def sort_heaps(keys, indices):  # type: ignore[no-untyped-def]
    """Sort heaps ascending."""
    for i in range(keys.shape[0]):
        _sort(keys[i], indices[i])


@kernel
def sort_rows(keys, indices):  # type: ignore[no-untyped-def]
    """Sort the heaps of some rows."""
    sort_heaps(keys, indices)


@kernel
def merge(keys, indices, begin, end):  # type: ignore[no-untyped-def]
    """Merge the sorted neighbours of all parts of Y into those of part 0, for the rows ``begin:end``."""
    parts, _, k = keys.shape
    best, chosen = np.empty(k, keys.dtype), np.empty(k, indices.dtype)
    for i in range(begin, end):
        next_of = np.zeros(parts, np.intp)
        for place in range(k):
            first = 0
            for part in range(1, parts):
                at, other = next_of[first], next_of[part]
                if other < k and (
                    at == k or before(keys[part, i], indices[part, i], other, keys[first, i, at], indices[first, i, at])
                ):
                    first = part
            best[place], chosen[place] = keys[first, i, next_of[first]], indices[first, i, next_of[first]]
            next_of[first] += 1
        copy(best, keys[0, i])
        copy(chosen, indices[0, i])
