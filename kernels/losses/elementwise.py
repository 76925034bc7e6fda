"""Exponential, sigmoid and softplus of every entry.

The formulas are those of `simd.functions`, which has method, error bounds and sources: arithmetic without branches or
calls, from which the compiler makes vector code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import arrays
from ..runtime import parallel
from ..runtime.jit import kernel, readonly, scalar
from ..simd import functions as simd_functions

__all__ = ["exp", "sigmoid", "softplus"]

#: Entries of a block, entries of one compiled call.
_BLOCK = 1 << 14
_CALL_ENTRIES = 1 << 22

#: Seconds of a byte, roughly.
_BYTE_SECONDS = 7e-11


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


def _elementwise(entries: Callable[..., None], x: ArrayLike, name: str, n_threads: int | None) -> NDArray[Any]:
    x = arrays.floating(x, name)
    result = np.empty_like(x)
    source, target = readonly(x.reshape(-1)), result.reshape(-1)
    n = source.size
    seconds = x.nbytes * _BYTE_SECONDS
    # Without slices, which would be a third of the time of a small call.
    if n_threads is None and seconds < parallel.SMALL_SECONDS:
        entries(source, target)
        return result

    def work(first: int, last: int) -> None:
        part = slice(first * _BLOCK, min(n, last * _BLOCK))
        entries(source[part], target[part])

    parallel.run_ranges(work, -(-n // _BLOCK), n_threads, most=_CALL_ENTRIES // _BLOCK, seconds=seconds)
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
    return simd_functions.sigmoids(z)[0]


_exp_entries = _entries("exp", simd_functions.exp)
_sigmoid_entries = _entries("sigmoid", _sigmoid)
_softplus_entries = _entries("softplus", simd_functions.softplus)
