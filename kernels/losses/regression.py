"""Losses of regression: squared, absolute and Huber error, Poisson, with their (sub)gradients.

All are means over n scores `z` and targets `y`, Σ w l / Σ w with weights, or sums, or the losses of all
rows. float32 scores are worked on in float32, sums in float64 (see `means` for the bound), float64 throughout
otherwise.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from .means import pointwise_loss

__all__ = [
    "absolute_error",
    "absolute_error_gradient",
    "huber",
    "huber_gradient",
    "poisson",
    "poisson_gradient",
    "squared_error",
    "squared_error_gradient",
]


def squared_error(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Half the mean squared error, ``mean((z - y)² / 2)``.

    Parameters
    ----------
    z : array-like of shape (n,)
        Predictions. float16 and float32 are worked on as float32, all else as float64.
    y : array-like of shape (n,)
        Targets, cast to the dtype of `z`.
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
        NaN if any term is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes differ, n is 0 in a mean or the weights are not usable.

    Notes
    -----
    Cost: reads 2 n numbers (3 n with weights). The sum's error is at most 1e-6 (float32) of the sum
    of magnitudes, for any n.

    Examples
    --------
    >>> from fastml.kernels import squared_error
    >>> squared_error([3.0, 0.0], [1.0, 0.0])
    1.0
    """
    return pointwise_loss("squared_error", z, y, sample_weight, reduction, n_threads, gradient=False)[0]


def squared_error_gradient(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`squared_error` and its gradient ``(z - y) / n``, in one pass.

    Parameters
    ----------
    z, y, sample_weight, reduction, n_threads
        As for `squared_error`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dz : ndarray of shape (n,)
        Derivative of the mean, else of the sum, with respect to each score, in the dtype of `z`.

    Raises
    ------
    TypeError, ValueError
        As `squared_error`.

    Examples
    --------
    >>> from fastml.kernels import squared_error_gradient
    >>> squared_error_gradient([3.0, 0.0], [1.0, 0.0])
    (1.0, array([1., 0.]))
    """
    return pointwise_loss("squared_error", z, y, sample_weight, reduction, n_threads, gradient=True)


def absolute_error(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Mean absolute error, ``mean(|z - y|)``.

    Parameters
    ----------
    z : array-like of shape (n,)
        Predictions. float16 and float32 are worked on as float32, all else as float64.
    y : array-like of shape (n,)
        Targets, cast to the dtype of `z`.
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
        NaN if any term is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes differ, n is 0 in a mean or the weights are not usable.

    Examples
    --------
    >>> from fastml.kernels import absolute_error
    >>> absolute_error([3.0, 0.0], [1.0, 0.0])
    1.0
    """
    return pointwise_loss("absolute_error", z, y, sample_weight, reduction, n_threads, gradient=False)[0]


def absolute_error_gradient(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`absolute_error` and its subgradient ``sign(z - y) / n``, which is 0 where z = y.

    Parameters
    ----------
    z, y, sample_weight, reduction, n_threads
        As for `absolute_error`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dz : ndarray of shape (n,)
        Subgradient with respect to each score, in the dtype of `z`.

    Raises
    ------
    TypeError, ValueError
        As `absolute_error`.

    Examples
    --------
    >>> from fastml.kernels import absolute_error_gradient
    >>> absolute_error_gradient([3.0, 0.0], [1.0, 0.0])
    (1.0, array([0.5, 0. ]))
    """
    return pointwise_loss("absolute_error", z, y, sample_weight, reduction, n_threads, gradient=True)


def huber(
    z: ArrayLike,
    y: ArrayLike,
    *,
    delta: float = 1.35,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Huber's loss: ``r² / 2`` for residuals up to `delta`, ``delta (|r| - delta / 2)`` beyond.

    Parameters
    ----------
    z : array-like of shape (n,)
        Predictions. float16 and float32 are worked on as float32, all else as float64.
    y : array-like of shape (n,)
        Targets, cast to the dtype of `z`.
    delta : float, default=1.35
        Where the parabola goes over into its tangents; positive, in the unit of `z`.
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
        NaN if any term is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes differ, n is 0 in a mean, `delta` is not positive or the weights are not usable.

    References
    ----------
    P. J. Huber, "Robust Estimation of a Location Parameter", Ann. Math. Statist. 35 (1964).

    Examples
    --------
    >>> from fastml.kernels import huber
    >>> huber([3.0, 0.5], [1.0, 0.0], delta=1.0)
    0.8125
    """
    return pointwise_loss("huber", z, y, sample_weight, reduction, n_threads, gradient=False, delta=delta)[0]


def huber_gradient(
    z: ArrayLike,
    y: ArrayLike,
    *,
    delta: float = 1.35,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`huber` and its gradient, the residual clipped to ±`delta`, over n.

    Parameters
    ----------
    z, y, delta, sample_weight, reduction, n_threads
        As for `huber`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dz : ndarray of shape (n,)
        Derivative of the mean, else of the sum, with respect to each score, in the dtype of `z`.

    Raises
    ------
    TypeError, ValueError
        As `huber`.

    Examples
    --------
    >>> from fastml.kernels import huber_gradient
    >>> huber_gradient([3.0, 0.5], [1.0, 0.0], delta=1.0)
    (0.8125, array([0.5 , 0.25]))
    """
    return pointwise_loss("huber", z, y, sample_weight, reduction, n_threads, gradient=True, delta=delta)


def poisson(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Poisson loss of the logarithm z of an expected count, ``mean(e^z - y z)``.

    Parameters
    ----------
    z : array-like of shape (n,)
        Logarithms of the predictions. float16 and float32 are worked on as float32, all else as float64.
    y : array-like of shape (n,)
        Targets, not negative, whole or not; cast to the dtype of `z`.
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
        NaN if any score is NaN. What depends on `y` alone, log y!, is left out; so it may be negative.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes differ, n is 0 in a mean, a target is negative or the weights are not usable.

    Notes
    -----
    Cost: n exponentials; reads 2 n numbers. e^z is infinite from 88.8 on in float32, from 709.8 in float64.

    Examples
    --------
    >>> from fastml.kernels import poisson
    >>> poisson([0.0, 0.0], [0.0, 3.0])
    1.0
    """
    return pointwise_loss("poisson", z, y, sample_weight, reduction, n_threads, gradient=False)[0]


def poisson_gradient(
    z: ArrayLike,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`poisson` and its gradient ``(e^z - y) / n``, from one exponential per entry.

    Parameters
    ----------
    z, y, sample_weight, reduction, n_threads
        As for `poisson`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dz : ndarray of shape (n,)
        Derivative of the mean, else of the sum, with respect to each score, in the dtype of `z`.

    Raises
    ------
    TypeError, ValueError
        As `poisson`.

    Examples
    --------
    >>> from fastml.kernels import poisson_gradient
    >>> poisson_gradient([0.0, 0.0], [0.0, 3.0])
    (1.0, array([ 0.5, -1. ]))
    """
    return pointwise_loss("poisson", z, y, sample_weight, reduction, n_threads, gradient=True)
