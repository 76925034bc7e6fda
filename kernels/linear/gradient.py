"""Loss and gradient of linear models, in one pass over X.

A pass over X costs memory bandwidth, and X is by far the largest array; so scores, losses and the gradient
are made while a few rows are in cache. Over classes there is much to do per row: tiles of rows and classes are worked
on, and the next rows are asked for meanwhile. For one score there is little: rows must come at the memory's full rate.
So they are read one after the other, the pattern that processors foresee best, and nothing is asked for.

Sums. Each `ROWS` rows are summed in the dtype of X, so the error stays under 1e-6 of the sum of magnitudes for any n;
these sums go into float64 ones of `cells`: same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..losses.class_formulas import CLASSWISE, scratch
from ..losses.formulas import POINTWISE
from ..losses.means import ones
from ..losses.table import DELTA
from ..runtime.jit import inner, kernel, readonly
from ..simd.functions import like
from ..simd.rows import sum_of
from ..training.cells import CELL, call_rows, end_of_cell, place_of, sums_of_cells
from . import arguments
from ._products import ROWS, ROWS_OF_ONE, add_gradient, add_gradient_of_one, flush, scores, scores_of_one, whole_strips
from ._rows import rows_of

__all__ = ["linear_loss_gradient"]

Array = NDArray[Any]

#: Multiplications of a pass per call, and seconds of a byte of X for each score and once more, roughly.
_CALL_PRODUCTS = 1 << 29
_BYTE_SECONDS = 2e-11


def linear_loss_gradient(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> tuple[float, NDArray[Any], Any]:
    """Mean loss of the scores ``X @ W.T + b`` plus ``l2 / 2 ‖W‖²``, and its gradient.

    Parameters
    ----------
    loss : str
        "binary_cross_entropy", "hinge", "squared_hinge", "squared_error", "absolute_error", "huber"
        (delta 1.35), "poisson", or, over classes, "softmax_cross_entropy", "multiclass_hinge".
    X : array-like of shape (n, D)
        Rows. float16 and float32 are worked on as float32, all else as float64; all other arguments
        are cast to that.
    y : array-like of shape (n,), or (n, C) target probabilities for softmax cross-entropy
        Targets as the function named by `loss` takes them.
    W : array-like of shape (D,), or (C, D) for the losses over classes
        Coefficients, one row per class as scikit-learn's ``coef_``.
    b : float, or array-like of shape (C,)
        Intercepts.
    l2 : float, default=0.0
        Strength of the penalty; it never touches `b`.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative, not all zero.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    loss : float
        Penalty included.
    dW : ndarray of the shape of `W`
    db : float, or ndarray of shape (C,)

    Raises
    ------
    TypeError
        If `loss` is no str, labels are not of integers, or an argument not real numbers.
    ValueError
        If shapes do not fit, n is 0, or labels, weights, `loss` or `l2` are not usable.

    Notes
    -----
    Cost: n D C multiply-adds for the scores and as many for the gradient; X is read once. Work space:
    per thread up to 8 float64 gradients, up to log2(n / 1024) + 2 more, and `ROWS` rows of scores.

    Examples
    --------
    >>> from fastml.kernels import linear_loss_gradient
    >>> linear_loss_gradient("squared_error", [[1.0], [2.0]], [0.0, 0.0], [1.0], 0.0)
    (1.25, array([2.5]), 1.5)
    """
    a = arguments.linear(loss, X, y, W, b, l2, sample_weight)
    (n, d), dtype = a.X.shape, a.X.dtype
    over_classes = a.W.ndim == 2
    coefficients = a.W if over_classes else a.W.reshape(1, d)
    intercepts = a.b if over_classes else np.array((a.b,), dtype)
    classes = len(intercepts)
    X, *targets, weight = rows_of(loss, a.X, a.y, a.weight)
    weighted = a.weight is not None
    settled = X, weight if weighted else ones(dtype), readonly(coefficients), readonly(intercepts)
    scale = dtype.type(1.0 / a.total)
    passes = _PASSES[loss]
    # The gradient, a column for the intercepts, a row for the loss.
    total = sums_of_cells(
        lambda first, last, stack: passes(*settled, weighted, *targets, scale, first, last, stack),
        n,
        (classes + 1, d + 1),
        seconds=X.nbytes * (classes + 1) * _BYTE_SECONDS,
        call_rows=call_rows(_CALL_PRODUCTS, classes * d),
        n_threads=n_threads,
    )
    return _with_penalty(total, a, coefficients, over_classes)


def _with_penalty(
    total: NDArray[np.float64], a: arguments.LinearArguments, W: NDArray[Any], over_classes: bool
) -> tuple[float, NDArray[Any], Any]:
    """Take the parts out of the sums and add the penalty's."""
    value, dW, db = float(total[-1, 0]) / a.total, total[:-1, :-1], total[:-1, -1]
    if a.l2 > 0:
        wide = W.astype(np.float64)
        value += 0.5 * float(a.l2) * float(np.add.reduce(wide * wide, axis=None))  # BLAS would add in its own order
        dW = dW + float(a.l2) * wide
    dtype = a.X.dtype
    if over_classes:
        return value, dW.astype(dtype), db.astype(dtype)
    return value, dW[0].astype(dtype), float(db[0])


# ---------------------------------------------------------------------------------------- kernels


def _pass(loss: str, rows_of_scores: Callable[..., Any]) -> Callable[..., None]:
    """Make the kernel of one loss: sums of the rows ``first:last`` for `sums_of_cells`.

    It takes 12 arguments one by one: with rows and targets in a tuple, as `_descent` has them, a gradient of 100 rows
    of 10 columns takes 9 % longer.
    """

    def linear_pass(X, weight, W, b, weighted, y, indices, P, scale, first, last, stack):  # type: ignore[no-untyped-def]
        classes, columns = W.shape
        Z, G = np.empty((ROWS, classes), X.dtype), np.empty((ROWS, classes), X.dtype)
        work = scratch(ROWS, classes, Z)
        dW = np.zeros((classes, columns + 1), X.dtype)
        at_once = ROWS_OF_ONE if W.shape[0] == 1 else ROWS
        in_strips = 0 if W.shape[0] == 1 else whole_strips(X)
        for cell in range(first, last, CELL):
            total, bottom, value = place_of(cell, stack), min(last, cell + CELL), 0.0
            for begin in range(cell, bottom, ROWS):
                end = min(bottom, begin + ROWS)
                for top in range(begin, end, at_once):
                    n = min(at_once, end - top)
                    if classes == 1:
                        scores_of_one(X, W, b, top, n, Z)
                    else:
                        scores(X, W, b, top, n, Z, in_strips > 0)
                    w = weight[top : top + n] if weighted else weight
                    value += rows_of_scores(Z, y, indices, P, top, n, w, scale, work, G)
                    if classes == 1:
                        add_gradient_of_one(X, top, n, G, dW)
                    else:
                        add_gradient(X, top, n, G, dW, total)
                flush(dW, in_strips, total)
            total[classes, 0] += value
            end_of_cell(bottom, X.shape[0], stack)

    linear_pass.__qualname__ = linear_pass.__name__ = f"{loss}_pass"
    return kernel(linear_pass)


def _of_one_score(term: Callable[..., Any]) -> Callable[..., Any]:
    """Apply one of the `formulas` to a single column of scores."""

    @inner
    def rows_of_scores(Z, y, indices, P, top, n, weight, scale, work, G):  # type: ignore[no-untyped-def]
        delta, values, targets = like(scale, DELTA), work[0], y[top : top + n]
        for i in range(n):
            value, derivative = term(Z[i, 0], targets[i], delta)
            values[i] = weight[i] * value
            G[i, 0] = scale * weight[i] * derivative
        return sum_of(values[:n])

    return rows_of_scores


def _over_classes(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Apply one of the `class_formulas` to rows of scores."""

    @inner
    def rows_of_scores(Z, y, indices, P, top, n, weight, scale, work, G):  # type: ignore[no-untyped-def]
        rows = slice(top, top + n)
        return formula(Z[:n], indices[rows], P[rows], weight, scale, work, G[:n])

    return rows_of_scores


_PASSES = {loss: _pass(loss, _of_one_score(formula)) for loss, formula in POINTWISE.items()}
_PASSES |= {loss: _pass(loss, _over_classes(formula)) for loss, formula in CLASSWISE.items()}
