"""The binary cross-entropy of logits, with its gradient.

The formula is `formulas.POINTWISE["binary_cross_entropy"]`. The loss takes logits, never probabilities: the naive
``-t log p - (1 - t) log(1 - p)`` is infinite or NaN as soon as p rounds to 0 or 1.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from .means import pointwise_mean

__all__ = ["binary_cross_entropy", "binary_cross_entropy_gradient"]


def binary_cross_entropy(
    z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None, n_threads: int | None = None
) -> float:
    """Mean of ``-t log σ(z) - (1 - t) log(1 - σ(z))``, from logits.

    Parameters
    ----------
    z : array-like of shape (n,)
        Logits. float16 and float32 are worked on as float32, all else as float64.
    t : array-like of shape (n,)
        Targets in [0, 1]; bool counts as 0 and 1.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative, not all zero.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    float
        The mean; finite for all finite logits, NaN if any logit is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes differ, n is 0, a target is outside [0, 1] or the weights are not usable.

    Notes
    -----
    Computed as ``log1p(e^-|z|) + |z| (1 - t)`` for z >= 0 and ``… + |z| t`` below: two summands that are
    not negative, so nothing cancels. Cost: n exponentials; reads 2 n numbers.

    Examples
    --------
    >>> from fastml.kernels import binary_cross_entropy
    >>> round(binary_cross_entropy([0.0, 1e4], [1, 1]), 6)
    0.346574
    """
    return pointwise_mean("binary_cross_entropy", z, t, sample_weight, n_threads, gradient=False, target_name="t")[0]


def binary_cross_entropy_gradient(
    z: ArrayLike, t: ArrayLike, *, sample_weight: ArrayLike | None = None, n_threads: int | None = None
) -> tuple[float, NDArray[Any]]:
    """`binary_cross_entropy` and its gradient ``(σ(z) - t) / n``, from one exponential per entry.

    Parameters
    ----------
    z, t, sample_weight, n_threads
        As for `binary_cross_entropy`.

    Returns
    -------
    loss : float
    dz : ndarray of shape (n,)
        Derivative of the mean with respect to each logit, in the dtype of `z`; right to a few ulp also
        where σ(z) rounds to t.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy`.

    Examples
    --------
    >>> from fastml.kernels import binary_cross_entropy_gradient
    >>> loss, dz = binary_cross_entropy_gradient([0.0, 1e4], [1, 1])
    >>> dz
    array([-0.25,  0.  ])
    """
    return pointwise_mean("binary_cross_entropy", z, t, sample_weight, n_threads, gradient=True, target_name="t")
