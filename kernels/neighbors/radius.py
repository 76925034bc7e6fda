"""All rows within a radius: as many for each query as there are, so they come row after row, as sparse matrices do.

Totals are compared with a limit, the largest total whose distance is within the radius as it is rounded, and so the
(n, m) matrix never exists: `_within` notes pairs while their totals lie in cache, and puts them in order. Totals are
made of all pairs by `panels.fill`, block by block, with the bits that the pairwise functions give; or by way of a tree
of boxes (see `_tree`), where few queries show that it pays.

Few queries. Where the rows of X alone cannot feed the threads, Y is cut into parts as well.

Extremes. A query with L2 neighbors whose squares leave the range of their dtype is answered again, from all distances
(see `distances.extremes`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..distances import arguments, extremes, panels, scales
from ..distances.panels import KEY_DTYPES, POINTS_STEP
from ..runtime import parallel
from ..runtime.jit import readonly
from . import _tree, _tree_choice, _within
from ._heaps import MOST_ROWS, key_rule
from ._within import Entries

__all__ = ["radius_counts", "radius_neighbors"]

#: Pairs of a block of totals, a megabyte of float32, and most of its rows of X.
_BLOCK_PAIRS, _BLOCK_ROWS = 1 << 18, 3 * panels.X_ROWS

#: A part of Y, where the rows of X alone cannot feed the threads, and most of them.
_PART_ROWS, _MOST_PARTS = 1024, 64

#: Entries of the room that a thread fills before they are put aside, and distances that are finished at once.
_ROOM, _FINISHED = 1 << 16, 1 << 18

#: Seconds in which one thread puts an entry in place, roughly.
_ENTRY_SECONDS = 4e-8

#: Queries of which all distances are made again at once.
_QUERIES = 64

_NO_GROUPS = readonly(np.empty(0, np.intp))
_NOTHING = Entries(np.empty(0), np.empty(0))


class _Question(NamedTuple):
    """Rows of X and of Y, the largest keys that are wanted, and whether row i of Y is no candidate for row i of X."""

    metric: arguments.Metric
    x: NDArray[Any]
    y: NDArray[Any]
    limits: NDArray[np.int64]
    excludes: bool
    #: Whether pairs are noted, or only counted.
    keeps: bool


class _Found(NamedTuple):
    """How many pairs each query has, and which of them are unclear; and all entries."""

    counts: NDArray[np.intp]
    unclear: NDArray[np.bool_]
    #: The queries in the order of the entries, and for each part of them the first, the last and theirs.
    order: NDArray[np.intp]
    parts: list[tuple[int, int, Entries]]


def radius_neighbors(
    X: ArrayLike,
    Y: ArrayLike | None,
    radius: ArrayLike,
    *,
    metric: str = "l2",
    exclude_self: bool = False,
    algorithm: arguments.Algorithm = "auto",
    n_threads: int | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
    """Find, for every row of `X`, all rows of `Y` whose distance is at most `radius`.

    Parameters
    ----------
    X : array-like of shape (n, D)
        The queries; dtypes as in `k_nearest`.
    Y : array-like of shape (m, D), or None
        The rows to choose from; None means `X`.
    radius : float, or array-like of shape (n,)
        The largest distance that counts, at least 0, or one for each query. Infinity is all rows that have a distance.
        It is compared, as float64, with the distances as they are returned: the float32 next to 0.1 is larger than 0.1.
    metric : {"l2", "l1", "linf"}, default="l2"
        Also by the names "euclidean", "manhattan", "cityblock" and "chebyshev".
    exclude_self : bool, default=False
        Leave out row ``i`` of `Y` for query ``i``; needs n == m.
    algorithm : {"auto", "brute", "tree"}, default="auto"
        How to search, as in `k_nearest`; the result is the same.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    indptr : ndarray of shape (n + 1,), intp
        The neighbours of row ``i`` stand at ``indptr[i]:indptr[i + 1]``, as in a sparse matrix by rows.
    indices : ndarray, intp
        Rows of `Y`, of each query in the order of `k_nearest`: by distance, then index.
    distances : ndarray
        Their distances, with the bits and the dtype that the pairwise functions give. None is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes, column counts, `metric` or `algorithm` do not fit, or a radius is negative or NaN.

    Notes
    -----
    Cost of looking at all pairs: n m D subtractions and additions; with a tree, as in `k_nearest`, of the rows that lie
    within the radius or near it. Memory: at most twice the result, and per thread a megabyte of float32 totals
    and as many entries, and what `pairwise_l1` needs. A query with L2 neighbours whose squares leave the range of the
    dtype takes some ten times as long.

    Examples
    --------
    >>> from fastml.kernels import radius_neighbors
    >>> indptr, indices, distances = radius_neighbors([[0.0], [10.0], [30.0]], [[1.0], [-0.5], [7.0]], 3)
    >>> indptr
    array([0, 2, 3, 3])
    >>> indices
    array([1, 0, 2])
    >>> distances
    array([0.5, 1. , 3. ])
    """
    radii, asked = _settled(X, Y, radius, metric, exclude_self, keeps=True)
    found = _search(asked, algorithm, n_threads)
    n, dtype = len(asked.x), asked.x.dtype
    rows = np.flatnonzero(found.unclear)
    owners, others, again = _exactly(asked, radii, rows, n_threads)
    counts = found.counts.copy()
    counts[rows] = np.bincount(owners, minlength=len(rows))
    indptr = np.zeros(n + 1, np.intp)
    np.cumsum(counts, out=indptr[1:])
    # Zeros, for the queries that `_placed` leaves out.
    totals = np.zeros(indptr[-1], panels.ordinary_totals(asked.metric, dtype, asked.x.shape[1]).dtype)
    indices = np.empty(indptr[-1], np.intp)
    threads = parallel.resolve(n_threads, seconds=len(totals) * _ENTRY_SECONDS)
    distances = _placed(asked, found, indptr, rows, indices, totals, threads)
    if rows.size:
        before = np.cumsum(counts[rows]) - counts[rows]
        at = np.arange(len(owners)) + (indptr[rows] - before)[owners]
        indices[at], distances[at] = others, again
    return indptr, indices, distances


def radius_counts(
    X: ArrayLike,
    Y: ArrayLike | None,
    radius: ArrayLike,
    *,
    metric: str = "l2",
    exclude_self: bool = False,
    algorithm: arguments.Algorithm = "auto",
    n_threads: int | None = None,
) -> NDArray[np.intp]:
    """Count, for every row of `X`, the rows of `Y` whose distance is at most `radius`.

    Parameters
    ----------
    X, Y, radius, metric, exclude_self, algorithm, n_threads
        As in `radius_neighbors`.

    Returns
    -------
    ndarray of shape (n,), intp
        How many neighbours `radius_neighbors` finds.

    Raises
    ------
    TypeError, ValueError
        As `radius_neighbors`.

    Notes
    -----
    Cost as of `radius_neighbors`; memory beside the counts only what each thread needs.

    Examples
    --------
    >>> from fastml.kernels import radius_counts
    >>> radius_counts([[0.0], [10.0], [30.0]], [[1.0], [-0.5], [7.0]], 3)
    array([2, 1, 0])
    """
    radii, asked = _settled(X, Y, radius, metric, exclude_self, keeps=False)
    found = _search(asked, algorithm, n_threads)
    rows = np.flatnonzero(found.unclear)
    owners, _, _ = _exactly(asked, radii, rows, n_threads)
    found.counts[rows] = np.bincount(owners, minlength=len(rows))
    return found.counts


def _settled(
    X: ArrayLike, Y: ArrayLike | None, radius: ArrayLike, metric: str, exclude_self: bool, keeps: bool
) -> tuple[NDArray[np.float64], _Question]:
    """Return a radius for each query, and what is asked."""
    short = arguments.metric(metric, arguments.METRICS)
    x, y, _ = arguments.pair(X, Y)
    excludes = arguments.excludes_self(exclude_self, len(x), len(y))
    radii = arguments.radius(radius, len(x))
    if radii.ndim == 0:
        limits = np.full(len(x), _within.limit(short, x.dtype, x.shape[1], float(radii)), np.int64)
        radii = np.full(len(x), radii)
    else:
        limits = _within.limits(short, x.dtype, x.shape[1], radii)
    return radii, _Question(short, x, y, readonly(limits), excludes, keeps)


def _search(asked: _Question, algorithm: arguments.Algorithm, n_threads: int | None) -> _Found:
    tree = _choose(arguments.algorithm(algorithm), asked, n_threads)
    return _from_all_pairs(asked, n_threads) if tree is None else _by_tree(asked, tree, parallel.resolve(n_threads))


def _choose(algorithm: arguments.Algorithm, asked: _Question, n_threads: int | None) -> _tree.Tree | None:
    """Return a tree of the rows of Y if one is asked for or worthwhile, and possible; see `_tree_choice.choose`."""
    (n, d), m, y = asked.x.shape, len(asked.y), asked.y
    if algorithm == "brute" or not 0 < n < MOST_ROWS or not _tree_choice.is_possible(asked.metric, y):
        return None
    if algorithm == "auto" and not _tree_choice.may_repay(n, m, d):
        return None
    if algorithm == "auto" and d > _tree_choice._FEW_COLUMNS:
        part = np.ascontiguousarray(y[:: -(-m // _tree_choice._TRIAL_ROWS)])
        if not _is_enough(0.9 * part.size, asked, _tree.build(part, 1)):
            return None
    tree = _tree.build(y, parallel.resolve(n_threads))
    is_enough = algorithm == "tree" or _is_enough(_tree_choice.most_columns(m, d), asked, tree)
    return tree if is_enough else None


def _is_enough(columns: float, asked: _Question, tree: _tree.Tree) -> bool:
    """Whether a few queries look at so many columns at most, in the mean."""
    x, limits = (_tree_choice.of_few(values, len(asked.x)) for values in (asked.x, asked.limits))
    n, tried = len(x), asked._replace(x=x, limits=readonly(limits), excludes=False, keeps=False)
    visit = _visitor(tried, tree, np.arange(n), np.zeros(n, np.intp), np.zeros(n, np.bool_))
    done, _, looked = visit(0, n, int(n * columns), _room(tried, 1))
    return bool(done == n and looked <= n * columns)


def _visitor(
    asked: _Question,
    tree: _tree.Tree,
    order: NDArray[np.intp],
    counts: NDArray[np.intp],
    unclear: NDArray[np.bool_],
) -> Callable[[int, int, int, Entries], tuple[int, int, int]]:
    """Return what answers the queries ``order[first:last]``, given most columns and room; see `_within.visit`."""
    how, like, x, _, _ = _tree._settled(asked.metric, asked.x, _NO_GROUPS, _NO_GROUPS)
    _, bounds = panels.limits(asked.metric, x.dtype, x.shape[1])
    sides, options = (x, readonly(asked.y)), (asked.limits, asked.excludes, asked.keeps)
    order = readonly(order)

    def visit(first: int, last: int, columns: int, room: Entries) -> tuple[int, int, int]:
        part = order, first, last
        done, used, looked = _within.visit(
            how, tree, *sides, *part, *options, like, bounds, columns, counts, unclear, room
        )
        return done, used, looked

    return visit


def _by_tree(asked: _Question, tree: _tree.Tree, threads: int) -> _Found:
    """Find pairs by way of a tree of the rows of Y."""
    n, at_once = len(asked.x), _tree._TASK_QUERIES
    how, like, x, _, _ = _tree._settled(asked.metric, asked.x, _NO_GROUPS, _NO_GROUPS)
    _, order = _tree._paths(how, like, tree, x, asked.x is asked.y, threads)
    found = _Found(np.zeros(n, np.intp), np.zeros(n, np.bool_), order, [])
    visit = _visitor(asked, tree, order, found.counts, found.unclear)

    def search(task: int) -> Iterator[None]:
        first, last = task * at_once, min(n, (task + 1) * at_once)
        room = _room(asked, _ROOM)
        while first < last:
            begin = first
            first, used, _ = visit(first, last, _tree._CALL_COLUMNS, room)
            if used:
                found.parts.append((begin, first, Entries(*(values[:used].copy() for values in room))))
            elif first == begin:  # one query needs more
                room = _room(asked, 2 * len(room.keys))
            yield

    parallel.run(search, -(-n // at_once), threads)
    return found


def _from_all_pairs(asked: _Question, n_threads: int | None) -> _Found:
    """Find pairs by making the totals of all."""
    metric, x, y = asked.metric, asked.x, readonly(asked.y)
    (n, d), m = x.shape, len(y)
    ordinary, bounds = panels.limits(metric, x.dtype, d)
    threads = parallel.resolve(n_threads, seconds=panels.seconds(n, m, d * x.itemsize))
    height = min(panels.task_rows(n, threads), _BLOCK_ROWS)
    width = min(_BLOCK_PAIRS, panels.CALL_ELEMENTS // max(1, d)) // height // POINTS_STEP * POINTS_STEP
    width = max(POINTS_STEP, min(width, -(-m // POINTS_STEP) * POINTS_STEP))
    n_parts = -(-n // height)
    y_parts = 1 if n_parts >= threads else max(1, min(4 * threads, _MOST_PARTS, m // _PART_ROWS))
    step = -(-m // (y_parts * POINTS_STEP)) * POINTS_STEP
    counts, unclear = np.zeros((y_parts, n), np.intp), np.zeros((y_parts, n), np.bool_)
    noted: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in range(n_parts * y_parts)]
    rule = key_rule(ordinary.dtype)

    def look(task: int) -> Iterator[None]:
        part, y_part = divmod(task, y_parts)
        first, last, y_first, y_last = part * height, min(n, (part + 1) * height), y_part * step, (y_part + 1) * step
        queries, limits = readonly(x[first:last]), asked.limits[first:last]
        steps, cut = panels.whole_steps(queries), tuple(panels.plan(metric, x.dtype, *queries.shape))
        own, results = (first if asked.excludes else m), (counts[y_part, first:last], unclear[y_part, first:last])
        totals = np.empty((last - first, width), ordinary.dtype)
        room, used = _room(asked, max(_ROOM, totals.size)), 0
        rows = np.empty(len(room.keys), np.uint16)
        for left in range(y_first, min(m, y_last), width):
            others = y[left : min(m, y_last, left + width)]
            if asked.keeps and used + totals.size > len(rows):
                noted[task].append(tuple(values[:used].copy() for values in (rows, *room)))
                used = 0
            panels.fill(cut, False, False, False, steps, 0, others, 0, len(others), ordinary, bounds, totals)
            pairs = queries, others, left, own
            used = _within.note(totals, bounds, limits, *pairs, rule, asked.keeps, used, *results, rows, room)
            yield
        if used:
            noted[task].append(tuple(values[:used].copy() for values in (rows, *room)))

    parallel.run(look, len(noted), threads)
    found = _Found(counts.sum(axis=0), np.logical_or.reduce(unclear, axis=0), np.arange(n), [])

    def group(part: int) -> None:
        first, last = part * height, min(n, (part + 1) * height)
        ends = np.cumsum(found.counts[first:last])
        entries = _room(asked, int(ends[-1]))
        ends -= found.counts[first:last]
        for chunks in noted[part * y_parts : (part + 1) * y_parts]:
            chunks.reverse()
            while chunks:
                rows, *values = chunks.pop()
                _within.group(rows, Entries(*values), ends, entries)
        found.parts.append((first, last, entries))

    if asked.keeps:
        parallel.run(group, n_parts, threads)
    return found


def _room(asked: _Question, size: int) -> Entries:
    keys = panels.limits(asked.metric, asked.x.dtype, asked.x.shape[1])[1].dtype
    return _within.room(size if asked.keeps else 1, len(asked.y), keys)


def _placed(
    asked: _Question,
    found: _Found,
    indptr: NDArray[np.intp],
    left_out: NDArray[np.intp],
    indices: NDArray[np.intp],
    totals: NDArray[Any],
    threads: int,
) -> NDArray[Any]:
    """Put all entries but those of some queries in place, and return the distances; the entries are lost."""
    root = arguments.METRICS[asked.metric].root
    keys, begins, order = totals.view(KEY_DTYPES[totals.dtype]), indptr[:-1].copy(), readonly(found.order)
    begins[left_out] = -1

    def place(part: int) -> None:
        first, last, entries = found.parts[part]
        found.parts[part] = (0, 0, _NOTHING)
        _within.place(order, first, last, found.counts, begins, entries, indices, keys)

    parallel.run(place, len(found.parts), threads)
    if not root:
        return totals
    # A root is written over its total, where it is of the same dtype.
    distances = totals if totals.dtype.kind == "f" else np.empty(len(totals), np.float32)

    def finish(first: int, last: int) -> None:
        distances[first:last] = _within.distances(totals[first:last], root)

    parallel.run_ranges(finish, len(totals), threads, most=_FINISHED)
    return distances


def _exactly(
    asked: _Question, radii: NDArray[np.float64], rows: NDArray[np.intp], n_threads: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
    """Return the pairs of some queries by L2, in order: which of the queries, which row of Y, and the distance.

    All distances are made as `pairwise_l2` makes them, so many at a time. Pairs whose squares are too small come before
    all others, those whose squares are too large after them, as in `k_nearest`.
    """
    x, y = asked.x, asked.y
    if not rows.size:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0)
    least, most = scales.ordinary(x.dtype, x.shape[1])
    width = max(1, min(extremes.PAIRS, panels.CALL_ELEMENTS // max(1, x.shape[1])) // _QUERIES)
    found: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in range(-(-len(rows) // _QUERIES))]

    def look(task: int) -> Iterator[None]:
        some = rows[task * _QUERIES : (task + 1) * _QUERIES]
        queries = x[some]
        for left in range(0, len(y), width):
            others = y[left : left + width]
            totals = panels.totals("l2", queries, others)
            distances, values, kinds = np.sqrt(totals), totals.astype(np.float64), np.ones(totals.shape, np.int8)
            for large, extreme in ((False, totals < least), (True, totals > most)):
                if extreme.any():
                    again = extremes.totals_again(queries, others, large)[extreme]
                    distances[extreme] = scales.distances(again, large, x.dtype, x.shape[1])
                    values[extreme], kinds[extreme] = again, 2 * large
            inside = distances <= radii[some, np.newaxis]
            if asked.excludes:
                inside[some[:, np.newaxis] == left + np.arange(len(others))] = False
            i, j = np.nonzero(inside)
            found[task].append((i + task * _QUERIES, j + left, distances[i, j], values[i, j], kinds[i, j]))
            yield

    parallel.run(look, len(found), parallel.resolve(n_threads))
    owners, others, again, values, kinds = map(np.concatenate, zip(*itertools.chain(*found), strict=True))
    order = np.lexsort((others, values, kinds, owners))
    return owners[order], others[order], again[order]
