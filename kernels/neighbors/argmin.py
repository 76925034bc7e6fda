"""The one nearest row: a running minimum for each query in place of a heap.

Keys of a block are looked through by vectors for the smallest of a row; where it is below that of all blocks before,
the first place that has it is looked for. Blocks come in the order of Y, so of equal distances the first stays. What a
tree, or bounds, may save is left to `nearest`, and so are few queries of many rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..distances import arguments, panels, searched_rows
from ..distances.panels import (
    KEY_DTYPES,
    POINTS_STEP,
    X_ROWS,
    PanelPlan,
    aligned_like,
    distances_of_block,
    pack,
)
from ..runtime import parallel
from ..runtime.jit import kernel, readonly
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from . import _bounds, _principal, _tree_choice, nearest
from ._heaps import key_rule
from .candidates import NO_GROUPS
from .prepared import PreparedRows

__all__ = ["pairwise_argmin", "pairwise_argmin_min"]

#: Queries of a thread, from which on Y need not be cut.
_FEWEST_QUERIES = 64

#: To look at a distance takes as long as so many columns.
_LOOKING = 16


def pairwise_argmin(
    X: ArrayLike,
    Y: ArrayLike | PreparedRows | None,
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
    """Find, for every row of `X`, the nearest row of `Y`.

    Parameters
    ----------
    X : array-like of shape (n, D)
        The queries; dtypes as in `k_nearest`.
    Y : array-like of shape (m, D), PreparedRows, or None
        The rows to choose from, at least one, also as `prepare` returns them; None means `X`.
    metric, metric_params
        As in `k_nearest`. By "inner_product" the nearest row has the largest product.
    exclude_self, offset, groups, within_groups, where
        Which rows of `Y` may be neighbors, as in `k_nearest`.
    algorithm : {"auto", "brute", "tree"}, default="auto"
        How to search, as in `k_nearest`; the result is the same.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n,), intp
        Rows of `Y`: those of ``k_nearest(X, Y, 1)``, the first on a tie; -1 where `groups` leave none.

    See Also
    --------
    pairwise_argmin_min : the distances as well, and what it costs.

    Examples
    --------
    >>> from fastml.kernels import pairwise_argmin
    >>> pairwise_argmin([[0.0], [10.0]], [[1.0], [-1.0], [7.0]])
    array([0, 2])
    """
    return pairwise_argmin_min(
        X,
        Y,
        metric=metric,
        metric_params=metric_params,
        exclude_self=exclude_self,
        offset=offset,
        groups=groups,
        within_groups=within_groups,
        where=where,
        algorithm=algorithm,
        n_threads=n_threads,
    )[0]


def pairwise_argmin_min(
    X: ArrayLike,
    Y: ArrayLike | PreparedRows | None,
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
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Find, for every row of `X`, the nearest row of `Y` and its distance.

    Parameters
    ----------
    X : array-like of shape (n, D)
        The queries; dtypes as in `k_nearest`.
    Y : array-like of shape (m, D), PreparedRows, or None
        The rows to choose from, at least one, also as `prepare` returns them; None means `X`.
    metric, metric_params
        As in `k_nearest`. By "inner_product" the nearest row has the largest product.
    exclude_self, offset, groups, within_groups, where
        Which rows of `Y` may be neighbors, as in `k_nearest`.
    algorithm : {"auto", "brute", "tree"}, default="auto"
        How to search, as in `k_nearest`; the result is the same.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    argmin : ndarray of shape (n,), intp
        Rows of `Y`, the first on a tie; -1 where `groups` leave none.
    distances : ndarray of shape (n,)
        The same bits as ``k_nearest(X, Y, 1)`` gives, of the same dtype.

    Notes
    -----
    n m D subtractions and additions; where a tree or bounds may save most of them, where some rows are no candidates,
    or `Y` is prepared, the search of `k_nearest`. The fewer columns, the more it gains beside `k_nearest`: of 16
    columns and 100 rows of `Y` more than half of the time. Work space per thread as for `pairwise_l1`.

    Examples
    --------
    >>> from fastml.kernels import pairwise_argmin_min
    >>> pairwise_argmin_min([[0.0], [10.0]], [[1.0], [-1.0], [7.0]])
    (array([0, 2]), array([1., 3.]))
    """
    are_restricted = offset is not None or groups is not None or where is not None
    if are_restricted or exclude_self is not False or within_groups is not False or isinstance(Y, PreparedRows):
        distances, indices = nearest.k_nearest(
            X,
            Y,
            1,
            metric=metric,
            metric_params=metric_params,
            exclude_self=exclude_self,
            offset=offset,
            groups=groups,
            within_groups=within_groups,
            where=where,
            algorithm=algorithm,
            n_threads=n_threads,
        )
        return indices[:, 0], distances[:, 0]
    short, algorithm = arguments.metric(metric), arguments.algorithm(algorithm)
    base = arguments.base(short)
    x, y = searched_rows.settled(short, metric_params, X, Y, n_threads)
    arguments.k(1, len(y), False)
    rows = x, NO_GROUPS, y, NO_GROUPS
    tree = _tree_choice.choose(algorithm, base, *rows, 1, n_threads)
    if tree is None and _looks_at_all(base, x, y, n_threads):
        keys, indices, threads = _find(base, x, y, n_threads)
        return indices[:, 0], nearest._distances(short, *rows, keys, indices, threads)[:, 0]
    distances, indices = nearest._nearest(short, *rows, 1, n_threads, tree)
    return indices[:, 0], distances[:, 0]


def _looks_at_all(metric: arguments.Metric, x: NDArray[Any], y: NDArray[Any], n_threads: int | None) -> bool:
    """Whether all distances are made, and Y is not cut."""
    (n, d), m = x.shape, len(y)
    threads = parallel.resolve(n_threads, seconds=panels.seconds(n, m, d * x.itemsize))
    rows = panels.task_rows(n, threads)
    return (
        (threads == 1 or n >= threads * _FEWEST_QUERIES)
        and not _bounds.is_worthwhile(metric, x.dtype, rows, m, d, 1)
        and not _principal.is_worthwhile(metric, n, m, d, 1)
    )


def _find(
    metric: arguments.Metric, x: NDArray[Any], y: NDArray[Any], n_threads: int | None
) -> tuple[NDArray[Any], NDArray[np.intp], int]:
    """Return the key and the index of each row's nearest, (n, 1), and the threads that were used."""
    (n, d), m = x.shape, len(y)
    ordinary = panels.ordinary_totals(metric, x.dtype, d)
    cut, rule = tuple(panels.plan(metric, x.dtype, n, d)), tuple(key_rule(ordinary.dtype))
    keys = np.full((n, 1), np.iinfo(KEY_DTYPES[ordinary.dtype]).max, KEY_DTYPES[ordinary.dtype])
    indices = np.zeros((n, 1), np.intp)
    threads = parallel.resolve(n_threads, seconds=panels.seconds(n, m, d * x.itemsize))
    rows, y = panels.task_rows(n, threads), readonly(y)

    def search(task: int) -> Iterator[None]:
        some = slice(task * rows, (task + 1) * rows)
        queries, best, chosen = panels.whole_steps(x[some]), keys[some, 0], indices[some, 0]
        for left, right in panels.y_ranges(len(queries), 0, m, d + _LOOKING):
            _offer(cut, rule, queries, y, left, right, ordinary, best, chosen)
            yield

    parallel.run(search, -(-n // rows), threads)
    return keys, indices, threads


@kernel
def _offer(cut, rule, X, Y, first, last, ordinary, keys, indices):  # type: ignore[no-untyped-def]
    """Offer the rows ``first:last`` of Y to the rows of X, whose nearest so far are `keys` and `indices`."""
    plan, (mask, nan_key) = PanelPlan(*cut), rule
    block = plan.block_points
    n = X.shape[0]
    height = -(-min(X_ROWS, n) // plan.tile_rows) * plan.tile_rows
    width = -(-min(block, last - first) // POINTS_STEP) * POINTS_STEP
    panels, broadcast_x = aligned_like(width * X.shape[1], Y), aligned_like(plan.workspace, Y)
    totals = aligned_like(height * width, ordinary).reshape((height, width))
    seen_as_keys = totals.view(keys.dtype)
    for left in range(first, last, block):
        size = min(last - left, block)
        pack(plan, Y, left, left + size, panels)
        for top in range(0, n, X_ROWS):
            bottom = min(n, top + X_ROWS)
            distances_of_block(plan, X, top, bottom, panels, np.intp(0), size, broadcast_x, totals)
            for i in range(top, bottom):
                row = seen_as_keys[i - top]
                key = comparisons.smallest(row, size, mask, nan_key)
                if key < keys[i]:
                    begin, found = 0, comparisons.below(row, 0, key + 1, mask, nan_key)
                    while found == 0:
                        begin += KEYS_AT_ONCE
                        found = comparisons.below(row, begin, key + 1, mask, nan_key)
                    keys[i], indices[i] = key, left + begin + comparisons.lowest_bit(found)
