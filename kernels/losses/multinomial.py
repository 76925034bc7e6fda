"""Softmax, log-softmax, log-sum-exp and the cross-entropy over classes, with its gradient.

Stability. The largest score of a row is taken off before any exponential, which changes no result and
makes overflow impossible; infinite scores give what `scipy.special` gives. One exponential per entry
serves loss and gradient. Each row is worked on by itself, so its bits do not depend on the others; sums
over rows are float64, by blocks whose bounds depend on the shape alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import arrays, targets
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly
from ..simd.functions import like, log, scale_of_exp
from ..simd.row_blocks import times_numbers
from . import arguments
from .class_formulas import (
    cross_entropy,
    exponentials,
    log_probability,
    rows_at_once,
    scratch,
)
from .means import PART, mean_of_terms, ones

__all__ = ["log_softmax", "logsumexp", "softmax", "softmax_cross_entropy", "softmax_cross_entropy_gradient"]

#: Seconds of a byte of scores, roughly.
_BYTE_SECONDS = 1.5e-10

#: Entries that one compiled call may do.
_CALL_ENTRIES = 1 << 21

_SOFTMAX, _LOG_SOFTMAX, _LOGSUMEXP = range(3)


def softmax(Z: ArrayLike, *, n_threads: int | None = None) -> NDArray[Any]:
    """``e^Z[i, c] / Σ_j e^Z[i, j]`` for every row.

    Parameters
    ----------
    Z : array-like of shape (n, C)
        Scores. float16 and float32 are worked on as float32, all else as float64.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, C)
        float32 or float64. A row with +inf, or of -inf alone, gives NaN, as `scipy.special.softmax`.

    Raises
    ------
    TypeError
        If `Z` is not real numbers.
    ValueError
        If `Z` is not 2-D.

    Notes
    -----
    Cost: n C exponentials; reads and writes n C numbers.

    Examples
    --------
    >>> from fastml.kernels import softmax
    >>> softmax([[1000.0, 1000.0]])
    array([[0.5, 0.5]])
    """
    Z = arrays.floating(Z, "Z", 2)
    return _transform(_SOFTMAX, Z, np.empty_like(Z), n_threads)


def log_softmax(Z: ArrayLike, *, n_threads: int | None = None) -> NDArray[Any]:
    """``Z[i, c] - log Σ_j e^Z[i, j]`` for every row, without the loss of tiny probabilities.

    Parameters
    ----------
    Z : array-like of shape (n, C)
        Scores; dtypes as in `softmax`.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, C)
        Infinite scores as `scipy.special.log_softmax`.

    Raises
    ------
    TypeError
        If `Z` is not real numbers.
    ValueError
        If `Z` is not 2-D.

    Examples
    --------
    >>> from fastml.kernels import log_softmax
    >>> log_softmax([[0.0, -1000.0]])
    array([[    0., -1000.]])
    """
    Z = arrays.floating(Z, "Z", 2)
    return _transform(_LOG_SOFTMAX, Z, np.empty_like(Z), n_threads)


def logsumexp(Z: ArrayLike, *, n_threads: int | None = None) -> NDArray[Any]:
    """``log Σ_j e^Z[i, j]`` for every row.

    Parameters
    ----------
    Z : array-like of shape (n, C)
        Scores; dtypes as in `softmax`.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n,)
        -inf where there are no columns; infinite scores as `scipy.special.logsumexp`.

    Raises
    ------
    TypeError
        If `Z` is not real numbers.
    ValueError
        If `Z` is not 2-D.

    Examples
    --------
    >>> from fastml.kernels import logsumexp
    >>> logsumexp([[1000.0, 1000.0]])
    array([1000.69314718])
    """
    Z = arrays.floating(Z, "Z", 2)
    return _transform(_LOGSUMEXP, Z, np.empty((Z.shape[0], 1), Z.dtype), n_threads)[:, 0]


def softmax_cross_entropy(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, n_threads: int | None = None
) -> float:
    """Mean cross-entropy of softmax(Z), from class indices or target probabilities.

    Parameters
    ----------
    Z : array-like of shape (n, C)
        Scores (logits); dtypes as in `softmax`.
    y : array-like of shape (n,) or (n, C)
        Class indices 0 to C - 1 (integers), or target probabilities: not negative, each row summing
        to 1 within 1e-3, used as they are.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative, not all zero.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    float
        ``mean(log Σ_j e^Z[i, j] - Z[i, y_i])``, or ``-mean(Σ_c y[i, c] log softmax(Z)[i, c])``; a class
        of probability 0 costs nothing. NaN scores give NaN.

    Raises
    ------
    TypeError
        If `y` is 1-D and not of integers, or an argument not real numbers.
    ValueError
        If shapes do not fit, n is 0, a label is out of range or the weights are not usable.

    Notes
    -----
    Cost: n C exponentials and n logarithms; reads n C numbers.

    Examples
    --------
    >>> from fastml.kernels import softmax_cross_entropy
    >>> round(softmax_cross_entropy([[0.0, 0.0], [1e4, 0.0]], [1, 0]), 6)
    0.346574
    """
    return _cross_entropy(Z, y, sample_weight, n_threads, gradient=False)[0]


def softmax_cross_entropy_gradient(
    Z: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, n_threads: int | None = None
) -> tuple[float, NDArray[Any]]:
    """`softmax_cross_entropy` and its gradient ``(softmax(Z) - target) / n``, in one pass.

    Parameters
    ----------
    Z, y, sample_weight, n_threads
        As for `softmax_cross_entropy`.

    Returns
    -------
    loss : float
    dZ : ndarray of shape (n, C)
        Derivative of the mean with respect to each score, in the dtype of `Z`.

    Raises
    ------
    TypeError, ValueError
        As `softmax_cross_entropy`.

    Examples
    --------
    >>> from fastml.kernels import softmax_cross_entropy_gradient
    >>> loss, dZ = softmax_cross_entropy_gradient([[0.0, 0.0]], [1])
    >>> dZ
    array([[ 0.5, -0.5]])
    """
    return _cross_entropy(Z, y, sample_weight, n_threads, gradient=True)


def _transform(what: int, Z: NDArray[Any], out: NDArray[Any], n_threads: int | None) -> NDArray[Any]:
    scores = readonly(Z)
    _over_rows(lambda first, last: _transform_rows(what, scores, first, last, out), Z, n_threads)
    return out


def _cross_entropy(
    Z: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, n_threads: int | None, *, gradient: bool
) -> tuple[float, NDArray[Any]]:
    Z, y = arguments.class_targets(Z, y, probabilities=True)
    weight, total = targets.weights(sample_weight, len(Z), Z.dtype)
    dZ = np.empty(Z.shape if gradient else (0, 0), Z.dtype)
    indices, probabilities = (y, _NO_ROWS[Z.dtype]) if y.ndim == 1 else (_NO_INDICES, y)
    scores, indices, probabilities = readonly(Z), readonly(indices), readonly(probabilities)
    w = ones(Z.dtype) if weight is None else readonly(weight)
    partial = np.empty(-(-len(Z) // PART), np.float64)
    scale = Z.dtype.type(1.0 / total)

    def work(first: int, last: int) -> None:
        _cross_entropy_rows(
            scores, indices, probabilities, w, weight is not None, scale, first, last, partial, dZ
        )  # fmt: skip

    _over_rows(work, Z, n_threads)
    return mean_of_terms(partial, total), dZ


_NO_INDICES = np.empty(0, np.intp)
_NO_ROWS = {np.dtype(name): np.empty((0, 0), name) for name in ("f4", "f8")}


def _over_rows(work: Any, Z: NDArray[Any], n_threads: int | None) -> None:
    """Call ``work(first, last)`` for ranges of blocks of `PART` rows that cover Z."""
    most = max(1, _CALL_ENTRIES // (PART * max(1, Z.shape[1])))
    parallel.run_ranges(work, -(-Z.shape[0] // PART), n_threads, most=most, seconds=Z.nbytes * _BYTE_SECONDS)


@kernel
def _transform_rows(what, Z, first, last, out):  # type: ignore[no-untyped-def]
    """Write the blocks ``first:last`` of softmax, log-softmax or log-sum-exp."""
    n, classes = Z.shape
    together = rows_at_once(classes, 8 * PART, out)
    work = scratch(together, classes, out)
    end = min(n, last * PART)
    for top in range(first * PART, end, together):
        bottom = min(end, top + together)
        E = exponentials(Z[top:bottom], what != _SOFTMAX, work)
        _finish(what, Z[top:bottom], E, work, out[top:bottom])


@inner
def _finish(what, Z, E, work, out):  # type: ignore[no-untyped-def]
    """Turn exponentials, largest scores and sums into the result."""
    n, classes = Z.shape
    largest, total, factor = work[1], work[2], work[3]
    if what == _SOFTMAX:
        for i in range(n):
            factor[i] = like(total[i], 1) / (total[i] * scale_of_exp(total[i]))
        times_numbers(E, factor, out)
        return
    for i in range(n):
        total[i] = log(total[i])
    for i in range(n):
        if what == _LOGSUMEXP:
            out[i, 0] = largest[i] + total[i]
        else:
            row, target, shift, rest = Z[i], out[i], largest[i], total[i]
            for c in range(classes):
                target[c] = log_probability(row[c], shift, rest)


@kernel
def _cross_entropy_rows(Z, y, P, weight, weighted, scale, first, last, partial, dZ):  # type: ignore[no-untyped-def]
    """Leave the sum of each block's weighted losses in `partial` and write its rows of dZ."""
    n, classes = Z.shape
    together = rows_at_once(classes, PART, Z)
    work = scratch(together, classes, Z)
    for block in range(first, last):
        value = 0.0
        end = min(n, (block + 1) * PART)
        for top in range(block * PART, end, together):
            bottom = min(end, top + together)
            w = weight[top:bottom] if weighted else weight
            value += cross_entropy(Z[top:bottom], y[top:bottom], P[top:bottom], w, scale, work, dZ[top:bottom])
        partial[block] = value
