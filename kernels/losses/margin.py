"""Hinge losses: binary, squared, and over classes, with their (sub)gradients.

All are means over n rows, Σ w l / Σ w with weights, or sums, or the losses of all rows. float32 scores are worked on in
float32, sums in float64 (see `means` for the bound), float64 throughout otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import targets
from ..runtime import parallel
from ..runtime.jit import kernel, readonly
from . import arguments
from .class_formulas import multiclass_hinge as rows_of_multiclass_hinge
from .means import PART, mean_of_terms, ones, pointwise_loss

__all__ = [
    "hinge",
    "hinge_gradient",
    "multiclass_hinge",
    "multiclass_hinge_gradient",
    "squared_hinge",
    "squared_hinge_gradient",
]

#: Seconds of a byte of scores, roughly, and entries of one compiled call.
_BYTE_SECONDS = 1e-10
_CALL_ENTRIES = 1 << 22


def hinge(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Mean hinge loss, ``mean(max(0, 1 - y z))``.

    Parameters
    ----------
    z : array-like of shape (n,)
        Scores. float16 and float32 are worked on as float32, all else as float64.
    y : array-like of shape (n,)
        Labels -1 and +1.
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
        NaN if any score is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes differ, n is 0 in a mean, a label is neither -1 nor +1, or the weights are not usable.

    Notes
    -----
    Cost: reads 2 n numbers (3 n with weights).

    Examples
    --------
    >>> from fastml.kernels import hinge
    >>> hinge([0.5, 1.0], [1, 1])
    0.25
    """
    return pointwise_loss("hinge", z, y, sample_weight, reduction, n_threads, gradient=False)[0]


def hinge_gradient(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`hinge` and its subgradient: ``-y / n`` where ``y z < 1``, 0 elsewhere, the kink included.

    Parameters
    ----------
    z, y, sample_weight, reduction, n_threads
        As for `hinge`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dz : ndarray of shape (n,)
        Subgradient with respect to each score, in the dtype of `z`.

    Raises
    ------
    TypeError, ValueError
        As `hinge`.

    Examples
    --------
    >>> from fastml.kernels import hinge_gradient
    >>> hinge_gradient([0.5, 1.0], [1, 1])
    (0.25, array([-0.5,  0. ]))
    """
    return pointwise_loss("hinge", z, y, sample_weight, reduction, n_threads, gradient=True)


def squared_hinge(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Mean squared hinge loss, ``mean(max(0, 1 - y z)²)``, without a half.

    Parameters
    ----------
    z, y, sample_weight, reduction, n_threads
        As for `hinge`.

    Returns
    -------
    float, or ndarray of shape (n,) in the dtype of the scores for "none"
        NaN if any score is NaN.

    Raises
    ------
    TypeError, ValueError
        As `hinge`.

    Examples
    --------
    >>> from fastml.kernels import squared_hinge
    >>> squared_hinge([0.5, 1.0], [1, 1])
    0.125
    """
    return pointwise_loss("squared_hinge", z, y, sample_weight, reduction, n_threads, gradient=False)[0]


def squared_hinge_gradient(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`squared_hinge` and its gradient ``-2 y max(0, 1 - y z) / n``.

    Parameters
    ----------
    z, y, sample_weight, reduction, n_threads
        As for `hinge`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dz : ndarray of shape (n,)
        Derivative of the mean, else of the sum, with respect to each score, in the dtype of `z`.

    Raises
    ------
    TypeError, ValueError
        As `hinge`.

    Examples
    --------
    >>> from fastml.kernels import squared_hinge_gradient
    >>> squared_hinge_gradient([0.5, -1.0], [1, 1])
    (2.125, array([-0.5, -2. ]))
    """
    return pointwise_loss("squared_hinge", z, y, sample_weight, reduction, n_threads, gradient=True)


def multiclass_hinge(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Mean hinge loss over classes, ``mean(max_j (Z[i, j] - Z[i, y_i] + 1[j ≠ y_i]))``.

    Parameters
    ----------
    Z : array-like of shape (n, C)
        Scores. float16 and float32 are worked on as float32, all else as float64.
    y : array-like of shape (n,)
        Class indices 0 to C - 1, of an integer dtype.
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
        NaN if any score is NaN.

    Raises
    ------
    TypeError
        If `y` is not of integers, or an argument not real numbers.
    ValueError
        If shapes do not fit, n is 0 in a mean, a label is out of range or the weights are not usable.

    References
    ----------
    K. Crammer and Y. Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector
    Machines", JMLR 2 (2001).

    Examples
    --------
    >>> from fastml.kernels import multiclass_hinge
    >>> multiclass_hinge([[0.0, 0.5, 0.5]], [0])
    1.5
    """
    return _loss_over_classes(Z, y, sample_weight, reduction, n_threads, gradient=False)[0]


def multiclass_hinge_gradient(
    Z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`multiclass_hinge` and a subgradient.

    Parameters
    ----------
    Z, y, sample_weight, reduction, n_threads
        As for `multiclass_hinge`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dZ : ndarray of shape (n, C)
        1 / n at the highest wrong class (the lowest index of equals), -1 / n at the true one; 0
        where the true class attains the maximum. A row with NaN is NaN.

    Raises
    ------
    TypeError, ValueError
        As `multiclass_hinge`.

    Examples
    --------
    >>> from fastml.kernels import multiclass_hinge_gradient
    >>> multiclass_hinge_gradient([[0.0, 0.5, 0.5]], [0])
    (1.5, array([[-1.,  1.,  0.]]))
    """
    return _loss_over_classes(Z, y, sample_weight, reduction, n_threads, gradient=True)


def _loss_over_classes(
    Z: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    reduction: str,
    n_threads: int | None,
    *,
    gradient: bool,
) -> tuple[Any, NDArray[Any]]:
    mean = arguments.is_mean(reduction)
    Z, y = arguments.class_targets(Z, y, mean=mean)
    weight, total = targets.weights(sample_weight, len(Z), Z.dtype, mean=mean)
    dZ = np.empty(Z.shape if gradient else (0, 0), Z.dtype)
    scores, labels = readonly(Z), readonly(y)
    w = ones(Z.dtype) if weight is None else readonly(weight)
    n_blocks = -(-len(Z) // PART)
    of_rows = reduction == "none"
    values = np.empty(len(Z) if of_rows else n_blocks, np.float64)
    scale = Z.dtype.type(1.0 / total)
    kernel_of = _rows_over_classes if of_rows else _sums_over_classes

    def work(first: int, last: int) -> None:
        kernel_of(scores, labels, w, weight is not None, scale, first, last, values, dZ)

    most = max(1, _CALL_ENTRIES // (PART * max(1, Z.shape[1])))
    parallel.run_ranges(work, n_blocks, n_threads, most=most, seconds=Z.nbytes * _BYTE_SECONDS)
    return values.astype(Z.dtype, copy=False) if of_rows else mean_of_terms(values, total), dZ


@kernel
def _sums_over_classes(Z, y, weight, weighted, scale, first, last, partial, dZ):  # type: ignore[no-untyped-def]
    """Leave the sum of each block's weighted losses in `partial` and write its rows of dZ."""
    for block in range(first, last):
        top, bottom = block * PART, min(Z.shape[0], (block + 1) * PART)
        w = weight[top:bottom] if weighted else weight
        partial[block] = rows_of_multiclass_hinge(Z[top:bottom], y[top:bottom], Z[:0], w, scale, Z, dZ[top:bottom])


@kernel
def _rows_over_classes(Z, y, weight, weighted, scale, first, last, values, dZ):  # type: ignore[no-untyped-def]
    """Leave the weighted loss of each row of the blocks in `values` and write its row of dZ."""
    for i in range(first * PART, min(Z.shape[0], last * PART)):
        row = slice(i, i + 1)
        w = weight[row] if weighted else weight
        values[i] = rows_of_multiclass_hinge(Z[row], y[row], Z[:0], w, scale, Z, dZ[row])
