"""exp, sigmoid and softplus, and the binary cross-entropy of logits with its gradient.

The functions are vectorised by the compiler because they are arithmetic without branches or calls (see
`_math` for method, error bounds and sources). The loss takes logits, never probabilities: the naive
``-t log p - (1 - t) log(1 - p)`` is infinite or NaN as soon as p rounds to 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _math, _threads, _validate
from ._jit import kernel, readonly, scalar
from ._pointwise import pointwise_mean

__all__ = ["binary_cross_entropy", "binary_cross_entropy_gradient", "exp", "sigmoid", "softplus"]

#: Entries of a block, entries below which a second thread does not pay, entries of one compiled call.
_BLOCK = 1 << 14
_SERIAL_ENTRIES = 1 << 17
_CALL_ENTRIES = 1 << 22


def exp(x: ArrayLike, *, n_threads: int | None = None) -> NDArray[Any]:
    """Exponential ``e^x``, entry by entry.

    Parameters
    ----------
    x : array-like
        Any shape. float16 and float32 are worked on as float32, all else as float64.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray
        Same shape. Within 1.5 ulp; gradual underflow, infinity above the range, NaN for NaN.

    Raises
    ------
    TypeError
        If `x` is not real numbers.

    Examples
    --------
    >>> from fastml.kernels import exp
    >>> exp([0.0, 1000.0, -1000.0])
    array([ 1., inf,  0.])
    """
    return _elementwise(_exp_entries, x, "x", n_threads)


def sigmoid(z: ArrayLike, *, n_threads: int | None = None) -> NDArray[Any]:
    """``1 / (1 + e^-z)``, entry by entry; small values keep their relative accuracy.

    Parameters
    ----------
    z : array-like
        Any shape; dtypes as in `exp`.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray
        Same shape. Within 1.9 ulp, NaN for NaN.

    Raises
    ------
    TypeError
        If `z` is not real numbers.

    Examples
    --------
    >>> from fastml.kernels import sigmoid
    >>> sigmoid([0.0, 1.0, -1000.0])
    array([0.5       , 0.73105858, 0.        ])
    """
    return _elementwise(_sigmoid_entries, z, "z", n_threads)


def softplus(z: ArrayLike, *, n_threads: int | None = None) -> NDArray[Any]:
    """``log(1 + e^z)``, entry by entry, without overflow or cancellation.

    Parameters
    ----------
    z : array-like
        Any shape; dtypes as in `exp`.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray
        Same shape. Within 1.9 ulp, NaN for NaN.

    Raises
    ------
    TypeError
        If `z` is not real numbers.

    Examples
    --------
    >>> from fastml.kernels import softplus
    >>> softplus([0.0, 1000.0])
    array([6.93147181e-01, 1.00000000e+03])
    """
    return _elementwise(_softplus_entries, z, "z", n_threads)


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
    return _mean(z, t, sample_weight, n_threads, gradient=False)[0]


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
    return _mean(z, t, sample_weight, n_threads, gradient=True)


def _mean(
    z: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None, n_threads: int | None, *, gradient: bool
) -> tuple[float, NDArray[Any]]:
    z, t = _validate.scores_and_target(z, t, "probability", "t")
    weight, total = _validate.weights(sample_weight, z.size, z.dtype)
    return pointwise_mean("binary_cross_entropy", z, t, weight, total, n_threads, gradient=gradient)


def _elementwise(entries: Callable[..., None], x: ArrayLike, name: str, n_threads: int | None) -> NDArray[Any]:
    x = _validate.floating(x, name)
    result = np.empty_like(x)
    source, target = readonly(x.reshape(-1)), result.reshape(-1)
    n = source.size
    if n_threads is None and n < _SERIAL_ENTRIES:
        entries(source, target)
        return result

    def work(first: int, last: int) -> None:
        part = slice(first * _BLOCK, min(n, last * _BLOCK))
        entries(source[part], target[part])

    _threads.run_ranges(work, -(-n // _BLOCK), _threads.resolve(n_threads), most=_CALL_ENTRIES // _BLOCK)
    return result


def _entries(name: str, function: Callable[..., Any]) -> Callable[..., None]:
    """Make the kernel that applies a scalar function to every entry."""

    def entries(x, out):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            out[i] = function(x[i])

    entries.__qualname__ = entries.__name__ = f"{name}_entries"
    return kernel(entries)


@scalar
def _sigmoid(z):  # type: ignore[no-untyped-def]
    return _math.sigmoids(z)[0]


_exp_entries = _entries("exp", _math.exp)
_sigmoid_entries = _entries("sigmoid", _sigmoid)
_softplus_entries = _entries("softplus", _math.softplus)
