"""All rows within a radius: as many for each query as there are, so they come row after row, as sparse matrices do.

Totals are compared with a limit, the largest total whose distance is within the radius as it is rounded, and so the
(n, m) matrix never exists: `_within` notes pairs while their totals lie in cache, and puts them in order. Totals are
made of all pairs by `panels.fill`, block by block, with the bits that the pairwise functions give; or by way of a tree
of boxes (see `_tree`), where few queries show that it pays.

Few queries. Where the rows of X alone cannot feed the threads, Y is cut into parts as well.

Candidates. Pairs that may be no neighbors are passed over when they are noted. Within groups, where these are small,
and of the rows that `where` leaves, where these are few, the search is one among these rows alone.

Extremes. A query with L2 neighbors whose squares leave the range of their dtype is answered again, from all distances
(see `distances.extremes`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..distances import arguments, extremes, panels, scales, searched_rows
from ..distances.panels import KEY_DTYPES, POINTS_STEP
from ..runtime import parallel
from ..runtime.jit import readonly
from . import _tree, _tree_choice, _within, candidates
from ._heaps import MOST_ROWS, key_rule
from ._within import Entries
from .candidates import NO_GROUPS
from .prepared import PreparedRows

__all__ = ["radius_counts", "radius_neighbors"]

#: Pairs of a block of totals, a megabyte of float32, and most of its rows of X.
_BLOCK_PAIRS, _BLOCK_ROWS = 1 << 18, 3 * panels.X_ROWS

#: A part of Y, where the rows of X alone cannot feed the threads, and most of them.
_PART_ROWS, _MOST_PARTS = 1024, 64

#: Entries of the room that a thread fills before they are put aside, and distances that are finished at once.
_ROOM, _FINISHED = 1 << 16, 1 << 18

#: Entries that are moved at once in NumPy.
_MOVED = 1 << 16

#: Seconds in which one thread puts an entry in place, roughly.
_ENTRY_SECONDS = 4e-8

#: Queries of which all distances are made again at once.
_QUERIES = 64

#: Seconds that a search takes at least.
_SEARCH_SECONDS = 2e-4

#: How many neighbors each query has; which rows of Y these are, and their distances, query after query.
_Answer = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]

_NOTHING = Entries(np.empty(0), np.empty(0))


class _Question(NamedTuple):
    """Rows of X and of Y, how far these may be away, and which of them may be neighbors."""

    metric: arguments.Metric
    #: The metric by the totals of which rows are compared.
    base: arguments.Metric
    x: NDArray[Any]
    y: NDArray[Any]
    radii: NDArray[np.float64]
    #: The largest keys that are wanted.
    limits: NDArray[np.int64]
    #: Whether pairs are noted, or only counted.
    keeps: bool
    #: The row of Y that each query is, and no neighbor of itself, or -1; empty: there is none.
    own: NDArray[np.intp] = NO_GROUPS
    #: The group of each row of X, and of each row of Y; empty: there are none.
    x_groups: NDArray[np.intp] = NO_GROUPS
    y_groups: NDArray[np.intp] = NO_GROUPS
    #: Whether neighbors are rows of the query's own group, or of others.
    within: bool = False

    def of(self, queries: NDArray[np.intp] | slice) -> _Question:
        """Return the question of some queries."""
        own, x_groups = (readonly(part[queries]) if part.size else part for part in (self.own, self.x_groups))
        x, radii, limits = self.x[queries], self.radii[queries], readonly(self.limits[queries])
        return self._replace(x=x, radii=radii, limits=limits, own=own, x_groups=x_groups)

    def among(self, rows: NDArray[np.intp]) -> _Question:
        """Return the question whose candidates are some rows of Y, in their order."""
        own, y_groups = self.own, self.y_groups
        if own.size and rows.size:
            places = np.minimum(np.searchsorted(rows, own), len(rows) - 1)
            own = readonly(np.where(rows[places] == own, places, -1))
        return self._replace(y=self.y[rows], own=own, y_groups=readonly(y_groups[rows]) if y_groups.size else y_groups)


class _Found(NamedTuple):
    """How many pairs each query has, and which of them are unclear; and all entries."""

    counts: NDArray[np.intp]
    unclear: NDArray[np.bool_]
    #: The queries in the order of the entries, and for each part of them the first, the last and theirs.
    order: NDArray[np.intp]
    parts: list[tuple[int, int, Entries]]


def radius_neighbors(
    X: ArrayLike,
    Y: ArrayLike | PreparedRows | None,
    radius: ArrayLike,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    exclude_self: bool = False,
    offset: int | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    within_groups: bool = False,
    where: ArrayLike | None = None,
    algorithm: arguments.Algorithm = "auto",
    n_threads: int | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
    """Find, for every row of `X`, all rows of `Y` whose distance is at most `radius`.

    Parameters
    ----------
    X : array-like of shape (n, D)
        The queries; dtypes as in `k_nearest`.
    Y : array-like of shape (m, D), PreparedRows, or None
        The rows to choose from, also as `prepare` returns them; None means `X`.
    radius : float, or array-like of shape (n,)
        The largest distance that counts, at least 0, or one for each query. Infinity is all rows that have a distance.
        It is compared, as float64, with the distances as they are returned: the float32 next to 0.1 is larger than 0.1.
        Of "inner_product" it is the least product that counts, of either sign.
    metric, metric_params
        As in `k_nearest`.
    exclude_self, offset, groups, within_groups, where
        Which rows of `Y` may be neighbours, as in `k_nearest`.
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
        Their distances, with the bits and the dtype that `k_nearest` gives. None is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes, column counts, `metric`, `metric_params`, `algorithm` or what chooses candidates do not fit, or a
        radius is negative or NaN.

    Notes
    -----
    Cost of looking at all pairs: n m D subtractions and additions; with a tree, as in `k_nearest`, of the rows that lie
    within the radius or near it. Memory: at most twice the result, and per thread a megabyte of float32 totals
    and as many entries, and what `pairwise_l1` needs. A query with L2 neighbours whose squares leave the range of the
    dtype takes some ten times as long. Weights and "cosine" take a copy of both sides, and so do groups that are
    searched one by one; the rows that `where` leaves are copied where that saves time.

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
    choices = exclude_self, offset, groups, within_groups, where
    counts, indices, distances = _found(X, Y, radius, metric, metric_params, choices, algorithm, n_threads, keeps=True)
    indptr = np.zeros(len(counts) + 1, np.intp)
    np.cumsum(counts, out=indptr[1:])
    return indptr, indices, distances


def radius_counts(
    X: ArrayLike,
    Y: ArrayLike | PreparedRows | None,
    radius: ArrayLike,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    exclude_self: bool = False,
    offset: int | None = None,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    within_groups: bool = False,
    where: ArrayLike | None = None,
    algorithm: arguments.Algorithm = "auto",
    n_threads: int | None = None,
) -> NDArray[np.intp]:
    """Count, for every row of `X`, the rows of `Y` whose distance is at most `radius`.

    Parameters
    ----------
    X, Y, radius, metric, metric_params, exclude_self, offset, groups, within_groups, where, algorithm, n_threads
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
    Cost as of `radius_neighbors`; memory beside the counts only what each thread needs, and copies as there.

    Examples
    --------
    >>> from fastml.kernels import radius_counts
    >>> radius_counts([[0.0], [10.0], [30.0]], [[1.0], [-0.5], [7.0]], 3)
    array([2, 1, 0])
    """
    choices = exclude_self, offset, groups, within_groups, where
    return _found(X, Y, radius, metric, metric_params, choices, algorithm, n_threads, keeps=False)[0]


def _found(
    X: ArrayLike,
    Y: ArrayLike | PreparedRows | None,
    radius: ArrayLike,
    metric: str,
    metric_params: Mapping[str, Any] | None,
    choices: tuple[Any, ...],
    algorithm: arguments.Algorithm,
    n_threads: int | None,
    keeps: bool,
) -> _Answer:
    """Return what is asked for by the arguments of `radius_neighbors`."""
    short = arguments.metric(metric)
    prepared = None
    if isinstance(Y, PreparedRows):
        prepared, Y = Y, Y.of(short)
    x, y = searched_rows.settled(short, metric_params, X, Y, n_threads)
    chosen = candidates.allowed(len(x), len(y), *choices)
    radii = arguments.radius(radius, len(x), short)
    way = arguments.algorithm(algorithm)
    rows, limits = None, readonly(_limits(short, x, radii))
    radii = radii if radii.ndim else np.full(len(x), radii)
    asked = _Question(short, arguments.base(short), x, y, radii, limits, keeps)
    if not chosen.is_all:
        asked, rows = _restricted(asked, chosen, prepared is not None)
    if asked.within and _are_small_groups(asked):
        found = _group_by_group(asked, way, n_threads)
    else:
        kept = prepared if prepared is not None and asked.y is prepared.rows else None
        found = _answer(asked, way, n_threads, kept)
    if rows is not None:
        _renumber(found[1], rows)
    return found


def _limits(metric: arguments.Metric, x: NDArray[Any], radii: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the largest keys that the rows of X want."""
    n, d = x.shape
    if radii.ndim == 0:
        limits = np.full(n, _within.limit(metric, x.dtype, d, float(radii)), np.int64)
    else:
        limits = _within.limits(metric, x.dtype, d, radii)
    if metric == "cosine":
        zeros = searched_rows.are_zeros(x)
        limits[zeros] = _within.of_zeros(x.dtype, radii[zeros] if radii.ndim else radii)
    return limits


def _restricted(
    asked: _Question, chosen: candidates.Candidates, prepared: bool
) -> tuple[_Question, NDArray[np.intp] | None]:
    """Return the question of some candidates, and which rows of Y are left, where the others are no longer there."""
    groups, within, where, offset = chosen
    n, m = len(asked.x), len(asked.y)
    if offset is not None:
        asked = asked._replace(own=readonly(offset + np.arange(n)))
    if groups is not None:
        asked = asked._replace(x_groups=readonly(groups[0]), y_groups=readonly(groups[1]), within=within)
    if where is None or where.all():
        return asked, None
    rows = np.flatnonzero(where)
    if groups is None and candidates.stay(n, m, rows.size, prepared):
        left_out = readonly((~where).astype(np.intp))
        return asked._replace(x_groups=readonly(np.ones(n, np.intp)), y_groups=left_out), None
    return asked.among(rows), rows


def _are_small_groups(asked: _Question) -> bool:
    """Whether to search within each group by itself saves more than a search for each takes."""
    (n, d), m = asked.x.shape, len(asked.y)
    labels, sizes = np.unique(asked.x_groups, return_counts=True)
    in_order = np.sort(asked.y_groups)
    others = np.searchsorted(in_order, labels, "right") - np.searchsorted(in_order, labels, "left")
    apart = n * m - int(np.dot(sizes, others))
    return apart * panels.seconds(1, 1, d * asked.x.itemsize) > len(labels) * _SEARCH_SECONDS


def _group_by_group(asked: _Question, algorithm: arguments.Algorithm, n_threads: int | None) -> _Answer:
    """Answer within each group by itself."""
    x_order, y_order = (np.argsort(groups, kind="stable") for groups in (asked.x_groups, asked.y_groups))
    labels, starts = np.unique(asked.x_groups[x_order], return_index=True)
    in_order = asked.y_groups[y_order]
    bounds = (np.searchsorted(in_order, labels, side) for side in ("left", "right"))
    counts, parts = np.zeros(len(asked.x), np.intp), []
    alone = asked._replace(x_groups=NO_GROUPS, y_groups=NO_GROUPS, within=False)
    for some, first, last in zip(np.split(x_order, starts[1:]), *bounds, strict=False):
        if first < last:
            rows = y_order[first:last]
            counts[some], indices, distances = _answer(alone.of(some).among(rows), algorithm, n_threads)
            _renumber(indices, rows)
            parts.append((some, indices, distances))
    begins, total = np.cumsum(counts) - counts, counts.sum() if asked.keeps else 0
    indices = np.empty(total, np.intp)
    distances = np.empty(total, arguments.result_dtype(asked.metric, asked.x.dtype, asked.x.shape[1]))
    while parts:
        some, *found = parts.pop()
        ends = np.cumsum(counts[some])
        ahead = begins[some] - ends + counts[some]
        for first in range(0, len(found[0]), _MOVED):
            entries = np.arange(first, min(len(found[0]), first + _MOVED))
            places = entries + ahead[np.searchsorted(ends, entries, "right")]
            indices[places], distances[places] = (values[entries] for values in found)
    return counts, indices, distances


def _renumber(indices: NDArray[np.intp], rows: NDArray[np.intp]) -> None:
    """Turn places among some rows of Y into their numbers."""
    for first in range(0, len(indices), _MOVED):
        some = slice(first, first + _MOVED)
        indices[some] = rows[indices[some]]


def _answer(
    asked: _Question, algorithm: arguments.Algorithm, n_threads: int | None, prepared: PreparedRows | None = None
) -> _Answer:
    """Answer a question in the way that pays."""
    tree = _choose(algorithm, asked, n_threads, prepared)
    found = _from_all_pairs(asked, n_threads) if tree is None else _by_tree(asked, tree, parallel.resolve(n_threads))
    rows, counts = np.flatnonzero(found.unclear), found.counts
    if rows.size:
        counts = counts.copy()
        owners, others, again = _exactly(asked.of(rows), n_threads)
        counts[rows] = np.bincount(owners, minlength=len(rows))
    if not asked.keeps:
        return counts, NO_GROUPS, _NOTHING.keys
    begins, total = np.cumsum(counts) - counts, int(counts.sum())
    # Zeros, for the queries that `_placed` leaves out.
    totals = np.zeros(total, panels.ordinary_totals(asked.base, asked.x.dtype, asked.x.shape[1]).dtype)
    indices = np.empty(total, np.intp)
    threads = parallel.resolve(n_threads, seconds=total * _ENTRY_SECONDS)
    distances = _placed(asked, found, begins, rows, indices, totals, threads)
    if rows.size:
        before = np.cumsum(counts[rows]) - counts[rows]
        at = np.arange(len(owners)) + (begins[rows] - before)[owners]
        indices[at], distances[at] = others, again
    return counts, indices, distances


def _choose(
    algorithm: arguments.Algorithm, asked: _Question, n_threads: int | None, prepared: PreparedRows | None
) -> _tree.Tree | None:
    """Return a tree of the rows of Y if one is asked for or worthwhile, and possible; see `_tree_choice.choose`."""
    (n, d), m, y = asked.x.shape, len(asked.y), asked.y
    if n >= MOST_ROWS:
        return None
    if prepared is None:
        if algorithm == "brute" or n == 0 or not _tree_choice.is_possible(asked.base, y):
            return None
        if algorithm == "tree":
            return _tree.build(y, parallel.resolve(n_threads))
        if not _tree_choice.may_repay(n, m, d):
            return None

    def pays(tree: _tree.Tree) -> bool:
        return _is_enough(_tree_choice.most_columns(m, d), asked, tree)

    def tried() -> _tree.Tree | None:
        if d > _tree_choice._FEW_COLUMNS:
            part = np.ascontiguousarray(y[:: -(-m // _tree_choice._TRIAL_ROWS)])
            if not _is_enough(0.9 * part.size, asked, _tree.build(part, 1)):
                return None
        tree = _tree.build(y, parallel.resolve(n_threads))
        return tree if pays(tree) else None

    return tried() if prepared is None else prepared.tree_within(algorithm, n, pays, tried, n_threads)


def _is_enough(columns: float, asked: _Question, tree: _tree.Tree) -> bool:
    """Whether a few queries look at so many columns at most, in the mean."""
    x, limits = (_tree_choice.of_few(values, len(asked.x)) for values in (asked.x, asked.limits))
    n, tried = len(x), _Question(asked.metric, asked.base, x, asked.y, asked.radii, readonly(limits), keeps=False)
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
    how, like, x, _, _ = _tree._settled(asked.base, asked.x, NO_GROUPS, NO_GROUPS)
    _, bounds = panels.limits(asked.base, x.dtype, x.shape[1])
    among = asked.own, asked.x_groups, asked.y_groups, asked.within
    sides, options = (x, readonly(asked.y)), (asked.limits, among, asked.keeps)
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
    how, like, x, _, _ = _tree._settled(asked.base, asked.x, NO_GROUPS, NO_GROUPS)
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
    metric, x, y = asked.base, asked.x, readonly(asked.y)
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
        among = asked.own[first:last], asked.x_groups[first:last], asked.y_groups, asked.within
        steps, cut = panels.whole_steps(queries), tuple(panels.plan(metric, x.dtype, *queries.shape))
        results = counts[y_part, first:last], unclear[y_part, first:last]
        totals = np.empty((last - first, width), ordinary.dtype)
        room, used = _room(asked, max(_ROOM, totals.size)), 0
        rows = np.empty(len(room.keys), np.uint16)
        for left in range(y_first, min(m, y_last), width):
            others = y[left : min(m, y_last, left + width)]
            if asked.keeps and used + totals.size > len(rows):
                noted[task].append(tuple(values[:used].copy() for values in (rows, *room)))
                used = 0
            panels.fill(cut, False, False, False, steps, 0, others, 0, len(others), ordinary, bounds, totals)
            pairs = queries, others, left, among
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
    keys = panels.limits(asked.base, asked.x.dtype, asked.x.shape[1])[1].dtype
    return _within.room(size if asked.keeps else 1, len(asked.y), keys)


def _placed(
    asked: _Question,
    found: _Found,
    begins: NDArray[np.intp],
    left_out: NDArray[np.intp],
    indices: NDArray[np.intp],
    totals: NDArray[Any],
    threads: int,
) -> NDArray[Any]:
    """Put all entries but those of some queries in place, and return the distances; the entries are lost."""
    metric, (dtype, d) = asked.metric, (asked.x.dtype, asked.x.shape[1])
    keys, begins, order = totals.view(KEY_DTYPES[totals.dtype]), begins.copy(), readonly(found.order)
    begins[left_out] = -1

    def place(part: int) -> None:
        first, last, entries = found.parts[part]
        found.parts[part] = (0, 0, _NOTHING)
        _within.place(order, first, last, found.counts, begins, entries, indices, keys)

    parallel.run(place, len(found.parts), threads)
    definition = arguments.DEFINITIONS[metric]
    if not definition.root and asked.base == metric != "inner_product":
        return totals
    # A distance is written over its total, where it takes as many bytes.
    result = arguments.result_dtype(metric, dtype, d)
    distances = totals.view(result) if totals.itemsize == result.itemsize else np.empty(len(totals), result)

    def finish(first: int, last: int) -> None:
        distances[first:last] = _within.distances(metric, totals[first:last])

    parallel.run_ranges(finish, len(totals), threads, most=_FINISHED)
    return distances


def _exactly(asked: _Question, n_threads: int | None) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
    """Return all pairs of queries by L2, in order: which of the queries, which row of Y, and the distance.

    All distances are made as `pairwise_l2` makes them, so many at a time. Pairs whose squares are too small come before
    all others, those whose squares are too large after them, as in `k_nearest`.
    """
    n, columns = asked.x.shape
    dtype, root = asked.x.dtype, arguments.DEFINITIONS[asked.metric].root
    least, most = scales.ordinary(dtype, columns)
    width = max(1, min(extremes.PAIRS, panels.CALL_ELEMENTS // max(1, columns)) // _QUERIES)
    found: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in range(-(-n // _QUERIES))]

    def look(task: int) -> Iterator[None]:
        first = task * _QUERIES
        some = asked.of(slice(first, first + _QUERIES))
        for left in range(0, len(asked.y), width):
            others = asked.y[left : left + width]
            totals = panels.totals("l2", some.x, others)
            values, kinds = totals.astype(np.float64), np.ones(totals.shape, np.int8)
            distances = np.sqrt(totals) if root else totals.copy()
            for large, extreme in ((False, totals < least), (True, totals > most)):
                if extreme.any():
                    again = extremes.totals_again(some.x, others, large)[extreme]
                    values[extreme], kinds[extreme] = again, 2 * large
                    if root:
                        distances[extreme] = scales.distances(again, large, dtype, columns)
                    elif not large:
                        distances[extreme] = scales.squares(again, dtype, columns)
            if not root:
                distances = searched_rows.distances(asked.metric, distances)
            inside = distances <= some.radii[:, np.newaxis]
            if some.own.size:
                inside[some.own[:, np.newaxis] == left + np.arange(len(others))] = False
            if some.y_groups.size:
                inside &= np.equal.outer(some.x_groups, some.y_groups[left : left + width]) == some.within
            i, j = np.nonzero(inside)
            found[task].append((i + first, j + left, distances[i, j], values[i, j], kinds[i, j]))
            yield

    parallel.run(look, len(found), parallel.resolve(n_threads))
    owners, others, again, values, kinds = map(np.concatenate, zip(*itertools.chain(*found), strict=True))
    order = np.lexsort((others, values, kinds, owners))
    return owners[order], others[order], again[order]
