"""The nearest rows that have a value where a row misses one, for every missing value (see `nearest_donors`).

Distances are of the columns that both rows have: the mean square of their differences, by which neighbors are ordered,
or nan_euclidean, its root times that of the number of columns. A row without a column in common is no neighbor.

Donors lie in panels of 64, a column after the other, so that a difference is made for a vector of donors at a time; a
missing value is NaN there, and adds nothing.

A query has a heap for each of its missing values. A heap is offered what is below its root and has the column: bits of
64 donors say which do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..distances.panels import aligned_like
from ..runtime import parallel
from ..runtime.jit import kernel, readonly, scalar
from ..simd.comparisons import KEYS_AT_ONCE, below, lowest_bit
from ._heaps import KeyRule, _sort, before, key_of, key_rule, replace_root

__all__ = ["Donors", "Found", "nearest_donors", "pack"]

Array = NDArray[np.float64]

#: Donors of a panel: as many as bits of an integer.
_WIDTH = 64

#: Columns whose differences are added at a time; a query's list of columns is padded with one that nobody has.
_AT_ONCE = 4

#: Looking at a distance costs as much as so many columns, and a column of a pair so many seconds, roughly.
_LOOKING, _PAIR_SECONDS = 8, 1e-10

#: Columns of pairs that one compiled call may look at: about 0.04 s. Fewer queries than these do not repay a panel.
_CALL_COLUMNS, _FEWEST_ROWS = 1 << 28, 16

_LANES = (1 << KEYS_AT_ONCE) - 1

_RULE = key_rule(np.dtype(np.float64))


class Donors(NamedTuple):
    """Rows of which some values are missing, as the search reads them."""

    #: (panels, columns + 1, 64), NaN where a value is missing, in the last column and behind the last row.
    panels: Array
    #: (panels, columns): bit i says whether donor i of a panel has the column.
    present: NDArray[np.int64]
    #: (columns,): how many rows have each column.
    counts: NDArray[np.intp]

    def places(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where the values of some rows and columns lie in all panels."""
        panel, lane = np.divmod(rows, _WIDTH)
        places: NDArray[np.intp] = (panel * self.panels.shape[1] + columns) * _WIDTH + lane
        return places


class Found(NamedTuple):
    """The nearest donors of every missing value, by query and column."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    #: (missing values, k): nan_euclidean, ascending; NaN where there are no more donors.
    distances: Array
    #: (missing values, k): rows of the donors; -1 where there are no more.
    indices: NDArray[np.intp]


def pack(Y: Array) -> Donors:
    """Lay out rows (m, D), NaN where a value is missing, as donors."""
    m, d = Y.shape
    n_panels = -(-m // _WIDTH)
    rows = np.full((n_panels * _WIDTH, d + 1), np.nan)
    rows[:m, :d] = Y
    panels = np.ascontiguousarray(rows.reshape(n_panels, _WIDTH, d + 1).transpose(0, 2, 1))
    has = ~np.isnan(panels[:, :d])
    bits = np.packbits(has, axis=2, bitorder="little").view("<i8")[:, :, 0].astype(np.int64)
    return Donors(panels, np.ascontiguousarray(bits), has.sum(axis=(0, 2)))


def nearest_donors(donors: Donors, X: Array, k: int, *, n_threads: int | None = None) -> Found:
    """Find the `k` nearest donors of every missing value of `X`.

    Parameters
    ----------
    donors : Donors
        What `pack` returns for rows (m, D).
    X : ndarray of shape (n, D), float64
        The queries, NaN where a value is missing, and nowhere infinite.
    k : int
        How many, at least 1; as many as there are where there are fewer.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    Found
        By query and column; columns that no donor has are left out. Donors come in the order of (mean square of the
        differences, index); without a column in common they do not come at all.

    Notes
    -----
    Cost: n m D differences. Work space: k keys and indices for each missing value, and some copies of `X`.
    """
    d = X.shape[1]
    rows, columns = np.nonzero(np.isnan(X) & (donors.counts > 0))
    asking, starts = np.unique(rows, return_index=True)
    queries = np.zeros((len(asking), d + 1))  # 0 in the column that nobody has
    queries[:, :d] = X[asking]
    starts = np.append(starts, len(rows))
    k = min(k, int(donors.counts.max(initial=1)))
    sizes = np.minimum(donors.counts, k)
    keys, indices = np.full((len(rows), k), _RULE.nan_key), np.full((len(rows), k), -1)
    _search(donors, queries, starts, columns, sizes, keys, indices, n_threads)
    with np.errstate(over="ignore"):
        distances = np.sqrt(keys.view(np.float64) * d)
    return Found(rows, columns, distances, indices)


def _search(
    donors: Donors,
    queries: Array,
    starts: NDArray[np.intp],
    columns: NDArray[np.intp],
    sizes: NDArray[np.intp],
    keys: NDArray[np.int64],
    indices: NDArray[np.intp],
    n_threads: int | None,
) -> None:
    """Fill the heaps of all missing values, and sort them."""
    n, n_panels = len(queries), len(donors.panels)
    work = _WIDTH * (queries.shape[1] + _LOOKING)  # of a query and a panel
    threads = parallel.resolve(n_threads, seconds=n * n_panels * work * _PAIR_SECONDS)
    most = max(_FEWEST_ROWS, _CALL_COLUMNS // (n_panels * work))
    step = max(1, min(most, -(-n // (4 * threads))))
    ahead = max(1, _CALL_COLUMNS // (step * work))
    panels, present = readonly(donors.panels), readonly(donors.present)
    queries, starts, columns, sizes = (readonly(array) for array in (queries, starts, columns, sizes))

    def search(task: int) -> Iterator[None]:
        rows = task * step, min(n, (task + 1) * step)
        for first in range(0, n_panels, ahead):
            last = min(n_panels, first + ahead)
            place = queries, *rows, panels, present, first, last
            _offer(tuple(_RULE), *place, starts, columns, sizes, last == n_panels, keys, indices)
            yield

    parallel.run(search, -(-n // step), threads)


@scalar
def _with_square(total, difference):  # type: ignore[no-untyped-def]
    """Add a square to a total; of a column that one of two rows misses, the difference is NaN and adds nothing.

    In order: the sum is that of the columns in common, whatever else the query has.
    """
    known = difference if difference == difference else 0.0
    return total + known * known


@scalar
def _known(value):  # type: ignore[no-untyped-def]
    """Return 1 for a number, 0 for NaN."""
    return 1.0 if value == value else 0.0


@scalar
def _mean(total, count):  # type: ignore[no-untyped-def]
    """Divide as IEEE 754 does: equal ratios are equal, and nothing by nothing is NaN."""
    return total / count


@kernel
def _offer(  # type: ignore[no-untyped-def]
    keyed, X, top, bottom, panels, present, begin, end, starts, columns, sizes, ends, keys, indices
):
    """Offer the donors of the panels ``begin:end`` to heaps of the queries ``top:bottom``; sort them if it `ends`."""
    rule = KeyRule(*keyed)
    d = X.shape[1] - 1
    own = np.full((bottom - top, d + _AT_ONCE), d)
    n_own = np.zeros(bottom - top, np.intp)
    for i in range(bottom - top):
        for column in range(d):
            if X[top + i, column] == X[top + i, column]:
                own[i, n_own[i]] = column
                n_own[i] += 1

    totals, counts = aligned_like(_WIDTH, X), aligned_like(_WIDTH, X)
    seen_as_keys = totals.view(np.int64)
    for panel in range(begin, end):
        values = panels[panel]
        for i in range(bottom - top):
            row = X[top + i]
            for lane in range(_WIDTH):
                totals[lane], counts[lane] = 0.0, 0.0
            for place in range(0, n_own[i], _AT_ONCE):
                a, b, c, e = own[i, place], own[i, place + 1], own[i, place + 2], own[i, place + 3]
                for lane in range(_WIDTH):
                    first, second = row[a] - values[a, lane], row[b] - values[b, lane]
                    third, fourth = row[c] - values[c, lane], row[e] - values[e, lane]
                    total = _with_square(_with_square(totals[lane], first), second)
                    totals[lane] = _with_square(_with_square(total, third), fourth)
                    counts[lane] += _known(first) + _known(second) + (_known(third) + _known(fourth))
            for lane in range(_WIDTH):
                totals[lane] = _mean(totals[lane], counts[lane])
            for pair in range(starts[top + i], starts[top + i + 1]):
                column = columns[pair]
                best, chosen, size = keys[pair], indices[pair], sizes[column]
                for part in range(0, _WIDTH, KEYS_AT_ONCE):
                    candidates = below(seen_as_keys, part, best[0], rule.mask, rule.nan_key)
                    candidates &= (present[panel, column] >> part) & _LANES
                    while candidates:
                        lane = part + lowest_bit(candidates)
                        candidates &= candidates - 1
                        key, index = key_of(seen_as_keys[lane], rule), panel * _WIDTH + lane
                        if not before(best, chosen, 0, key, index):
                            replace_root(best, chosen, size, key, index)
    if ends:
        for pair in range(starts[top], starts[bottom]):
            size = sizes[columns[pair]]
            _sort(keys[pair][:size], indices[pair][:size])
