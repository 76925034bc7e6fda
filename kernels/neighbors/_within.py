"""Pairs of rows within a limit: noted as their totals are made, counted, and put in order when all have been found.

Of a pair its row of Y and its key (see `_heaps`) are noted. `note` looks through a block of totals, `visit` through a
tree: a box is opened if its bound lies within the limit, which needs no order of boxes and no list of the nearest so
far. Blocks of totals go by columns of Y; `group` brings the pairs of a row together. When it is known how many pairs
each row of X has, `place` sorts them and moves them to their place in the result.

Sorting. So few pairs as most rows have are sorted by counting, for each, those before it: vectors of comparisons, on
which no branch depends. Sorted runs of these are merged.

Extremes. Where the square of an L2 distance has left the range of its dtype the key does not say whether the pair is
wanted: the row of X is noted as unclear. Of equal rows the total is 0, and right.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..distances import arguments, panels, searched_rows
from ..distances.arguments import DEFINITIONS, Metric
from ..distances.panels import aligned_like, chunk_length
from ..distances.tiles import totals_of_leaf
from ..runtime.jit import inner, kernel
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from ._heaps import MOST_ROWS, key_of
from ._tree import _bound

__all__ = ["Entries", "distances", "group", "limit", "limits", "note", "of_zeros", "place", "room", "visit"]

#: Keys to both sides of a guess between which a limit lies, as a rule.
_AROUND = 16

#: Pairs that are sorted by counting; more are merged from runs of so many.
_RUN = 64

#: More than any total of two directions, of length 1 but for rounding.
_LARGEST_OF_DIRECTIONS = 8.0


class Entries(NamedTuple):
    """Pairs of rows of X, one row after the other: rows of Y, and keys."""

    places: NDArray[Any]
    keys: NDArray[Any]


def room(size: int, m: int, keys: np.dtype[Any]) -> Entries:
    """Return room for so many entries with rows of m."""
    return Entries(np.empty(size, np.int32 if m < MOST_ROWS else np.int64), np.empty(size, keys))


def limits(metric: Metric, dtype: np.dtype[Any], d: int, radii: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the largest keys (n,) whose distances are within some radii (n,); products are so at or above them.

    A distance never falls where its key grows, so a limit is found by halving, whatever rounding does. Where squares
    left their range it is the largest key of those that may be within. By cosine it is the limit of rows that have
    directions: see `of_zeros`.
    """
    if metric == "inner_product":
        return _least_products(dtype, radii)
    definition = DEFINITIONS[metric]
    ordinary, bounds = panels.limits(arguments.base(metric), dtype, d)
    totals, root = ordinary.dtype, definition.root
    if definition.rows == "bits":
        largest_total: float = 1 if totals.kind == "f" else 8 * d * dtype.itemsize
    elif metric == "cosine":
        largest_total = _LARGEST_OF_DIRECTIONS
    else:
        largest_total = np.inf if totals.kind == "f" else d * definition.largest_byte_step
    most = int(np.array(largest_total, totals).view(bounds.dtype)[()])
    with np.errstate(over="ignore"):
        guess = radii * radii if root else radii * (2 if metric == "cosine" else 1)
        guess = np.minimum(guess, largest_total).astype(totals)
    keys = guess.view(bounds.dtype).astype(np.int64)
    within, beyond = np.full(radii.shape, -1), np.full(radii.shape, most + 1)

    def ask(keys: NDArray[np.int64]) -> None:
        keys = np.clip(keys, 0, most)
        inside = distances(metric, keys.astype(bounds.dtype).view(totals)) <= radii
        within[inside] = np.maximum(within, keys)[inside]
        beyond[~inside] = np.minimum(beyond, keys)[~inside]

    ask(keys - _AROUND)
    ask(keys + _AROUND)
    while (beyond - within > 1).any():
        ask(within + (beyond - within) // 2)
    within[within < bounds[0]] = bounds[0] - 1
    within[within >= bounds[1]] = most
    return within


def _least_products(dtype: np.dtype[Any], radii: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the keys of the least products that are at least `radii`."""
    with np.errstate(over="ignore"):
        least = radii.astype(dtype)
        least = np.where(least < radii, np.nextafter(least, dtype.type(np.inf)), least)
    return searched_rows.product_keys(least).astype(np.int64)


def of_zeros(dtype: np.dtype[Any], radii: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the largest keys of rows of zeros that are within some radii by cosine: all have the distance 1."""
    return np.where(radii >= 1, int(np.array(np.inf, dtype).view(panels.KEY_DTYPES[dtype])[()]), -1)


@lru_cache(maxsize=256)
def limit(metric: Metric, dtype: np.dtype[Any], d: int, radius: float) -> int:
    """Return the largest key whose distance is within a radius; it takes longer to find than few pairs."""
    return int(limits(metric, dtype, d, np.array([radius]))[0])


def distances(metric: Metric, totals: NDArray[Any]) -> NDArray[Any]:
    """Return the distances that totals stand for; it may change `totals`."""
    if not DEFINITIONS[metric].root:
        return searched_rows.distances(metric, totals)
    if totals.dtype.kind == "f":
        return np.asarray(np.sqrt(totals))
    return np.sqrt(totals.astype(np.float64)).astype(np.float32)


@kernel
def note(  # type: ignore[no-untyped-def]
    totals, ordinary_keys, limits, X, Y, left, among, rule, keeps, used, counts, unclear, rows, entries
):
    """Note the pairs of a block of `totals`, and return how many entries are used; or only count them.

    The rows of `Y` have the numbers from `left` on; which of them are wanted says `among`, see `_is_wanted`. Entries
    are noted as they come, with their `rows` of X.
    """
    places, found = entries
    keys = totals.view(found.dtype)
    width, is_restricted = Y.shape[0], among[0].size + among[2].size > 0
    for i in range(X.shape[0]):
        row, count = keys[i], 0
        for begin in range(0, width, KEYS_AT_ONCE):
            candidates = comparisons.below(row, begin, limits[i] + 1, rule.mask, rule.nan_key)
            if width - begin < KEYS_AT_ONCE:
                candidates &= (1 << (width - begin)) - 1
            while candidates:
                j = begin + comparisons.lowest_bit(candidates)
                candidates &= candidates - 1
                if is_restricted and not _is_wanted(among, i, left + j):
                    continue
                key = key_of(row[j], rule)
                if key < ordinary_keys[0] or key > ordinary_keys[1]:
                    unclear[i] |= key > 0 or _differ(X[i], Y[j])
                if keeps:
                    rows[used], places[used], found[used] = i, left + j, key
                    used += 1
                count += 1
        counts[i] += count
    return used


@inner
def _is_wanted(among, i, j):  # type: ignore[no-untyped-def]
    """Whether row j of Y may be a neighbor of row i of X: it is not its own, and of its group, or is not."""
    own, x_groups, y_groups, within = among
    if own.size and own[i] == j:
        return False
    return y_groups.size == 0 or (x_groups[i] == y_groups[j]) == within


@inner
def _differ(x, y):  # type: ignore[no-untyped-def]
    """Whether two rows are not equal."""
    column = 0
    while column < x.size and x[column] == y[column]:
        column += 1
    return column < x.size


@kernel
def visit(  # type: ignore[no-untyped-def]
    how, tree, X, Y, order, first, last, limits, among, keeps, like, ordinary_keys, most, counts, unclear, entries
):
    """Note pairs of the queries ``order[first:last]``, until `most` columns were looked at, or entries are full.

    Returns which query is next, how many entries are used, and how many columns were looked at.
    """
    (metric, chunk, rule), (points, places, boxes, _, sizes, starts) = how, tree
    others, found = entries
    n_leaves, n_levels, n_all, d = sizes[0], sizes.size, len(points), X.shape[1]
    chunk, is_restricted = chunk_length(d, chunk), among[0].size + among[2].size > 0
    totals, bounds = aligned_like(KEYS_AT_ONCE, like), aligned_like(KEYS_AT_ONCE, like)
    keys, bound_keys = totals.view(found.dtype), bounds.view(found.dtype)
    # Of each level, and of one above all: the node that was entered last, and which of its children wait.
    entered, waiting = np.zeros(n_levels + 1, np.intp), np.zeros(n_levels + 1, np.int64)
    used, columns, done = 0, 0, first
    while done < last and columns < most:
        i = order[done]
        limit, begin, apart = limits[i] + 1, used, n_leaves
        level, waiting[n_levels] = 1, n_leaves > 0
        count, unsure = 0, False
        while True:
            while level <= n_levels and not waiting[level]:
                level += 1
            if level <= n_levels:
                child = comparisons.lowest_bit(waiting[level])
                waiting[level] &= waiting[level] - 1
                level, node = level - 1, entered[level] * KEYS_AT_ONCE + child
            elif apart < n_all:
                level, node, apart = 0, apart, apart + 1
            else:
                break
            if level > 0:
                columns += 2 * d * KEYS_AT_ONCE
                _bound(metric, chunk, X, i, boxes, starts[level] + node, bounds, 0)
                below = comparisons.below(bound_keys, 0, limit, rule.mask, rule.nan_key)
                entered[level] = node
                waiting[level] = below & ((1 << min(KEYS_AT_ONCE, sizes[level - 1] - node * KEYS_AT_ONCE)) - 1)
                continue
            level = 1
            columns += d * KEYS_AT_ONCE
            for column in range(0, d, chunk):
                totals_of_leaf(metric, X, i, points, node, column, min(d, column + chunk), totals, 0)
            candidates = comparisons.below(keys, 0, limit, rule.mask, rule.nan_key)
            if keeps and used + KEYS_AT_ONCE > found.size:
                return done, begin, columns
            while candidates:
                lane = comparisons.lowest_bit(candidates)
                candidates &= candidates - 1
                j = places[node * KEYS_AT_ONCE + lane]
                if j < 0 or (is_restricted and not _is_wanted(among, i, j)):
                    continue
                key = key_of(keys[lane], rule)
                if key < ordinary_keys[0] or key > ordinary_keys[1]:
                    unsure |= key > 0 or _differ(X[i], Y[j])
                if keeps:
                    others[used], found[used] = j, key
                    used += 1
                count += 1
        counts[i], unclear[i] = count, unsure
        done += 1
    return done, used, columns


@kernel
def group(rows, entries, ends, grouped):  # type: ignore[no-untyped-def]
    """Move entries to the ends of their rows so far."""
    for entry in range(rows.size):
        at = ends[rows[entry]]
        grouped.places[at], grouped.keys[at] = entries.places[entry], entries.keys[entry]
        ends[rows[entry]] = at + 1


@kernel
def place(order, first, last, counts, begins, entries, indices, keys):  # type: ignore[no-untyped-def]
    """Sort the entries of the queries ``order[first:last]``, and move them to where their rows of the result begin.

    Those of a row that begins at -1 are passed over. `entries` are overwritten.
    """
    most = 0
    for turn in range(first, last):
        most = max(most, counts[order[turn]])
    spare_places, spare_keys = np.empty(most, entries.places.dtype), np.empty(most, entries.keys.dtype)
    end = 0
    for turn in range(first, last):
        row = order[turn]
        size = counts[row]
        begin, end, at = end, end + size, begins[row]
        if at >= 0:
            _sort(entries.places[begin:end], entries.keys[begin:end], spare_places, spare_keys)
            for i in range(size):
                indices[at + i], keys[at + i] = spare_places[i], spare_keys[i]


@inner
def _sort(places, keys, sorted_places, sorted_keys):  # type: ignore[no-untyped-def]
    """Sort by (key, place): runs by counting, which are merged two by two, to and fro."""
    size = keys.size
    ranks = np.empty(_RUN, keys.dtype)
    for begin in range(0, size, _RUN):
        end = min(size, begin + _RUN)
        _rank(places[begin:end], keys[begin:end], ranks)
        for i in range(end - begin):
            at = begin + ranks[i]
            sorted_places[at], sorted_keys[at] = places[begin + i], keys[begin + i]
    run = _RUN
    while run < size:
        _merge(sorted_places, sorted_keys, places, keys, run)
        _merge(places, keys, sorted_places, sorted_keys, 2 * run)
        run *= 4


@inner
def _rank(places, keys, ranks):  # type: ignore[no-untyped-def]
    """Count, for each pair, those before it."""
    size = keys.size
    for i in range(size):
        ranks[i] = 0
    for j in range(size):
        place, key = places[j], keys[j]
        for i in range(size):
            ranks[i] += (key < keys[i]) | ((key == keys[i]) & (place < places[i]))


@inner
def _merge(places, keys, merged_places, merged_keys, run):  # type: ignore[no-untyped-def]
    """Merge sorted runs two by two; what stands alone is copied."""
    size = min(keys.size, merged_keys.size)
    for begin in range(0, size, 2 * run):
        left, right = begin, min(size, begin + run)
        middle, end = right, min(size, begin + 2 * run)
        for at in range(begin, end):
            if right == end or (
                left < middle
                and (keys[left] < keys[right] or (keys[left] == keys[right] and places[left] < places[right]))
            ):
                chosen = left
                left += 1
            else:
                chosen = right
                right += 1
            merged_places[at], merged_keys[at] = places[chosen], keys[chosen]
