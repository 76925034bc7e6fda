"""Scores of linear models, as their predictions need them: ``X @ W.T + b``.

A matrix product of BLAS adds up in an order that depends on how many rows there are and on its threads. Here a row's
scores have the same bits in any batch: they are `_products.dot` of that row and the weights. What it cannot read as it
lies, rows of another dtype or in another order, is copied a few rows at a time, in cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments.arrays import as_contiguous, floating_dtype
from ..distances.tile_shapes import transpose_width
from ..distances.tiles import transpose
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly, scalar
from ..simd.functions import like
from ..simd.rows import apart, frozen
from ._products import ROWS, scores, scores_of_one

__all__ = ["linear_scores"]

#: Rows of a block: what threads are given, and what is copied together.
_BLOCK = 256

#: Multiplications of a call, and seconds of a byte of X for each score and once more, roughly.
_CALL_PRODUCTS = 1 << 29
_BYTE_SECONDS = 1e-11

#: Bytes of rows that are turned together, in the second-level cache, and rows of a run through columns.
_TURNED_BYTES, _RUN = 1 << 19, 8192


def linear_scores(X: NDArray[Any], W: ArrayLike, b: ArrayLike, n_threads: int | None = None) -> NDArray[Any]:
    """Return ``X @ W.T + b``, of the dtype that NumPy gives it.

    Parameters
    ----------
    X : ndarray of shape (n, D), float32 or float64
        Rows, in any layout.
    W : array-like of shape (C, D)
        Coefficients.
    b : array-like of shape (C,), or a number
        Intercepts.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, C)

    Raises
    ------
    ValueError
        If rows and coefficients differ in their number of columns.

    Notes
    -----
    Cost: n D C multiply-adds; X is read once. Work space: where `X` is not C-contiguous, or of another dtype, a thread
    has 256 rows of its own, or half a megabyte.
    """
    dtype = floating_dtype(np.result_type(X, W, b))
    W = as_contiguous(W, dtype)
    (n, columns), classes = X.shape, len(W)
    if W.shape != (classes, columns):  # anyone may set a model's coefficients
        raise ValueError(f"coefficients have shape {W.shape}; for X of shape {X.shape} they must have (C, {columns})")
    W, shifts, Z = readonly(W), readonly(np.full(classes, b, dtype)), np.empty((n, classes), dtype)
    of_rows, of_columns = (_score, _score_of_columns) if classes == 1 else (_scores, _scores_of_columns)
    as_it_lies, by_columns = X.dtype == dtype and X.flags.aligned, X.flags.f_contiguous

    def work(first: int, last: int) -> None:
        here = slice(first * _BLOCK, min(n, last * _BLOCK))
        if as_it_lies and X.flags.c_contiguous:
            of_rows(readonly(X[here]), W, shifts, Z[here])
        elif as_it_lies and by_columns:
            of_columns(readonly(X.T), here.start, transpose_width(dtype), W, shifts, Z[here])
        else:
            for top in range(here.start, here.stop, _BLOCK):
                some = slice(top, min(here.stop, top + _BLOCK))
                of_rows(readonly(as_contiguous(X[some], dtype)), W, shifts, Z[some])

    seconds = X.nbytes * (classes + 1) * _BYTE_SECONDS
    if seconds < parallel.SMALL_SECONDS:
        n_threads = None  # it takes less than to meet, whoever asks for threads
    most = max(1, _CALL_PRODUCTS // (_BLOCK * max(1, columns * classes)))
    parallel.run_ranges(work, -(-n // _BLOCK), n_threads, most=most, seconds=seconds)
    return Z


@kernel
def _score(X, W, b, Z):  # type: ignore[no-untyped-def]
    scores_of_one(X, W, b, 0, X.shape[0], Z)


@kernel
def _scores(X, W, b, Z):  # type: ignore[no-untyped-def]
    _write_scores(X, X.shape[0], W, b, Z)


@inner
def _write_scores(X, n, W, b, Z):  # type: ignore[no-untyped-def]
    for top in range(0, n, ROWS):
        scores(X, W, b, top, min(ROWS, n - top), Z[top:], False)


@kernel
def _scores_of_columns(columns, first, lanes, W, b, Z):  # type: ignore[no-untyped-def]
    """Scores of the rows from `first` on, of which `columns` has the transpose: they are turned, some at a time."""
    n, stride, width = Z.shape[0], columns.shape[1], columns.shape[0]
    together = max(lanes, _TURNED_BYTES // max(1, width * W.itemsize) // lanes * lanes)
    rows = np.empty((min(n, together), width), W.dtype)
    source, target = columns.reshape(columns.size), rows.reshape(rows.size)
    for top in range(0, n, together):
        count = min(together, n - top)
        whole, squares = width // lanes * lanes, count // lanes * lanes
        for d in range(0, whole, lanes):
            for i in range(0, squares, lanes):
                transpose(source, d * stride + first + top + i, stride, target, i * width + d, width)
        for d in range(width):
            for i in range(squares if d < whole else 0, count):
                rows[i, d] = columns[d, first + top + i]
        _write_scores(frozen(rows), count, W, b, Z[top:])


@kernel
def _score_of_columns(columns, first, lanes, W, b, Z):  # type: ignore[no-untyped-def]
    """As `_scores_of_columns`, for one score: what `dot` has in a lane stands in a row of `sums`."""
    n, width, weights = Z.shape[0], columns.shape[0], W[0]
    whole = width // lanes * lanes
    sums = np.empty((lanes, min(n, _RUN)), W.dtype)
    for top in range(0, n, _RUN):
        count, begin = min(_RUN, n - top), first + top
        for lane in range(lanes):
            total, d = sums[lane, :count], lane
            total[:] = 0
            while d + 3 * lanes < whole:
                _add_four_columns(columns, weights, d, lanes, begin, total)
                d += 4 * lanes
            while d < whole:
                _add_column(columns[d, begin : begin + count], weights[d], total)
                d += lanes
        for d in range(whole, width):  # the last vector ends with the row; in a row that is shorter each stands alone
            lane = d + lanes - width if width >= lanes else 0
            _add_column(columns[d, begin : begin + count], weights[d], sums[lane, :count])
        half = lanes // 2
        while half > 0:
            for lane in range(half):
                _add_column(sums[lane + half, :count], like(b[0], 1), sums[lane, :count])
            half //= 2
        for i in range(count):
            Z[top + i, 0] = sums[0, i] + b[0]


@inner
def _add_column(column, weight, total):  # type: ignore[no-untyped-def]
    apart()
    for i in range(total.size):
        total[i] += weight * column[i]


@inner
def _add_four_columns(columns, weights, d, step, begin, total):  # type: ignore[no-untyped-def]
    """Add four columns, `step` from one another: with one at a time a CPU would wait for memory at each page."""
    apart()
    end, e, f, g = begin + total.size, d + step, d + 2 * step, d + 3 * step
    p, q, r, s = columns[d, begin:end], columns[e, begin:end], columns[f, begin:end], columns[g, begin:end]
    for i in range(total.size):
        total[i] = _in_order(total[i], weights[d] * p[i], weights[e] * q[i], weights[f] * r[i], weights[g] * s[i])


@scalar
def _in_order(total, a, b, c, d):  # type: ignore[no-untyped-def]
    return total + a + b + c + d
