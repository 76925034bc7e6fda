"""A tree of boxes: in few columns, or of rows with structure, most rows of Y need not be looked at.

Rows of Y are halved by their widest column until 32 are left, a leaf. A leaf lies column by column, so a vector holds
one column of many of its rows; a node has 32 children, and their boxes lie likewise. All leaves are full but the last:
what is halved has on its left as many leaves as a power of two. So a node is five cuts in a row, and the tree needs no
pointers.

A query starts at a leaf near it and goes up to the root. Of each node on this way it looks at the other children, from
near to far, unless their bound shows that none of their rows comes before the worst neighbor so far; of equal distances
the row of smaller index comes first, so of each child the smallest index is known too. Queries take turns in the order
of the leaves, so that one finds in cache what the one before it has read.

Rows of Y that are not finite are not in boxes: their leaves are looked at by every query.

Why a bound needs no slack. In a column a row x differs from a box by d = max(low - x, x - high, 0), and from a row y in
the box by |y - x|; before rounding d <= |y - x|, since low <= y <= high. Rounding keeps order: from a <= b follows
fl(a) <= fl(b), whether the result is normal, subnormal, flushed to zero or overflows to infinity, and fl(-a) = -fl(a).
So the computed difference of the box is at most the computed |y - x|. What a metric makes of it, a step (an addition, a
fused or unfused multiply-add of a square, a maximum) and at the end of a chunk another addition or maximum, grows with
both of its operands, and so does its rounded result. By induction over the columns the bound, computed by the same
operations in the same order, is at most the computed total of each row in the box. A row x with NaN has the bound of
the columns that are not NaN, which is below the key of NaN, its total with every row.

The tree depends on the rows of Y alone; what a query looks at, on the rows and on what is asked. `build` and `search`
lead; the rest is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..distances import panels
from ..distances.arguments import Metric
from ..distances.panels import KEY_DTYPES, aligned_like, chunk_length
from ..distances.tiles import bounds_of_boxes, totals_of_leaf
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly, scalar
from ..runtime.memory import aligned
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from ..simd.functions import like
from ..simd.rows import frozen
from ._heaps import (
    KeyRule,
    clear,
    copy_list,
    index_at,
    key_at,
    key_rule,
    new_heaps,
    new_list,
    offer,
)

__all__ = ["Tree", "build", "search"]

#: Rows of a leaf, and children of a node: as many as are compared at once.
_FAN = KEYS_AT_ONCE
_FAN_BITS = _FAN.bit_length() - 1

#: Rows that one compiled call halves down to leaves, from a copy that stays in cache.
_SUBTREE = 1 << 14

#: Rows from which the widest column is told; keys from which a pivot is chosen, of few and of many.
_SPREAD_SAMPLE = 32
_PIVOT_SAMPLE, _LARGE_PIVOT_SAMPLE, _MANY = 7, 31, 1024

_INDEX = (1 << 32) - 1

#: Queries of a task, and columns that a compiled call looks at: about 0.03 s; of so many neighbors more half of them.
_TASK_QUERIES, _CALL_COLUMNS, _ROWS_IN_ORDER = 2048, 1 << 27, 64

#: Queries so few that to put them in order takes longer than it saves.
_FEW_QUERIES = 32


class Tree(NamedTuple):
    """Rows of Y in leaves, and boxes around them, read-only."""

    #: (leaves, columns, 32)
    points: NDArray[Any]
    #: Which row of Y each point is; -1 for none.
    places: NDArray[np.intp]
    #: (nodes, columns, 2, 32): the low and the high side of each child, the nodes above the leaves first.
    boxes: NDArray[Any]
    #: The smallest row below each child (nodes, 32).
    least: NDArray[np.intp]
    #: How many nodes each level has (those of level 0 are the leaves in boxes), and which is its first.
    sizes: NDArray[np.intp]
    starts: NDArray[np.intp]


class _How(NamedTuple):
    """What does not change from query to query."""

    metric: int
    #: Columns of a chunk, give or take a half.
    chunk_columns: int
    rule: KeyRule


def build(y: NDArray[Any], threads: int) -> Tree:
    """Return the tree of some rows, of at least one column."""
    d = y.shape[1]
    finite = np.isfinite(y)
    if finite.all():
        inside, apart = np.arange(len(y)), np.empty(0, np.intp)
    else:
        finite = finite.all(axis=1)
        inside, apart = np.flatnonzero(finite), np.flatnonzero(~finite)
    n_leaves, n_apart = -(-len(inside) // _FAN), -(-len(apart) // _FAN)
    places = np.full((n_leaves + n_apart) * _FAN, -1)
    places[: len(inside)] = inside
    places[n_leaves * _FAN : n_leaves * _FAN + len(apart)] = apart
    points = aligned((n_leaves + n_apart, d, _FAN), y.dtype)
    leaf, lane = divmod(np.arange(len(apart)), _FAN)
    points[n_leaves + leaf, :, lane] = y[apart]
    sizes = [n_leaves, -(-n_leaves // _FAN)]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // _FAN))
    starts = np.cumsum([0, 0, *sizes[1:]])
    boxes, least = aligned((starts[-1], d, 2, _FAN), y.dtype), np.full((starts[-1], _FAN), np.iinfo(np.intp).max)
    boxes[:, :, 0], boxes[:, :, 1] = np.inf, -np.inf

    y, bits = readonly(y), readonly(y.view(KEY_DTYPES[y.dtype]))
    parts, keys = [(0, len(inside))] if len(inside) else [], np.empty(len(inside), np.int64)
    while parts:
        cuts = [0] * len(parts)

        def divide(part: int, parts: list[tuple[int, int]] = parts, cuts: list[int] = cuts) -> None:
            cuts[part] = _divide(y, bits, places, *parts[part], keys, points, boxes, least)

        parallel.run(divide, len(parts), threads)
        divided = [(first, cut, last) for (first, last), cut in zip(parts, cuts, strict=True) if cut < last]
        parts = [half for first, cut, last in divided for half in ((first, cut), (cut, last))]
    for level in range(1, len(sizes) - 1):
        some = slice(starts[level], starts[level] + sizes[level])
        node, child = divmod(np.arange(sizes[level]), _FAN)
        boxes[starts[level + 1] + node, :, 0, child] = boxes[some, :, 0].min(axis=2)
        boxes[starts[level + 1] + node, :, 1, child] = boxes[some, :, 1].max(axis=2)
        least[starts[level + 1] + node, child] = least[some].min(axis=1)
    return Tree(*map(readonly, (points, places, boxes, least, np.array(sizes), starts)))


def search(
    metric: Metric,
    tree: Tree,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y_groups: NDArray[np.intp],
    k: int,
    same: bool,
    threads: int,
) -> tuple[NDArray[Any], NDArray[np.intp], int]:
    """Return keys and indices (n, k) of the nearest rows, sorted, and how many distances were made.

    `same` says that the rows of X are those of the tree.
    """
    n = len(x)
    how, like, x, x_groups, y_groups = _settled(metric, x, x_groups, y_groups)
    keys, indices = new_heaps((n, k), like.dtype)
    homes, order = _paths(how, like, tree, x, same, threads)
    made, budget = [0] * -(-n // _TASK_QUERIES), max(1, _CALL_COLUMNS // (1 + k // _ROWS_IN_ORDER))

    def answer(task: int) -> Iterator[None]:
        first, last = task * _TASK_QUERIES, min(n, (task + 1) * _TASK_QUERIES)
        while first < last:
            part = order, homes, first, last
            first, count, _ = _answer(how, tree, x, *part, x_groups, y_groups, like, budget, keys, indices)
            made[task] += count
            yield

    parallel.run(answer, len(made), threads)
    return keys, indices, sum(made)


def _settled(
    metric: Metric, x: NDArray[Any], x_groups: NDArray[np.intp], y_groups: NDArray[np.intp]
) -> tuple[_How, NDArray[Any], NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Return how rows are searched, what totals are like, and queries and groups as kernels take them."""
    like, plan = panels.ordinary_totals(metric, x.dtype, x.shape[1]), panels.plan(metric, x.dtype, *x.shape)
    how = _How(plan.metric, plan.chunk_steps, key_rule(like.dtype))
    own, others = (readonly(np.ascontiguousarray(groups)) for groups in (x_groups, y_groups))  # strided: another form
    return how, like, readonly(x), own, others


def _paths(
    how: _How, like: NDArray[Any], tree: Tree, x: NDArray[Any], same: bool, threads: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return a leaf near each query, and the queries in an order in which they lie together."""
    homes, order, n_leaves = np.zeros(len(x), np.intp), np.arange(len(x)), int(tree.sizes[0])
    if same:
        order = tree.places[tree.places >= 0]
        inside = order[: np.count_nonzero(tree.places[: n_leaves * _FAN] >= 0)]
        homes[inside] = np.arange(len(inside)) // _FAN
    elif n_leaves:
        like_key = like.view(KEY_DTYPES[like.dtype])
        if len(x) <= _FEW_QUERIES:
            _find_homes(how, tree, x, 0, len(x), like, like_key, homes)
            return readonly(homes), readonly(order)
        most = max(1, _CALL_COLUMNS // (2 * _FAN * len(tree.sizes) * x.shape[1]))
        parallel.run_ranges(
            lambda first, last: _find_homes(how, tree, x, first, last, like, like_key, homes),
            len(x),
            threads,
            most=most,
        )
        order = np.argsort((homes & 0xFFFF).astype(np.uint16), kind="stable")  # 16 bits are sorted in O(n)
        if n_leaves > 0x10000:
            order = order[np.argsort((homes[order] >> 16).astype(np.uint16), kind="stable")]
    return readonly(homes), readonly(order)


@inner
def _widest(Y, places, first, last):  # type: ignore[no-untyped-def]
    """Return the column in which a sample of rows is spread most."""
    step = max(1, (last - first) // _SPREAD_SAMPLE)
    widest, chosen = like(Y[places[first], 0], 0), 0
    for column in range(Y.shape[1]):
        low = high = Y[places[first], column]
        for place in range(first, last, step):
            value = Y[places[place], column]
            low, high = min(low, value), max(high, value)
        if high - low > widest:
            widest, chosen = high - low, column
    return chosen


@inner
def _cut(first, last):  # type: ignore[no-untyped-def]
    """Return where a part is cut, so that leaves on the left are full and as many as a power of two."""
    leaves, half = -(-(last - first) // _FAN), 1
    while 2 * half < leaves:
        half *= 2
    return min(last, first + half * _FAN)


@inner
def _halve(Y, bits, places, first, last, keys):  # type: ignore[no-untyped-def]
    """Put the rows with the smaller values of the widest column first, of equals those of smaller index.

    A row's key has in its upper half the place of the value among all floats, as far as that half can tell the values
    apart, and the index in the lower one. So keys differ, and no order of the rows is a slow one.
    """
    cut = _cut(first, last)
    if cut == last:
        return cut
    column = _widest(Y, places, first, last)
    largest = np.int64(np.iinfo(bits.dtype).max)
    low, high = largest, -largest
    for place in range(first, last):
        value = np.int64(bits[places[place], column])
        value = (value ^ (largest if value < 0 else np.int64(0))) >> 1
        keys[place] = value
        low, high = min(low, value), max(high, value)
    shift = 0
    while (high - low) >> shift >= 1 << 31:
        shift += 1
    for place in range(first, last):
        keys[place] = ((keys[place] - low) >> shift) << 32 | places[place]
    _select(keys, first, last, cut)
    for place in range(first, last):
        places[place] = keys[place] & _INDEX
    return cut


@inner
def _select(keys, first, last, cut):  # type: ignore[no-untyped-def]
    """Arrange different keys so that those before `cut` are smaller than the others."""
    sample = np.empty(_LARGE_PIVOT_SAMPLE, np.int64)
    while last - first > 1:
        size = _PIVOT_SAMPLE if last - first < _MANY else _LARGE_PIVOT_SAMPLE
        for i in range(size):
            value = keys[first + ((((i + 1) * 0x9E3779B1) & 0xFFFFFFFF) * (last - first) >> 32)]
            j = i
            while j and sample[j - 1] > value:
                sample[j] = sample[j - 1]
                j -= 1
            sample[j] = value
        rank = (cut - first) * size // (last - first)
        # A little too far, so that the next part is the small one.
        rank += 1 if 2 * (cut - first) < last - first else -1
        pivot = sample[min(max(rank, 0), size - 1)]
        middle = first
        for place in range(first, last):  # without branches
            key = keys[place]
            keys[place] = keys[middle]
            keys[middle] = key
            middle += key < pivot
        if middle == first:  # the pivot is the smallest key
            for place in range(first, last):
                key = keys[place]
                keys[place] = keys[middle]
                keys[middle] = key
                middle += key <= pivot
        if middle == cut:
            return
        if middle < cut:
            first = middle
        else:
            last = middle


@kernel
def _divide(Y, bits, places, first, last, keys, points, boxes, least):  # type: ignore[no-untyped-def]
    """Halve a part, and return where the second half begins; of a small one write all leaves, and return the end."""
    if last - first > _SUBTREE:
        return _halve(Y, bits, places, first, last, keys)
    n, d = last - first, Y.shape[1]
    rows, own, own_keys = np.empty((n, d), Y.dtype), np.empty(n, np.intp), np.empty(n, np.int64)
    for i in range(n):
        own[i] = i
        for column in range(d):
            rows[i, column] = Y[places[first + i], column]
    own_rows, own_bits = frozen(rows), frozen(rows.view(bits.dtype))
    begins, ends = np.empty(64, np.intp), np.empty(64, np.intp)
    begins[0], ends[0], count = 0, n, 1
    while count:
        count -= 1
        begin, end = begins[count], ends[count]
        cut = _halve(own_rows, own_bits, own, begin, end, own_keys)
        if cut < end:
            begins[count], ends[count] = begin, cut
            begins[count + 1], ends[count + 1] = cut, end
            count += 2
            continue
        leaf = (first + begin) // _FAN
        node, child = leaf // _FAN, leaf % _FAN
        for column in range(d):
            low = high = rows[own[begin], column]
            for lane in range(end - begin):
                value = rows[own[begin + lane], column]
                points[leaf, column, lane] = value
                low, high = min(low, value), max(high, value)
            boxes[node, column, 0, child], boxes[node, column, 1, child] = low, high
    for i in range(n):
        own_keys[i] = places[first + own[i]]
    for i in range(n):
        place, leaf = own_keys[i], (first + i) // _FAN
        places[first + i] = place
        least[leaf // _FAN, leaf % _FAN] = min(least[leaf // _FAN, leaf % _FAN], place)
    return last


@kernel
def _find_homes(how, tree, X, first, last, like, like_key, homes):  # type: ignore[no-untyped-def]
    """Find a leaf near each query."""
    metric, chunk = how.metric, chunk_length(X.shape[1], how.chunk_columns)
    boxes, sizes, starts = tree.boxes, tree.sizes, tree.starts
    bounds = aligned_like(_FAN, like)
    keys = bounds.view(like_key.dtype)
    for i in range(first, last):
        node = 0
        for level in range(sizes.size - 1, 0, -1):
            _bound(metric, chunk, X, i, boxes, starts[level] + node, bounds, 0)
            node = node * _FAN + _first_smallest(keys, min(_FAN, sizes[level - 1] - node * _FAN))
        homes[i] = node


@inner
def _first_smallest(keys, size):  # type: ignore[no-untyped-def]
    """Return where the smallest of the first `size` of 32 keys is."""
    smallest, largest = keys[0], np.iinfo(keys.dtype).max
    for i in range(size):
        smallest = min(smallest, keys[i])
    return comparisons.lowest_bit(comparisons.below(keys, 0, np.int64(smallest) + 1, largest, largest))


@scalar
def _bound(metric, chunk, X, i, boxes, node, bounds, at):  # type: ignore[no-untyped-def]
    """Make the bounds of a node's children, from ``bounds[at]`` on."""
    for begin in range(0, X.shape[1], chunk):
        bounds_of_boxes(metric, X, i, boxes, node, begin, min(X.shape[1], begin + chunk), bounds, at)


@kernel
def _answer(  # type: ignore[no-untyped-def]
    how, tree, X, order, homes, first, last, x_groups, y_groups, like, most_columns, keys, indices
):
    """Answer the queries ``order[first:last]`` until too many columns were looked at.

    Returns which is next, how many distances were made, and how many columns were looked at.
    """
    (metric, chunk, (mask, nan_key)), (points, places, boxes, least, sizes, starts) = how, tree
    chunk = chunk_length(X.shape[1], chunk)
    n_leaves, n_levels, n_all, d, worst = sizes[0], sizes.size, len(points), X.shape[1], keys.shape[1] - 1
    totals, bounds = aligned_like(_FAN, like), aligned_like(n_levels * _FAN, like)
    total_keys, bound_keys = totals.view(keys.dtype), bounds.view(keys.dtype)
    # Of each level: the node that was entered last, and which of its children wait.
    entered, waiting = np.zeros(n_levels, np.intp), np.zeros(n_levels, np.int64)
    pairs = new_list(keys)
    leaves, nodes, done = 0, 0, first
    while done < last and (leaves + 2 * nodes) * d * _FAN < most_columns:
        i = order[done]
        own = x_groups[i] if x_groups.size else 0
        home, apart = homes[i], n_leaves
        clear(pairs)
        # Up to the level `top` all is done but what waits.
        level, top, node = 0, 0 if n_leaves else n_levels, home
        while True:
            if level > 0:
                nodes += 1
                _bound(metric, chunk, X, i, boxes, starts[level] + node, bounds, level * _FAN)
                entered[level], waiting[level] = node, (1 << min(_FAN, sizes[level - 1] - node * _FAN)) - 1
                if level == top:  # it came from one of the children
                    waiting[level] &= ~(1 << (home >> (top - 1) * _FAN_BITS) % _FAN)
            elif top < n_levels or apart > n_leaves:
                leaves += 1
                for begin in range(0, d, chunk):
                    totals_of_leaf(metric, X, i, points, node, begin, min(d, begin + chunk), totals, 0)
                candidates = comparisons.below(total_keys, 0, _limit(pairs, worst, keys), mask, nan_key)
                if y_groups.size or places[node * _FAN + _FAN - 1] < 0:
                    candidates &= _allowed(places, node * _FAN, own, y_groups)
                while candidates:
                    candidates = offer(pairs, total_keys, places, node * _FAN, candidates, mask, nan_key)
                    if candidates:
                        candidates &= comparisons.below(total_keys, 0, _limit(pairs, worst, keys), mask, nan_key)
            # Where to go from here: to the nearest child that waits, else up; in the end to the rows that are apart.
            level = max(level, 1)
            while level <= top < n_levels:
                at = level * _FAN
                waiting[level] &= comparisons.below(bound_keys, at, _limit(pairs, worst, keys), mask, nan_key)
                if not waiting[level]:
                    level += 1
                    continue
                child = _nearest(bound_keys, at, waiting[level])
                waiting[level] &= ~(1 << child)
                node = entered[level]
                if bound_keys[at + child] < key_at(pairs, worst) or least[starts[level] + node, child] < index_at(
                    pairs, worst
                ):
                    break
            if level <= top < n_levels:
                level, node = level - 1, node * _FAN + child
                continue
            top = min(top + 1, n_levels)
            if top < n_levels:
                level, node = top, home >> top * _FAN_BITS
                continue
            if apart == n_all:
                break
            level, node, apart = 0, apart, apart + 1
        copy_list(pairs, keys, indices, i)
        done += 1
    return done, leaves * _FAN, (leaves + 2 * nodes) * d * _FAN


@scalar
def _limit(pairs, worst, keys):  # type: ignore[no-untyped-def]
    """Return the key that candidates must be below: above the worst, which one of smaller index may equal."""
    limit, largest = key_at(pairs, worst), np.int64(np.iinfo(keys.dtype).max)
    return limit + 1 if limit < largest else largest


@scalar
def _nearest(keys, at, children):  # type: ignore[no-untyped-def]
    """Return which of some children, given as bits, has the smallest key."""
    nearest = comparisons.lowest_bit(children)
    children &= children - 1
    while children:
        child = comparisons.lowest_bit(children)
        children &= children - 1
        if keys[at + child] < keys[at + nearest]:
            nearest = child
    return nearest


@inner
def _allowed(places, first, own, groups):  # type: ignore[no-untyped-def]
    """Return which places of a leaf hold rows, other than those of the group `own`; empty groups exclude nothing."""
    allowed = 0
    for lane in range(_FAN):
        j = places[first + lane]
        if j >= 0 and (groups.size == 0 or groups[j] != own):
            allowed |= 1 << lane
    return allowed
