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

from ..arguments import arrays
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly
from ..simd.functions import like, log, scale_of_exp
from ..simd.row_blocks import times_numbers
from . import arguments
from .class_formulas import (
    VALUES,
    cross_entropy,
    cross_entropy_of_rows,
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
    Z: ArrayLike,
    y: ArrayLike,
    *,
    class_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Mean cross-entropy of softmax(Z), from class indices or target probabilities.

    Parameters
    ----------
    Z : array-like of shape (n, C)
        Scores (logits); dtypes as in `softmax`.
    y : array-like of shape (n,) or (n, C)
        Class indices 0 to C - 1 (integers), or target probabilities: not negative, each row summing
        to 1 within 1e-3, used as they are.
    class_weight : array-like of shape (C,), optional
        Weights of the classes, not negative: what the target has of a class counts so often.
    label_smoothing : float, default=0.0
        Share of each row's target, between 0 and 1, that is spread over all classes alike: the target
        is (1 - label_smoothing) p + label_smoothing / C, before classes are weighted.
    ignore_index : int, optional
        Rows with this label are not there, whatever their scores are: their losses and gradients are 0.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative; in a mean not all zero.
    reduction : {"mean", "sum", "none"}, default="mean"
        What becomes of the losses l of the rows: Σ w l / Σ w, Σ w l, or the array of w l, with w = 1
        where no weights are given.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    float, or ndarray of shape (n,) in the dtype of the scores for "none"
        ``mean(log Σ_j e^Z[i, j] - Z[i, y_i])``, or ``-mean(Σ_c y[i, c] log softmax(Z)[i, c])``; a class
        of probability 0 costs nothing. NaN scores give NaN.

    Raises
    ------
    TypeError
        If `y` is 1-D and not of integers, or an argument not real numbers.
    ValueError
        If shapes do not fit, n is 0 in a mean, a label is out of range or the weights are not usable.

    Notes
    -----
    A row's loss is -Σ_c v_c q_c log softmax(Z)_c, with q its target, smoothed, and v the class weights. With class
    indices a mean is divided by the sum of the weights w v_y of the rows that are not ignored, smoothed or not; with
    target probabilities by the sum of w alone.

    Cost: n C exponentials and n logarithms; reads n C numbers.

    Examples
    --------
    >>> from fastml.kernels import softmax_cross_entropy
    >>> round(softmax_cross_entropy([[0.0, 0.0], [1e4, 0.0]], [1, 0]), 6)
    0.346574
    >>> softmax_cross_entropy([[0.0, 0.0], [1e4, 0.0]], [1, -1], ignore_index=-1, reduction="none")
    array([0.69314718, 0.        ])
    """
    settled = arguments.cross_entropy(Z, y, class_weight, label_smoothing, ignore_index, sample_weight, reduction)
    return _cross_entropy(*settled, reduction, n_threads, gradient=False)[0]


def softmax_cross_entropy_gradient(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    class_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`softmax_cross_entropy` and its gradient ``(softmax(Z) - target) / n``, in one pass.

    Parameters
    ----------
    Z, y, class_weight, label_smoothing, ignore_index, sample_weight, reduction, n_threads
        As for `softmax_cross_entropy`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dZ : ndarray of shape (n, C)
        Derivative of the mean, else of the sum, with respect to each score, in the dtype of `Z`.

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
    settled = arguments.cross_entropy(Z, y, class_weight, label_smoothing, ignore_index, sample_weight, reduction)
    return _cross_entropy(*settled, reduction, n_threads, gradient=True)


def _transform(what: int, Z: NDArray[Any], out: NDArray[Any], n_threads: int | None) -> NDArray[Any]:
    scores = readonly(Z)
    _over_rows(lambda first, last: _transform_rows(what, scores, first, last, out), Z, n_threads)
    return out


def _cross_entropy(
    Z: NDArray[Any],
    y: NDArray[Any],
    weight: NDArray[Any] | None,
    divisor: float,
    options: arguments.TargetOptions | None,
    reduction: str,
    n_threads: int | None,
    *,
    gradient: bool,
) -> tuple[Any, NDArray[Any]]:
    n, dtype = len(Z), Z.dtype
    dZ = np.empty(Z.shape if gradient else (0, 0), dtype)
    indices, probabilities = (y, _NO_ROWS[dtype]) if y.ndim == 1 else (_NO_INDICES, y)
    scores, indices, probabilities = readonly(Z), readonly(indices), readonly(probabilities)
    w = ones(dtype) if weight is None else readonly(weight)
    partial = np.empty(-(-n // PART), np.float64)
    scale = dtype.type(1.0 / divisor)
    of_rows = reduction == "none"
    if options is None and not of_rows:
        settled: tuple[Any, ...] = scores, indices, probabilities, w, weight is not None, scale
        results: tuple[Any, ...] = partial, dZ
        fill: Any = _cross_entropy_rows
        values = None
    else:
        class_weight, smoothing, _ = options or arguments.TargetOptions(None, dtype.type(0), ignores=False)
        v = readonly(_NO_ROWS[dtype].reshape(0) if class_weight is None else class_weight)
        values = np.empty(n if of_rows else 0, dtype)
        settled = scores, indices, probabilities, w, weight is not None, v, smoothing, scale
        results = partial, values, dZ
        fill = _cross_entropy_each
    if n_threads is None and Z.nbytes * _BYTE_SECONDS < parallel.SMALL_SECONDS:  # without a function made for the call
        fill(*settled, 0, len(partial), *results)
    else:
        _over_rows(lambda first, last: fill(*settled, first, last, *results), Z, n_threads)
    return values if of_rows else mean_of_terms(partial, divisor), dZ


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


# Options have a kernel of their own, so that nobody else pays for them, neither in time nor in compilation.


@kernel
def _cross_entropy_each(Z, y, P, weight, weighted, class_weight, smoothing, scale, first, last, partial, values, dZ):  # type: ignore[no-untyped-def]
    """As `_cross_entropy_rows`, of targets as the options make them; rows with the label -1 are not there.

    The loss of each row goes to `values`, unless that is empty.
    """
    n, classes = Z.shape
    together = rows_at_once(classes, PART, Z)
    work = scratch(together, classes, Z, VALUES + 1)
    dense = P.size > 0 or smoothing > like(smoothing, 0)
    T = np.empty((together if dense else 0, classes), Z.dtype)
    labels, shares = np.zeros(together, np.intp), np.ones(together, Z.dtype)
    for block in range(first, last):
        value = 0.0
        end = min(n, (block + 1) * PART)
        for top in range(block * PART, end, together):
            bottom = min(end, top + together)
            for i in range(bottom - top):
                labels[i] = 0 if P.size > 0 else max(0, y[top + i])
                if weighted:
                    shares[i] = weight[top + i]
            if dense:
                _smoothed(labels, P[top:bottom], class_weight, smoothing, T[: bottom - top])
            here = dZ[top:bottom]
            cross_entropy_of_rows(Z[top:bottom], labels, T[: bottom - top], shares, scale, work, here)
            for i in range(bottom - top):
                term = work[VALUES, i]
                if P.size == 0 and y[top + i] < 0:
                    term = like(term, 0)
                    here[i : i + 1] = term  # even NaN: the row is not there
                value += term
                if values.size > 0:
                    values[top + i] = term
        partial[block] = value


@inner
def _smoothed(labels, P, class_weight, smoothing, T):  # type: ignore[no-untyped-def]
    """Make target probabilities: a share of each row's goes to all classes alike, then classes are weighted."""
    classes = T.shape[1]
    kept, spread = like(smoothing, 1) - smoothing, smoothing / like(smoothing, classes)
    for i in range(T.shape[0]):
        t = T[i]
        for c in range(classes):
            t[c] = spread
        if P.size > 0:
            p = P[i]
            for c in range(classes):
                t[c] += kept * p[c]
        else:
            t[labels[i]] += kept
        if class_weight.size > 0:
            for c in range(classes):
                t[c] *= class_weight[c]
