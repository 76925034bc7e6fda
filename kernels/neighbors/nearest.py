"""The k nearest rows, found while the distances are made: the (n, m) matrix never exists.

Every block of distances is looked through while it lies in cache; `panels` makes it, with the formulas of
`_tile_metrics`. A row keeps its k best so far in a heap whose root is the worst of them; most distances are not below
the root, and 32 are dismissed with one comparison.

Order. Distances are compared as integers: the bits of floats that are not negative have the order of the floats, with
NaN above infinity. So one selection serves all dtypes, NaN comes last, and (distance, index) is a total order.

Tree. In few columns, and of rows with structure, most distances need not be made (see `_tree`).

Pruning. Of large problems most pairs are pruned by a bound from rows, or from their principal columns, rounded to bytes
(see `_pruning`).

Symmetry. Where Y is X, each pair's distance is made once if that pays (see `_symmetric`) and there are no principal
columns, which leave fewer.

Order of rows. Rows often come sorted, and from far to near every one of them would move the heap. So blocks of Y,
and the distances of a block, are visited in an order that has little to do with theirs.

Many neighbors. Where a heap would be moved too often, the k smallest are selected from blocks of distances (see
`_selection`).

Extremes. L2 distances whose squares leave the range of their dtype are noticed when all is sorted, and then searched
again (see `_extremes`).

Few queries. Where the rows of X cannot feed the threads, Y is cut too; each part's k best are merged in the same order.

Exclusion. Rows may bear groups, and then a candidate of the query's own group is passed over. With a
group for each row that is `exclude_self`; with the test fold as group it is cross-validation in one pass. `candidates`
makes of it all that may be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..distances import arguments, narrow_rows, panels, searched_rows
from ..distances.panels import (
    POINTS_STEP,
    X_ROWS,
    Y_POINTS,
    PanelPlan,
    aligned_like,
    distances_of_block,
    pack,
    scattered_place,
    scattering_step,
)
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from . import _bounds, _extremes, _pruning, _selection, _symmetric, _tree, _tree_choice, candidates
from ._heaps import KeyRule, before, key_of, key_rule, merge, new_heaps, replace_root, sort_heaps, sort_rows
from .candidates import NO_GROUPS
from .prepared import PreparedRows

__all__ = ["k_nearest"]

#: Seconds of a neighbour that is found, roughly, on top of the distances.
_NEIGHBOR_SECONDS = 1e-7

#: Seconds of a column of a query that goes by a tree, at least.
_TREE_COLUMN_SECONDS = 1e-6

#: A part of Y must repay the merging of its k best.
_PART_ROWS = 1024
_MOST_PARTS = 64

#: Looking at a distance, and moving it down one level of a heap, cost at most as much as so many columns.
_LOOKING, _PER_LEVEL = 32, 64

#: So often at most a search by way of a tree tells its progress: queries that lie together are answered together.
_TREE_STEPS = 20

#: Moves within heaps and merges that one compiled call may do: about 0.05 s.
_CALL_MERGES = 1 << 21


def k_nearest(
    X: ArrayLike,
    Y: ArrayLike | PreparedRows | None,
    k: int,
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
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find, for every row of `X`, the `k` nearest rows of `Y` and their distances.

    Parameters
    ----------
    X : array-like of shape (n, D)
        The queries. Both uint8: exact. Both of float16, float32, uint8 with at least one float:
        computed in float32. All other real dtypes: float64.
    Y : array-like of shape (m, D), PreparedRows, or None
        The rows to choose from, also as `prepare` returns them; None means `X`.
    k : int
        How many, ``1 <= k <= m``, or ``k <= m - 1`` with `exclude_self`; with `where` so many rows less as it leaves
        out.
    metric : {"l2", "l1", "linf", "sqeuclidean", "cosine", "inner_product", "hamming", "jaccard"}, default="l2"
        Also by the names "euclidean", "manhattan", "cityblock" and "chebyshev". "hamming" and "jaccard" are of packed
        bits: both sides uint8, as `numpy.packbits` makes them. "inner_product" is a similarity: the largest first.
    metric_params : dict, optional
        ``{"w": weights}``, one for each column, finite and not negative, for "l1", "l2", "linf" and "sqeuclidean": how
        much |x - y| counts, or (x - y)^2; for "linf" columns of positive weight count alike, as in SciPy. A column of
        weight 0 is not there, NaN in it neither. float32 rows become float64 where weights are very large or small.
    exclude_self : bool, default=False
        Leave out row ``i`` of `Y` for query ``i``; needs n == m, or an `offset`.
    offset : int, optional
        With `exclude_self`: query ``i`` is row ``offset + i`` of `Y`, as where queries come in batches.
    groups : pair of integer arrays of shapes (n,) and (m,), optional
        The groups of the rows of `X` and of `Y`. Only rows of other groups than the query's are its neighbors.
    within_groups : bool, default=False
        Only rows of the query's own group are its neighbors.
    where : bool array of shape (m,), optional
        Which rows of `Y` may be neighbors; None means all.
    algorithm : {"auto", "brute", "tree"}, default="auto"
        How to search; the result is the same. "brute" looks at all pairs, "tree" at those that a tree of boxes around
        rows of `Y` leaves, "auto" chooses by sizes and what a few queries tell. For uint8 rows there is no tree.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    distances : ndarray of shape (n, k)
        Ascending; float32 or float64; for uint8 input int32 (L1, L-infinity) or float32 (L2). The
        same bits as `pairwise_l1`, `pairwise_l2`, `pairwise_linf` give for the pair. "sqeuclidean" is that without the
        root, with the ties of L2. "cosine" is 1 - cos, 1 from and to a row of zeros. "inner_product" is the product
        itself, descending. "hamming" is the number of bits that differ, int32; "jaccard" the share of these in the bits
        that one of the two has, 0 if there are none, float64.
    indices : ndarray of shape (n, k), intp
        Rows of `Y`, ordered by (distance, index): the smaller index first on a tie. Ties of float L2
        are those of the squared distance; of uint8, of the exact integer. Pairs whose squares are too small for
        the dtype come before all others, those whose squares are too large after them, each in the right
        order. NaN distances come last, by index. Where `groups` leave a query fewer than `k` candidates, the last
        places have index -1 and distance infinity (the largest number of int32; of inner products minus infinity).

    Raises
    ------
    TypeError
        If an argument is not real numbers, or `k` no integer.
    ValueError
        If shapes, column counts, `k`, `metric`, `metric_params`, `algorithm` or what chooses candidates do not fit.

    Notes
    -----
    Weights and "cosine" take a copy of both sides, whose values are rounded: weighted columns, rows over their lengths.
    Of these, and for "inner_product", rows of uint8 are made float64. A row with NaN or infinity has NaN as cosine.
    There is a tree, and there are bounds, for L1, L2, L-infinity and what is made from them, "sqeuclidean" and
    "cosine".

    In few columns, and where rows of more columns lie in clusters, a tree leaves few pairs: of 10^6 rows of 3 columns
    about 120 for each query. It takes a copy of `Y`, a sixteenth of it for boxes and some 20 bytes for each row, and
    while it is made copies of up to 16,384 rows per thread. Rows of `Y` that are not finite are looked at for every
    query, and for a query with NaN all rows are. "auto" makes a tree from 2^24 pairs on (2^28 of more than 8 columns),
    for 2 log2(m)^2 queries or more, if k is at most m / 16 and 512, and 16 of them show that it pays.

    Cost of looking at all pairs: n m D subtractions and additions (half of them where `Y` is `X` and its rows are
    many and long), plus O(k log(m / k) log k) per row, also where the rows of `Y` are in some order; from 64
    neighbours on, where that would be more, O(m) for selection and O(k log k) for sorting. Work space: n k distances
    and indices, times the number of parts where Y is cut (at most 4 per thread and 64 in all, only for n < 64 per
    thread), per thread what `pairwise_l1` needs, for selection some 12 bytes for each of 2^18 pairs (or of 4 k, or
    m if that is less), and n integers with `exclude_self` or where `Y` is `X`.

    Queries that have L2 neighbours whose squares leave the range of the dtype take two to five times as long, and a
    copy of `Y` in float64. Of up to 16 queries rows of `Y` in 16-bit floats are widened in parts of eight megabytes for
    each thread, otherwise as a whole.

    With `exclude_self`, `groups` and `where` the result is that of a search among the candidates alone, with the same
    bits. Within groups only pairs of one group are looked at, and both sides are copied; the rows that `where` leaves
    are copied where that saves time.

    Of large float problems most distances are not made where a bound, from rows rounded to bytes, shows that they
    are too large: same neighbours, same bits, and up to five times faster than making them all. This takes another
    few bytes per value of up to 1,008 rows of X, and a few hundred rows of Y, per thread. Of L2 neighbours among long
    rows that vary mostly along a few directions, as images do, the bound is from up to 96 numbers per row of `X` and
    `Y`, which are kept during the call, also of uint8: up to six times faster. Where `Y` is `X` and each distance
    would be made once, there are only bounds of the latter kind.

    Examples
    --------
    >>> from fastml.kernels import k_nearest
    >>> distances, indices = k_nearest([[0.0], [10.0]], [[1.0], [-1.0], [7.0]], 2)
    >>> indices
    array([[0, 1],
           [2, 0]])
    >>> distances
    array([[1., 1.],
           [3., 9.]])

    The nearest row of the query's own group:

    >>> k_nearest([[0.0], [10.0]], [[1.0], [-1.0], [7.0]], 1, groups=([4, 6], [6, 4, 6]), within_groups=True)[1]
    array([[1],
           [2]])
    """
    short, way = arguments.metric(metric), arguments.algorithm(algorithm)
    prepared = None
    if isinstance(Y, PreparedRows):
        prepared, Y = Y, Y.of(short)
    elif metric_params is None and way != "tree" and Y is not X and narrow_rows.is_possible(short, Y):
        narrow: Any = Y
        x, _, _ = arguments.pair(X, narrow[:1])
        k, chosen = candidates.checked(k, len(x), len(narrow), exclude_self, offset, groups, within_groups, where)
        found = narrow_rows.search(short, x, narrow, k, n_threads, _outside_groups) if chosen.is_all else None
        if found is not None:
            return found
    x, y = searched_rows.settled(short, metric_params, X, Y, n_threads)
    k, chosen = candidates.checked(k, len(x), len(y), exclude_self, offset, groups, within_groups, where)
    if chosen.is_all:
        return _outside_groups(short, way, x, NO_GROUPS, y, NO_GROUPS, k, n_threads, prepared=prepared)
    search = partial(_outside_groups, short, way, prepared=prepared)
    dtype = arguments.result_dtype(short, x.dtype, x.shape[1])
    return candidates.find(chosen, short, dtype, x, y, k, n_threads, search, prepared is not None)


def k_nearest_outside_group(
    X: ArrayLike,
    groups: NDArray[np.intp],
    k: int,
    *,
    metric: str = "l2",
    metric_params: Mapping[str, Any] | None = None,
    algorithm: arguments.Algorithm = "auto",
    n_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find, for every row of `X`, the `k` nearest rows of other groups, as `k_nearest` does.

    Where a row has fewer than `k` candidates, the last places hold no valid index. `progress` is told now and then how
    many more rows' worth of the work is done.
    """
    short = arguments.metric(metric)
    x, y = searched_rows.settled(short, metric_params, X, None, n_threads)
    return _outside_groups(short, arguments.algorithm(algorithm), x, groups, y, groups, k, n_threads, progress)


def _outside_groups(
    metric: arguments.Metric,
    algorithm: arguments.Algorithm,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    k: int,
    n_threads: int | None,
    progress: Callable[[int], object] | None = None,
    prepared: PreparedRows | None = None,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find neighbors among settled rows of other groups in the way that pays; empty groups exclude nothing."""
    if prepared is not None and y is not prepared.rows:  # a part of them, or in another dtype
        prepared = None
    place = x, x_groups, y, y_groups, k, n_threads
    choose_tree = _tree_choice.choose if prepared is None else prepared.tree_for
    tree = choose_tree(algorithm, arguments.base(metric), *place)
    same, bounds = x is y and x_groups is y_groups, None
    # Else nobody asks, and to look takes time.
    threads = parallel.resolve(n_threads) if same or progress is not None else 1
    if tree is None and same and _symmetric.is_worthwhile(x, k, threads):
        bounds = _bounds.by_columns(arguments.base(metric), x, y, k, threads)
        if bounds is None:
            return _nearest_by_symmetry(metric, x, x_groups, k, n_threads, progress)
    if progress is None:
        kept = None if prepared is None or tree is not None else prepared.bounds_for(len(x), n_threads)
        return _nearest(metric, *place, tree, kept, bounds)
    step = panels.TASK_ROWS * threads
    if tree is not None:
        step = max(step, len(x) // _TREE_STEPS)
    parts = []
    for first in range(0, len(x), step):
        some = slice(first, first + step)
        of_part = None if bounds is None else bounds.of_queries(some)
        parts.append(_nearest(metric, x[some], x_groups[some], y, y_groups, k, n_threads, tree, bounds=of_part))
        progress(len(parts[-1][0]))
    distances, indices = zip(*parts, strict=True)
    return np.concatenate(distances), np.concatenate(indices)


def _nearest_by_symmetry(
    metric: arguments.Metric,
    x: NDArray[Any],
    groups: NDArray[np.intp],
    k: int,
    n_threads: int | None,
    progress: Callable[[int], object] | None = None,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find neighbours among settled rows, every pair's distance made once."""
    n, d = x.shape
    base = arguments.base(metric)
    ordinary = panels.ordinary_totals(base, x.dtype, d)
    keys, indices = new_heaps((n, k), ordinary.dtype)
    threads = parallel.resolve(n_threads)
    _symmetric.fill_heaps(base, x, groups, key_rule(ordinary.dtype), keys, indices, threads, progress)
    most = max(1, _CALL_MERGES // (k * k.bit_length()))
    parallel.run_ranges(lambda first, last: sort_rows(keys[first:last], indices[first:last]), n, threads, most=most)
    return _distances(metric, x, groups, x, groups, keys, indices, threads), indices


def _nearest(
    metric: arguments.Metric,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    k: int,
    n_threads: int | None,
    tree: _tree.Tree | None = None,
    kept: _bounds.Bounds | None = None,
    bounds: _bounds.Bounds | None = None,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find neighbours among settled rows, in a tree of those of Y if there is one; empty groups exclude nothing."""
    base = arguments.base(metric)
    if tree is not None:
        threads = parallel.resolve(n_threads, seconds=x.size * _TREE_COLUMN_SECONDS)
        keys, indices, _ = _tree.search(base, tree, x, x_groups, y_groups, k, x is y, threads)
        return _distances(metric, x, x_groups, y, y_groups, keys, indices, threads, by_tree=True), indices
    keys, indices, threads, extreme = _search_rows(base, x, x_groups, y, y_groups, k, n_threads, kept, bounds)
    return _distances(metric, x, x_groups, y, y_groups, keys, indices, threads, extreme), indices


def _search_rows(
    metric: arguments.Metric,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    k: int,
    n_threads: int | None,
    kept: _bounds.Bounds | None = None,
    bounds: _bounds.Bounds | None = None,
) -> tuple[NDArray[Any], NDArray[np.intp], int, bool | None]:
    """Return sorted keys and indices, the threads that were used, and whether some totals are not ordinary.

    None: it is not known. Bounds may have been `kept`, or chosen.
    """
    (n, d), m = x.shape, y.shape[0]
    ordinary = panels.ordinary_totals(metric, x.dtype, d)
    seconds = panels.seconds(n, m, d * x.itemsize) + n * k * _NEIGHBOR_SECONDS
    threads = parallel.resolve(n_threads, seconds=seconds)
    serial = seconds < parallel.SMALL_SECONDS and threads == 1

    if bounds is None and _selection.is_worthwhile(n, m, k) and not _bounds.is_worthwhile(metric, x.dtype, n, m, d, k):
        keys, indices = new_heaps((n, k), ordinary.dtype)
        _selection.fill(metric, x, x_groups, y, y_groups, keys, indices, threads)
        return keys, indices, threads, None
    rule = key_rule(ordinary.dtype)
    cut = tuple(panels.plan(metric, x.dtype, n, d)), tuple(rule)
    x_groups, y, y_groups = readonly(x_groups), readonly(y), readonly(y_groups)
    if serial and n <= panels.TASK_ROWS and k * n < _CALL_MERGES:
        keys, indices = new_heaps((n, k), ordinary.dtype)
        rows = panels.whole_steps(x)
        extreme = _search(*cut, rows, x_groups, y, y_groups, (0, m), True, True, ordinary, keys, indices)
        return keys, indices, threads, extreme

    rows_at_once = panels.task_rows(n, threads)
    selecting = _LOOKING + _PER_LEVEL * k.bit_length()
    sorts_at_once = max(1, _CALL_MERGES // (k * k.bit_length()))
    x_parts = [(first, min(n, first + rows_at_once)) for first in range(0, n, rows_at_once)]
    y_parts = _parts_of_y(m, k, len(x_parts), threads, 4 if kept is None else 1)
    keys, indices = new_heaps((len(y_parts), n, k), ordinary.dtype)
    if bounds is None:
        bounds = _bounds.choose(metric, x, y, k, rows_at_once, threads, kept, is_cut=len(y_parts) > 1)

    def search(task: int) -> Iterator[None]:
        part, (first, last) = task % len(y_parts), x_parts[task // len(y_parts)]
        y_first, y_last = y_parts[part]
        queries = panels.whole_steps(x[first:last])
        own, best, chosen = x_groups[first:last], keys[part, first:last], indices[part, first:last]

        def search_all(top: int, bottom: int, begin: int, end: int, begins: bool = False) -> Iterator[None]:
            some = slice(top, bottom)
            for left, right in panels.scattered(panels.y_ranges(bottom - top, begin, end, d + selecting)):
                heaps = best[some], chosen[some]
                place = queries[some], own[some], y, y_groups, (left, right)
                _search(*cut, *place, begins, False, ordinary, *heaps)
                begins = False
                yield

        if bounds is None:
            yield from search_all(0, last - first, y_first, y_last, begins=True)
        else:
            place = first, last, queries, own, y, y_groups, (y_first, y_last)
            yield from _pruning.fill_heaps(metric, bounds, *place, rule, best, chosen, search_all)
        for top in range(0, last - first, sorts_at_once):
            sort_rows(best[top : top + sorts_at_once], chosen[top : top + sorts_at_once])
            yield

    parallel.run(search, len(x_parts) * len(y_parts), threads)
    if len(y_parts) > 1:
        most = max(1, _CALL_MERGES // (k * len(y_parts)))
        parallel.run_ranges(lambda first, last: merge(keys, indices, first, last), n, threads, most=most)
    return keys[0], indices[0], threads, None


def _parts_of_y(m: int, k: int, n_tasks: int, threads: int, for_each: int) -> list[tuple[int, int]]:
    """Cut Y, at most into so many parts for each thread, where the rows of X leave threads idle.

    A part must outweigh its merging, and with bounds the search for its first neighbors.
    """
    wanted = 1 if n_tasks >= threads else min(for_each * threads, _MOST_PARTS, m // max(_PART_ROWS, 4 * k))
    step = max(1, -(-m // (max(1, wanted) * POINTS_STEP)) * POINTS_STEP)
    return [(first, min(m, first + step)) for first in range(0, m, step)]


def _distances(
    metric: arguments.Metric,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    keys: NDArray[Any],
    indices: NDArray[np.intp],
    threads: int,
    extreme: bool | None = None,
    by_tree: bool = False,
) -> NDArray[Any]:
    """Return the distances that sorted keys stand for; correct those whose squares left their range, and `indices`.

    `extreme` says whether there are such; None: it is not known. These are searched again `by_tree`, or among all.
    """
    base, root = arguments.base(metric), arguments.DEFINITIONS[metric].root
    ordinary = panels.ordinary_totals(base, x.dtype, x.shape[1])
    totals = keys.view(ordinary.dtype)
    if base != "l2" or (totals.dtype.kind == "i" and not root):
        return searched_rows.distances(metric, totals)
    if totals.dtype.kind == "i":
        return np.sqrt(totals.astype(np.float64)).astype(arguments.result_dtype(metric, x.dtype, x.shape[1]))
    if extreme is None and len(totals):
        within = totals[:, 0].min() >= ordinary[0] and totals[:, -1].max() <= ordinary[1]
        extreme = not within and _some_are_extreme(x, y, ordinary, keys, indices, threads)
    if extreme:

        def nearest(
            x: NDArray[Any], x_groups: NDArray[np.intp], y: NDArray[Any], y_groups: NDArray[np.intp], k: int
        ) -> NDArray[np.intp]:
            if by_tree:
                return _tree.search(base, _tree.build(y, threads), x, x_groups, y_groups, k, x is y, threads)[1]
            return _search_rows(base, x, x_groups, y, y_groups, k, threads)[1]

        found = _extremes.correct_nearest(x, x_groups, y, y_groups, totals, indices, threads, nearest, root)
    else:
        found = np.sqrt(totals) if root else totals
    return searched_rows.distances(metric, found)


def _some_are_extreme(
    x: NDArray[Any],
    y: NDArray[Any],
    ordinary: NDArray[Any],
    keys: NDArray[Any],
    indices: NDArray[np.intp],
    threads: int,
) -> bool:
    """Whether distances are not `ordinary`, those between equal rows excepted."""
    x, y = readonly(x), readonly(y)
    found: list[int] = []

    def look(first: int, last: int) -> None:
        some = slice(first, last)
        if not found and _have_extremes(x[some], y, ordinary, keys[some], indices[some]):
            found.append(first)

    n, k = keys.shape
    parallel.run_ranges(look, n, threads, most=max(1, _CALL_MERGES // (k * max(1, x.shape[1] // _PER_LEVEL))))
    return bool(found)


@kernel
def _search(  # type: ignore[no-untyped-def]
    cut, keyed, X, x_groups, Y, y_groups, y_range, begins, ends, ordinary, keys, indices
):
    """Offer the rows of Y from `y_range` to the heaps of the rows of X, those of the same group excepted.

    When a part of Y `begins`, the heaps are filled with what is worse than any distance, NaN included;
    when it `ends`, they are sorted, and what is returned says whether some of them are not `ordinary`.
    The plan and the rule of keys come as plain tuples, which are handed over faster than named ones.
    """
    plan, rule = PanelPlan(*cut), KeyRule(*keyed)
    y_first, y_last = y_range
    if begins:
        keys[:] = np.iinfo(keys.dtype).max
        indices[:] = np.iinfo(np.intp).max
    block = plan.block_points
    n = X.shape[0]
    height = -(-min(X_ROWS, n) // plan.tile_rows) * plan.tile_rows
    width = -(-min(block, y_last - y_first) // POINTS_STEP) * POINTS_STEP
    panels, broadcast_x = aligned_like(width * X.shape[1], Y), aligned_like(plan.workspace, Y)
    totals = aligned_like(height * width, ordinary).reshape((height, width))
    seen_as_keys = totals.view(keys.dtype)
    span = max(1, Y_POINTS // block) * block  # small blocks are visited several together, as they lie in memory
    spans = -(-(y_last - y_first) // span)
    step = scattering_step(max(1, spans - 1))
    turns, turn = 0, 0
    for place in range(spans * (span // block)):
        turn_of_span, within = divmod(place, span // block)
        left = y_first + scattered_place(turn_of_span, spans, step) * span + within * block
        if left >= y_last:
            continue
        right = min(y_last, left + block)
        if turns != -(-(right - left) // KEYS_AT_ONCE):
            turns = -(-(right - left) // KEYS_AT_ONCE)
            turn = scattering_step(turns)
        pack(plan, Y, left, right, panels)
        for top in range(0, n, X_ROWS):
            bottom = min(n, top + X_ROWS)
            distances_of_block(plan, X, top, bottom, panels, np.intp(0), right - left, broadcast_x, totals)
            for i in range(top, bottom):
                own = x_groups[i] if x_groups.size else 0
                row = seen_as_keys[i - top]
                _offer_row(row, right - left, left, turn, own, y_groups, rule, keys[i], indices[i])
    if not ends:
        return False
    sort_heaps(keys, indices)
    return _has_extremes(X, Y, ordinary, keys, indices)


@inner
def _has_extremes(X, Y, ordinary, keys, indices):  # type: ignore[no-untyped-def]
    """Whether some distances, in order, are not `ordinary`, those of equal rows excepted."""
    totals = keys.view(ordinary.dtype)
    for i in range(totals.shape[0]):
        if not totals[i, -1] <= ordinary[1]:
            return True
        for place in range(totals.shape[1]):
            if totals[i, place] >= ordinary[0]:
                break
            x, y = X[i], Y[indices[i, place]]
            for column in range(y.size):
                if x[column] != y[column]:
                    return True
    return False


@kernel
def _have_extremes(X, Y, ordinary, keys, indices):  # type: ignore[no-untyped-def]
    """As `_has_extremes`."""
    return _has_extremes(X, Y, ordinary, keys, indices)


@inner
def _offer_row(row, size, left, step, own, groups, rule, keys, indices):  # type: ignore[no-untyped-def]
    """Offer one row of a block, columns ``left : left + size`` of Y, to the row's heap.

    Candidates of the group `own` are passed over; empty `groups` pass over nothing. They come 32 by 32: as they lie, or
    where the distances seem to be in order, every `step` times 32 places on, from the end that is nearer.
    """
    end, ahead, begin = -(-size // KEYS_AT_ONCE) * KEYS_AT_ONCE, KEYS_AT_ONCE, 0
    if _fall_and_rise(row, size, rule):
        ahead = step * KEYS_AT_ONCE
        if key_of(row[size - 1], rule) < key_of(row[0], rule):
            begin, ahead = end - KEYS_AT_ONCE, end - ahead
    limit = _limit(left, keys, indices)
    for _ in range(0, end, KEYS_AT_ONCE):
        candidates = comparisons.below(row, begin, limit, rule.mask, rule.nan_key)
        if size - begin < KEYS_AT_ONCE:
            candidates &= (1 << (size - begin)) - 1
        while candidates:
            j = begin + comparisons.lowest_bit(candidates)
            candidates &= candidates - 1
            key = key_of(row[j], rule)
            if before(keys, indices, 0, key, left + j) or (groups.size and groups[left + j] == own):
                continue
            replace_root(keys, indices, keys.size, key, left + j)
            limit = _limit(left, keys, indices)
        begin += ahead
        if begin >= end:
            begin -= end


@inner
def _fall_and_rise(row, size, rule):  # type: ignore[no-untyped-def]
    """Whether five keys from all over a row fall and then rise, or do one of these; equal ones do neither."""
    rises, last = False, key_of(row[0], rule)
    for part in range(1, 5):
        key = key_of(row[(size - 1) * part // 4], rule)
        if key == last or (rises and key < last):
            return False
        rises, last = key > last, key
    return True


@inner
def _limit(left, keys, indices):  # type: ignore[no-untyped-def]
    """Return the key that candidates from the index `left` on must be below; of equals the first is nearer."""
    largest = np.iinfo(keys.dtype).max  # the worst of an empty heap, which no candidate equals
    return keys[0] + (left < indices[0]) if keys[0] < largest else largest
