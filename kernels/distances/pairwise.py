"""Pairwise L1, L2 and L-infinity distances, by direct differences; of bytes exact by any way.

The usual shortcut for L2, ``|x|^2 + |y|^2 - 2 x.y``, is a matrix product, but it subtracts nearly equal
numbers: in float32 the distance between 10,000 and 10,001 comes out as 0. Here every difference is
formed, which costs one subtraction more per element and no accuracy; in register tiles it runs at
the rate of the matrix product where additions have ports of their own (Zen), at about half of it
where they share them with multiplications. Squared distances of bytes are made from products where the
target multiplies bytes (VNNI): in integers nothing cancels. The formula of each metric, compiled, stands in
`_tile_metrics`; here arguments are settled, and the result is cut into tasks, which `panels.fill` makes.

Accuracy. A float sum runs over one column after the other within chunks of about equal length, at most 384
(float32) or 192 (float64) columns, then over the chunks: relative error at most (chunk + D / chunk + 3) eps
for L1 and squared L2, eps for L-infinity. uint8 is exact. L2 distances whose squares leave the range of the dtype
are made again, each by itself (see `scales`).

Bits. The sum's order depends on the number of columns alone, so a pair's distance has the same bits
whatever the other rows, the thread count and the block sizes are, here and in `k_nearest`. Another
CPU type may round differently (it may lack fused multiply-add).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from numpy.typing import ArrayLike, NDArray

from ..arguments import arrays, scalars
from ..runtime import parallel
from ..runtime.jit import readonly
from . import arguments, extremes, panels
from .panels import POINTS_STEP

__all__ = ["pairwise_l1", "pairwise_l2", "pairwise_linf"]

#: Of shorter rows a distance is made sooner than mirrored.
_MIRRORED_BYTES = 128

#: Panels of Y in a task, at least: fewer do not repay the ordering of X for them.
_FEWEST_PANELS = 3

#: Writing a distance to a fresh page costs as much as about so many columns.
_WRITING = 64


def pairwise_l1(
    X: ArrayLike, Y: ArrayLike | None = None, *, out: NDArray[Any] | None = None, n_threads: int | None = None
) -> NDArray[Any]:
    """Sum of absolute differences between every row of `X` and every row of `Y`.

    Parameters
    ----------
    X : array-like of shape (n, D)
        Rows to measure from. Both uint8: exact. Both of float16, float32, uint8 with at least one
        float: computed in float32. All other real dtypes: float64.
    Y : array-like of shape (m, D), optional
        Rows to measure to; None means `X`, of which then only one triangle is
        computed (both, where rows are so short that this is faster).
    out : ndarray of shape (n, m), optional
        Where to write the result: C-contiguous, of the result's dtype, apart from the inputs.
        Reusing one array saves the page faults of a fresh one.
    n_threads : int, optional
        Threads to use; None means all that this process may use (see `fastml.kernels`).

    Returns
    -------
    ndarray of shape (n, m)
        float32 or float64; int32 for uint8 input.

    Raises
    ------
    TypeError
        If an argument is not real numbers, or `out` is no array.
    ValueError
        If shapes, column counts or `out` do not fit.

    Notes
    -----
    Cost: n m D subtractions and additions; (n + m) D numbers read, n m written. NaN and infinity
    propagate as in NumPy. Work space per thread: up to 960 packed rows of Y (no more than 8 MiB of them, unless
    288 take more) and a block of 84 x 960 totals; for uint8 also up to 1,008 padded rows of X.

    Examples
    --------
    >>> from fastml.kernels import pairwise_l1
    >>> pairwise_l1([[0.0, 0.0], [3.0, 4.0]], [[0.0, 1.0]])
    array([[1.],
           [6.]])
    """
    return _pairwise("l1", X, Y, False, out, n_threads)


def pairwise_l2(
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    squared: bool = False,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    """Euclidean distance between every row of `X` and every row of `Y`, without cancellation.

    Parameters
    ----------
    X : array-like of shape (n, D)
        Rows to measure from; dtypes as in `pairwise_l1`.
    Y : array-like of shape (m, D), optional
        Rows to measure to; None means `X`, of which then only one triangle is
        computed (both, where rows are so short that this is faster).
    squared : bool, default=False
        Return squared distances (saves the root).
    out : ndarray of shape (n, m), optional
        Where to write the result: C-contiguous, of the result's dtype, apart from the inputs.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, m)
        float32 or float64. For uint8 input float32, or squared exact int32 (int64 from 33,026
        columns on).

    Raises
    ------
    TypeError
        If an argument is not real numbers, or `out` is no array.
    ValueError
        If shapes, column counts or `out` do not fit.

    Notes
    -----
    Cost: n m D subtractions and fused multiply-adds; memory and work space as in `pairwise_l1`.
    A distance is right wherever the dtype has it. Where a sum of squares leaves the dtype's range (float32: differences
    above 1.8e19 or below about 1e-19, float64: above 1.3e154 or below about 1e-154), the pair is made again in another
    scale, at some ten times the cost, with up to 64 x 4,096 float64 totals, and the rows that make them, per thread.
    Squares that are too large stay infinite with `squared`.

    Examples
    --------
    >>> from fastml.kernels import pairwise_l2
    >>> pairwise_l2([[0.0, 0.0], [3.0, 4.0]])
    array([[0., 5.],
           [5., 0.]])
    """
    return _pairwise("l2", X, Y, scalars.flag(squared, "squared"), out, n_threads)


def pairwise_linf(
    X: ArrayLike, Y: ArrayLike | None = None, *, out: NDArray[Any] | None = None, n_threads: int | None = None
) -> NDArray[Any]:
    """Largest absolute difference between every row of `X` and every row of `Y`.

    Parameters
    ----------
    X : array-like of shape (n, D)
        Rows to measure from; dtypes as in `pairwise_l1`.
    Y : array-like of shape (m, D), optional
        Rows to measure to; None means `X`, of which then only one triangle is
        computed (both, where rows are so short that this is faster).
    out : ndarray of shape (n, m), optional
        Where to write the result: C-contiguous, of the result's dtype, apart from the inputs.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, m)
        float32 or float64; int32 for uint8 input. 0 where there are no columns.

    Raises
    ------
    TypeError
        If an argument is not real numbers, or `out` is no array.
    ValueError
        If shapes, column counts or `out` do not fit.

    Notes
    -----
    Cost and work space as in `pairwise_l1`. A NaN in either row makes the distance NaN: magnitudes are
    compared by their bits, in which NaN stands above infinity.

    Examples
    --------
    >>> from fastml.kernels import pairwise_linf
    >>> pairwise_linf([[0.0, 0.0], [3.0, 4.0]], [[0.0, 1.0]])
    array([[1.],
           [3.]])
    """
    return _pairwise("linf", X, Y, False, out, n_threads)


def _pairwise(
    metric: arguments.Metric,
    X: ArrayLike,
    Y: ArrayLike | None,
    squared: bool,
    out: NDArray[Any] | None,
    n_threads: int | None,
) -> NDArray[Any]:
    x, y, _ = arguments.pair(X, Y)
    (n, d), m = x.shape, y.shape[0]
    dtype = arguments.result_dtype(metric, x.dtype, d, squared)
    result = arrays.out(out, (n, m), dtype, X, Y)
    seconds = panels.seconds(n, m, d * x.itemsize)
    threads = parallel.resolve(n_threads, seconds=seconds)
    serial = seconds < parallel.SMALL_SECONDS and threads == 1
    limits = panels.limits(metric, x.dtype, d)
    same = x is y
    symmetric = same and d * x.itemsize >= _MIRRORED_BYTES
    root = arguments.METRICS[metric].root and not squared
    y = readonly(y)
    plan = panels.plan(metric, x.dtype, n, d)
    cut, block = tuple(plan), plan.block_points
    tasks = [(0, n, 0, m)] if serial and n <= panels.TASK_ROWS else _tasks(n, m, d, symmetric, threads, block)
    extreme = []

    def fill(task: int) -> None:
        first, last, y_first, y_last = tasks[task]
        rows = panels.whole_steps(x[first:last])
        place = rows, first, y, y_first, y_last
        small, large = panels.fill(cut, root, same, symmetric, *place, *limits, result)
        if small or large:
            extreme.append((tasks[task], small, large and root))

    parallel.run(fill, len(tasks), threads)
    if extreme:
        extremes.correct(x, y, result, extreme, squared, symmetric, threads)
    return result


def _tasks(n: int, m: int, d: int, symmetric: bool, threads: int, block: int) -> list[tuple[int, int, int, int]]:
    """Cut the result into rectangles that suit one compiled call, where possible as many for every thread.

    Y is cut before X is: each rectangle packs its part of Y, which is the cheaper the more rows of X it has. A part
    of Y is whole panels, so where there are few of them X is cut as well.
    """
    whole_panels = -(-m // POINTS_STEP)
    if symmetric:
        rows = panels.task_rows(n, threads)
    else:
        rows = panels.task_rows(n, -(-threads // max(1, whole_panels // _FEWEST_PANELS)))
    x_parts = [(first, min(n, first + rows)) for first in range(0, n, rows)]
    most = max(block, panels.CALL_ELEMENTS // (rows * (d + _WRITING)) // block * block)
    y_parts = max(1, -(-m // most))
    if not symmetric:
        every = threads // math.gcd(threads, max(1, len(x_parts)))  # so many parts make equal shares
        y_parts = max(1, min(-(-y_parts // every) * every, whole_panels // _FEWEST_PANELS, whole_panels))
    ends = [min(m, whole_panels * part // y_parts * POINTS_STEP) for part in range(y_parts + 1)]
    return [
        (*x_part, y_first, y_last)
        for x_part in x_parts
        for y_first, y_last in itertools.pairwise(ends)
        if y_first < y_last and not (symmetric and y_last <= x_part[0])
    ]
