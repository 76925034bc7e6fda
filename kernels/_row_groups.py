"""Scores of a few rows of X, and their gradient: the two products of a pass over the rows.

`GROUP` rows are taken together, so that the weights are loaded once for all of them, and the gradient is loaded and
stored once.
"""

from __future__ import annotations

from ._jit import inner
from ._math import like
from ._products import add_outer, dot, prefetch

__all__ = [
    "AT_ONCE",
    "GROUP",
    "ROWS",
    "add_gradient",
    "add_gradient_of_one",
    "flush",
    "scores",
    "scores_of_one",
]

GROUP = 4
ROWS = 32  # rows whose gradient is summed in the dtype of X
AT_ONCE = 16  # rows that are in cache together where there is one score


@inner
def scores(X, W, b, top, n, Z):  # type: ignore[no-untyped-def]
    """Z[i, c] = X[top + i] . W[c] + b[c] for i < n."""
    classes = W.shape[0]
    fours, rows = classes // 4 * 4, n // GROUP * GROUP
    for i in range(0, rows, GROUP):
        for c in range(0, fours, 4):
            dot(4, 4, X, top + i, W, c, b, Z, i)
        for c in range(fours, classes):
            dot(4, 1, X, top + i, W, c, b, Z, i)
    for i in range(rows, n):
        for c in range(classes):
            dot(1, 1, X, top + i, W, c, b, Z, i)


@inner
def add_gradient(X, top, n, G, dW):  # type: ignore[no-untyped-def]
    """dW[c] += sum_i G[i, c] X[top + i], and the sums of G in the last column, for i < n.

    Meanwhile the rows that come next are asked for: what is worked on here is in cache already.
    """
    classes = dW.shape[0]
    fours, rows = classes // 4 * 4, n // GROUP * GROUP
    for i in range(0, rows, GROUP):
        prefetch(X, top + ROWS + i, min(top + ROWS + i + GROUP, X.shape[0]))
        for c in range(0, fours, 4):
            add_outer(4, 4, X, top + i, G, i, c, dW)
        for c in range(fours, classes):
            add_outer(4, 1, X, top + i, G, i, c, dW)
    for i in range(rows, n):
        for c in range(classes):
            add_outer(1, 1, X, top + i, G, i, c, dW)
    _add_shifts(n, G, dW)


@inner
def scores_of_one(X, W, b, top, n, Z):  # type: ignore[no-untyped-def]
    """As `scores`, for one score: row after row."""
    for i in range(n):
        dot(1, 1, X, top + i, W, 0, b, Z, i)


@inner
def add_gradient_of_one(X, top, n, G, dW):  # type: ignore[no-untyped-def]
    """As `add_gradient`, for one score; nothing is asked for."""
    rows = n // 8 * 8
    for i in range(0, rows, 8):
        add_outer(8, 1, X, top + i, G, i, 0, dW)
    for i in range(rows, n):
        add_outer(1, 1, X, top + i, G, i, 0, dW)
    _add_shifts(n, G, dW)


@inner
def _add_shifts(n, G, dW):  # type: ignore[no-untyped-def]
    """Add the sums of G over its first n rows to the last column of dW."""
    classes, last = dW.shape[0], dW.shape[1] - 1
    for c in range(classes):
        total = like(G[0, c], 0)  # in memory it would wait for itself at every row
        for i in range(n):
            total += G[i, c]
        dW[c, last] += total


@inner
def flush(dW, total):  # type: ignore[no-untyped-def]
    """Add the gradient of a few rows to the slab's float64 one, and clear it."""
    for c in range(dW.shape[0]):
        source, target = dW[c], total[c]
        for d in range(source.size):
            target[d] += source[d]
            source[d] = like(source[d], 0)
