"""The binary cross-entropy of logits, with its gradient.

The formula is `formulas.POINTWISE["binary_cross_entropy"]`. The loss takes logits, never probabilities: the naive
``-t log p - (1 - t) log(1 - p)`` is infinite or NaN as soon as p rounds to 0 or 1.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from . import arguments
from .means import pointwise_loss

__all__ = ["binary_cross_entropy", "binary_cross_entropy_gradient"]


def binary_cross_entropy(
    z: ArrayLike,
    t: ArrayLike,
    *,
    pos_weight: float | None = None,
    label_smoothing: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> Any:
    """Mean of ``-t log σ(z) - (1 - t) log(1 - σ(z))``, from logits.

    Parameters
    ----------
    z : array-like of shape (n,)
        Logits. float16 and float32 are worked on as float32, all else as float64.
    t : array-like of shape (n,)
        Targets in [0, 1]; bool counts as 0 and 1.
    pos_weight : float, optional
        By what the loss of class 1 is multiplied, ``-pos_weight t log σ(z) - (1 - t) log(1 - σ(z))``; not negative.
        A mean is still divided by the sum of the sample weights alone.
    label_smoothing : float, default=0.0
        Share of each target, between 0 and 1, that goes to both classes alike: the target is
        (1 - label_smoothing) t + label_smoothing / 2.
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
        finite for all finite logits, NaN if any logit is NaN.

    Raises
    ------
    TypeError
        If an argument is not real numbers.
    ValueError
        If shapes differ, n is 0 in a mean, a target is outside [0, 1] or the weights are not usable.

    Notes
    -----
    Computed as ``log1p(e^-|z|) + |z| (1 - t)`` for z >= 0 and ``… + |z| t`` below: two summands that are
    not negative, so nothing cancels. Cost: n exponentials; reads 2 n numbers.

    Examples
    --------
    >>> from fastml.kernels import binary_cross_entropy
    >>> round(binary_cross_entropy([0.0, 1e4], [1, 1]), 6)
    0.346574
    >>> binary_cross_entropy([0.0, 1e4], [1, 0], pos_weight=2.0, reduction="none")
    array([1.38629436e+00, 1.00000000e+04])
    """
    return _loss(z, t, pos_weight, label_smoothing, sample_weight, reduction, n_threads, gradient=False)[0]


def binary_cross_entropy_gradient(
    z: ArrayLike,
    t: ArrayLike,
    *,
    pos_weight: float | None = None,
    label_smoothing: float = 0.0,
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]:
    """`binary_cross_entropy` and its gradient ``(σ(z) - t) / n``, from one exponential per entry.

    Parameters
    ----------
    z, t, pos_weight, label_smoothing, sample_weight, reduction, n_threads
        As for `binary_cross_entropy`.

    Returns
    -------
    loss : float, or ndarray of shape (n,) in the dtype of the scores for "none"
    dz : ndarray of shape (n,)
        Derivative of the mean, else of the sum, with respect to each logit, in the dtype of `z`; right to a few ulp
        also where σ(z) rounds to t.

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
    return _loss(z, t, pos_weight, label_smoothing, sample_weight, reduction, n_threads, gradient=True)


def _loss(
    z: ArrayLike,
    t: ArrayLike,
    pos_weight: float | None,
    label_smoothing: float,
    sample_weight: ArrayLike | None,
    reduction: str,
    n_threads: int | None,
    *,
    gradient: bool,
) -> tuple[Any, NDArray[Any]]:
    if type(label_smoothing) is not float or label_smoothing != 0:
        z, t = arguments.scores_and_target(z, t, "probability", "t", mean=arguments.is_mean(reduction))
        t = arguments.smoothed(t, label_smoothing)
    return pointwise_loss(
        "binary_cross_entropy",
        z,
        t,
        sample_weight,
        reduction,
        n_threads,
        gradient=gradient,
        pos_weight=pos_weight,
        target_name="t",
    )
