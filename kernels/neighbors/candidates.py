"""Which rows of Y may be neighbors of which rows of X, and searches among these.

A search passes over rows of the query's own group. All else is made of this: a query that is no neighbor of itself has
a group of its own; rows of Y that may be no neighbors are left out, or have the group of all queries; and neighbors
within the query's group are looked for group by group, so that no other pair is looked at.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments.arrays import INTP, as_contiguous, real, refuse_masked
from ..arguments.scalars import flag
from ..distances import arguments
from ..runtime import parallel

__all__ = ["NO_GROUPS", "NO_ROW", "Candidates", "allowed", "checked", "find", "nothing_found", "stay"]

#: The index that stands where a query has no more candidates.
NO_ROW = -1

#: To copy a row takes as long as to look at it for so many queries.
_COPYING = 4

#: One in so many rows of Y is few.
_FEW_LEFT = 16

#: Pairs, and columns of pairs, of groups that are searched side by side: each in one compiled call.
_SMALL_GROUP = 1 << 24
_PER_PAIR = 64

#: What stands where rows have no groups: read-only, as kernels want it.
NO_GROUPS = np.empty(0, np.intp)
NO_GROUPS.setflags(write=False)

#: Finds the k nearest rows of Y of other groups: ``search(x, x_groups, y, y_groups, k, n_threads)``.
Search = Callable[..., tuple[NDArray[Any], NDArray[np.intp]]]


class Candidates(NamedTuple):
    """Which rows of Y may be neighbors."""

    #: The group of each row of X, and of each row of Y.
    groups: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None
    #: Whether neighbors are rows of the query's own group, or of others.
    within: bool = False
    #: Which rows of Y may be neighbors at all.
    where: NDArray[np.bool_] | None = None
    #: The row of Y that is query 0, where no query is a neighbor of itself.
    offset: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether all rows may be neighbors of all."""
        return self is _ALL

    def of(self, i: int, m: int) -> NDArray[np.intp]:
        """Return which of the m rows of Y may be neighbors of row i of X: what is meant, not how it is found."""
        may = np.ones(m, np.bool_) if self.where is None else self.where.copy()
        if self.groups is not None:
            may &= (self.groups[1] == self.groups[0][i]) == self.within
        if self.offset is not None:
            may[self.offset + i] = False
        return np.flatnonzero(may)


_ALL = Candidates()


def checked(
    k: object,
    n: int,
    m: int,
    exclude_self: object = False,
    offset: object = None,
    groups: object = None,
    within_groups: object = False,
    where: ArrayLike | None = None,
) -> tuple[int, Candidates]:
    """Return the number of neighbors, and which rows of Y may be among them, from arguments of `k_nearest`."""
    found = allowed(n, m, exclude_self, offset, groups, within_groups, where)
    count = arguments.k(k, m, found.offset is not None)
    if found.where is not None:
        mask, first = found.where, found.offset
        most = int(np.count_nonzero(mask))
        own = "" if first is None or not mask[first : first + n].any() else ", of which each query leaves out one"
        if most - bool(own) < 1:
            raise ValueError(f"`where` leaves {most} row{'s' * (most != 1)} of Y{own}; a neighbor must be left")
        if count > most - bool(own):
            raise ValueError(
                f"k is {count}; it must be at most {most - bool(own)}: `where` leaves {most} rows of Y{own}"
            )
    return count, found


def allowed(
    n: int,
    m: int,
    exclude_self: object = False,
    offset: object = None,
    groups: object = None,
    within_groups: object = False,
    where: ArrayLike | None = None,
) -> Candidates:
    """Return which rows of Y may be neighbors, from arguments of any search."""
    excludes = flag(exclude_self, "exclude_self")
    if excludes and offset is None and n != m:
        raise ValueError(f"exclude_self needs as many rows in Y as in X, or an offset; Y has {m}, X has {n}")
    if groups is None and where is None and offset is None and within_groups is False:
        return Candidates(offset=0) if excludes else _ALL
    within = flag(within_groups, "within_groups")
    first = _offset(offset, excludes, n, m)
    if within and groups is None:
        raise ValueError("within_groups is True; it needs groups")
    pair = None if groups is None else _groups(groups, n, m)
    mask = None if where is None else _mask(where, m)
    return Candidates(pair, within, mask, first)


def _offset(offset: object, exclude_self: bool, n: int, m: int) -> int | None:
    """Return which row of Y is query 0, or None where queries may be neighbors of themselves."""
    if offset is None:
        return 0 if exclude_self else None
    if isinstance(offset, (bool, np.bool_)) or not isinstance(offset, numbers.Integral):
        raise TypeError(f"offset is {offset!r} ({type(offset).__name__}); it must be an integer or None")
    if not exclude_self:
        raise ValueError(f"offset is {offset}; it says which row of Y is query 0, for exclude_self=True only")
    if not 0 <= int(offset) <= m - n:
        raise ValueError(f"offset is {offset}; the {n} rows of Y from there on must be those of X, Y has {m}")
    return int(offset)


def _groups(groups: Any, n: int, m: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the groups of the rows of X and of Y."""
    if not isinstance(groups, (tuple, list)) or len(groups) != 2:
        raise TypeError("groups must be a pair: those of the rows of X, and those of the rows of Y")
    settled = []
    for place, (given, rows, side) in enumerate(zip(groups, (n, m), "XY", strict=True)):
        name = f"groups[{place}]"
        raw = real(given, name)
        if raw.shape != (rows,):
            raise ValueError(f"{name} has shape {raw.shape}; it must be ({rows},), one number for each row of {side}")
        if raw.dtype.kind not in "iu" and raw.size:
            raise TypeError(f"{name} has dtype {raw.dtype}; groups must be integers")
        if raw.dtype == np.uint64 and raw.size and np.maximum.reduce(raw) > np.iinfo(np.intp).max:
            raise ValueError(f"{name} has numbers beyond the range of {INTP}")
        settled.append(as_contiguous(raw, INTP))
    return settled[0], settled[1]


def _mask(where: ArrayLike, m: int) -> NDArray[np.bool_]:
    """Return which rows of Y may be neighbors."""
    refuse_masked(where, "where")
    mask = np.asarray(where)
    if mask.dtype != np.bool_:
        raise TypeError(f"where has dtype {mask.dtype}; it must be bool, True for each row of Y that may be a neighbor")
    if mask.shape != (m,):
        raise ValueError(f"where has shape {mask.shape}; it must be ({m},), one value for each row of Y")
    return mask


def find(
    chosen: Candidates,
    metric: arguments.Metric,
    dtype: np.dtype[Any],
    x: NDArray[Any],
    y: NDArray[Any],
    k: int,
    n_threads: int | None,
    search: Search,
    prepared: bool = False,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return distances by a metric, of a dtype, and indices of the nearest candidates, found by `search`.

    Where rows of Y are `prepared`, they are copied only if few are left.
    """
    (groups, within, where, offset), n, m = chosen, len(x), len(y)
    own, others = groups or (NO_GROUPS, NO_GROUPS)
    rows = None
    if where is not None and not where.all():
        rows = np.flatnonzero(where)
        if groups is None and offset is None and stay(n, m, rows.size, prepared):
            own, others, rows = np.ones(n, np.intp), (~where).astype(np.intp), None
        else:
            y, others = y[rows], others[rows] if others.size else others
    elif x is y and own.size and np.array_equal(own, others):
        own = others
    width, own_row = k, None if offset is None else offset + np.arange(n)
    if within:
        numbered = (NO_GROUPS, NO_GROUPS) if own_row is None else (own_row, np.arange(m) if rows is None else rows)
        distances, indices = _find_within(dtype, x, own, y, others, numbered, k, n_threads, search)
    else:
        if own_row is not None and groups is None:
            others = np.arange(m) if rows is None else rows
            own = others if n == m and rows is None else own_row
        elif own_row is not None and groups is not None and not np.array_equal(groups[0], groups[1][own_row]):
            width = min(k + 1, len(y))  # a row may be in another group than the query that it is
        distances, indices = search(x, own, y, others, width, n_threads)
    if groups is not None:
        lacking = indices == np.iinfo(np.intp).max
        distances[lacking], indices[lacking] = nothing_found(metric, dtype), NO_ROW
    if rows is not None:
        np.copyto(indices, rows[indices], where=indices != NO_ROW)
    if width > k and own_row is not None:
        kept = indices != own_row[:, np.newaxis]
        kept[kept.all(axis=1), -1] = False
        distances, indices = (found[kept].reshape(n, k) for found in (distances, indices))
    return distances, indices


def stay(n: int, m: int, left: int, prepared: bool) -> bool:
    """Whether n queries had better pass over the rows of Y that may be no neighbors than have the others copied."""
    return m <= _FEW_LEFT * left if prepared else n * (m - left) <= _COPYING * left


def nothing_found(metric: arguments.Metric, dtype: np.dtype[Any]) -> Any:
    """Return the distance that stands where a query has no more candidates: the last of all."""
    if metric == "inner_product":
        return -np.inf
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _find_within(
    dtype: np.dtype[Any],
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    numbered: tuple[NDArray[np.intp], NDArray[np.intp]],
    k: int,
    n_threads: int | None,
    search: Search,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Find neighbors group by group; where rows are `numbered`, those of other numbers than the query's."""
    largest = np.iinfo(np.intp).max
    distances, indices = np.full((len(x), k), 0, dtype), np.full((len(x), k), largest)
    if not len(x):
        return distances, indices
    same = x is y and x_groups is y_groups
    x_order, y_order = (np.argsort(groups, kind="stable") for groups in (x_groups, y_groups))
    y_rows, in_order = y[y_order], y_groups[y_order]
    x_rows = y_rows if same else x[x_order]
    labels, x_starts = np.unique(x_groups[x_order], return_index=True)
    x_ends = np.append(x_starts[1:], len(x))
    y_starts, y_ends = (np.searchsorted(in_order, labels, side) for side in ("left", "right"))

    def work(group: int, n_threads: int | None) -> None:
        queries, rows = slice(x_starts[group], x_ends[group]), slice(y_starts[group], y_ends[group])
        candidates, some = y_order[rows], x_order[queries]
        width = min(k, len(candidates))
        if not width:
            return
        own, others = (part[of] if part.size else part for part, of in zip(numbered, (some, candidates), strict=True))
        others_rows = y_rows[rows]
        mine = (others_rows, others) if same else (x_rows[queries], own)
        found = search(*mine, others_rows, others, width, n_threads)
        exist = found[1] != largest
        distances[some, :width] = found[0]
        indices[some, :width] = np.where(exist, candidates[np.where(exist, found[1], 0)], largest)

    work_of = (x_ends - x_starts) * (y_ends - y_starts) * (x.shape[1] + _PER_PAIR)
    threads = parallel.resolve(n_threads)
    is_small = (work_of < _SMALL_GROUP) & (work_of * threads < work_of.sum())
    for group in np.flatnonzero(~is_small).tolist():
        work(group, n_threads)
    small = np.flatnonzero(is_small).tolist()
    parallel.run(lambda task: work(small[task], 1), len(small), threads)
    return distances, indices
