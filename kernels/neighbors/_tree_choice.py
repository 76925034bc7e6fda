"""Whether neighbors are looked for by way of a tree: as sizes tell, and what a few queries look at in one.

The neighbors do not depend on it. `choose` says it for one call.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..distances.arguments import DEFINITIONS, Algorithm, Metric
from ..runtime import parallel
from . import _tree
from ._heaps import MOST_ROWS, new_heaps

__all__ = ["choose", "is_possible", "may_repay", "most_columns", "most_neighbors", "of_few", "pays", "tried"]

#: Pairs from which a tree is made unasked, and with more than a few columns; rows of Y for each neighbor, and most of
#: these: to keep many in order takes longer than to look at rows.
_FEWEST_PAIRS, _FEWEST_PAIRS_OF_MANY = 1 << 24, 1 << 28
_FEW_COLUMNS, _ROWS_PER_NEIGHBOR, _MOST_NEIGHBORS = 8, 16, 512

#: To put a row in its place takes as long as so many distances, for log2 of the rows squared: the more there are, the
#: more often they are halved, and the farther apart they lie.
_PLACING = 2

#: Queries by which a tree is tried, and rows of Y of a small one that shows whether there is any structure.
_TRIAL_QUERIES, _TRIAL_ROWS = 16, 2048

#: To look at a column by way of the tree takes so many times as long as to make a column of a distance; and what else
#: is done for each distance, in columns.
_COST, _PER_PAIR = 12, 16


def choose(
    algorithm: Algorithm,
    metric: Metric,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    k: int,
    n_threads: int | None,
) -> _tree.Tree | None:
    """Return a tree of the rows of Y if one is asked for or worthwhile, and possible.

    What it saves is seen from a few queries: first, of more than a few columns, in a small tree, which shows rows
    without structure, then in that of all rows.
    """
    n, (m, d) = len(x), y.shape
    if algorithm == "brute" or n == 0 or not is_possible(metric, y):
        return None
    if algorithm == "tree":
        return _tree.build(y, parallel.resolve(n_threads))
    enough = may_repay(n, m, d) and k <= most_neighbors(m)
    return tried(metric, x, x_groups, y, y_groups, k, n_threads) if enough else None


def is_possible(metric: Metric, y: NDArray[Any]) -> bool:
    """Whether there is a tree of such rows."""
    return DEFINITIONS[metric].can_be_pruned and y.dtype.kind == "f" and y.shape[1] > 0 and len(y) < MOST_ROWS


def may_repay(n: int, m: int, d: int) -> bool:
    """Whether pairs and queries are so many that to make a tree may take less time than to look at all pairs."""
    fewest = _FEWEST_PAIRS if d <= _FEW_COLUMNS else _FEWEST_PAIRS_OF_MANY
    return n * m >= fewest and n >= _PLACING * math.log2(m) ** 2


def most_columns(m: int, d: int) -> float:
    """Return so many columns that to look at them by way of a tree takes as long as all distances of a query."""
    return m * (d + _PER_PAIR) / _COST


def most_neighbors(m: int) -> int:
    """Return how many neighbors at most are found by way of a tree unasked."""
    return min(_MOST_NEIGHBORS, m // _ROWS_PER_NEIGHBOR)


def tried(
    metric: Metric,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y: NDArray[Any],
    y_groups: NDArray[np.intp],
    k: int,
    n_threads: int | None,
) -> _tree.Tree | None:
    """Return a tree of the rows of Y if it saves much for a few of the queries."""
    m, d = y.shape
    if d > _FEW_COLUMNS:
        part = slice(None, None, -(-m // _TRIAL_ROWS))
        rows = np.ascontiguousarray(y[part])
        nearest = min(k, len(rows) // _ROWS_PER_NEIGHBOR)
        if not _is_enough(
            0.9 * rows.size,
            metric,
            _tree.build(rows, 1),
            x,
            x_groups,
            y_groups[part],
            nearest,
        ):
            return None
    tree = _tree.build(y, parallel.resolve(n_threads))
    return tree if pays(tree, metric, x, x_groups, y_groups, m, k) else None


def pays(
    tree: _tree.Tree,
    metric: Metric,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y_groups: NDArray[np.intp],
    m: int,
    k: int,
) -> bool:
    """Whether a tree of m rows saves much for a few of the queries."""
    return _is_enough(most_columns(m, x.shape[1]), metric, tree, x, x_groups, y_groups, k)


def of_few(values: NDArray[Any], n: int) -> NDArray[Any]:
    """Return those of n queries' values that belong to the few by which a tree is tried."""
    return np.ascontiguousarray(values[:: max(1, n // _TRIAL_QUERIES)][:_TRIAL_QUERIES])


def _is_enough(
    columns: float,
    metric: Metric,
    tree: _tree.Tree,
    x: NDArray[Any],
    x_groups: NDArray[np.intp],
    y_groups: NDArray[np.intp],
    k: int,
) -> bool:
    """Whether a few of the queries look at so many columns at most, in the mean."""
    x, x_groups = (of_few(values, len(x)) for values in (x, x_groups))
    n = len(x)
    how, like, x, x_groups, y_groups = _tree._settled(metric, x, x_groups, y_groups)
    keys, indices = new_heaps((n, k), like.dtype)
    homes, order = _tree._paths(how, like, tree, x, False, 1)
    budget = int(n * columns)
    done, _, looked = _tree._answer(how, tree, x, order, homes, 0, n, x_groups, y_groups, like, budget, keys, indices)
    return bool(done == n and looked <= budget)
