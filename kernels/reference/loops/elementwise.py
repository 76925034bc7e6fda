"""Elementwise functions and the softmax family."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ...arguments import arrays
from ...arguments.arrays import Array
from ._common import Row, quiet

__all__ = ["exp", "log_softmax", "logsumexp", "sigmoid", "softmax", "softplus"]


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:  # Python raises where IEEE arithmetic says infinity
        return math.inf


def _log(x: float) -> float:
    return math.log(x) if x != 0 else -math.inf


def _sigmoid(z: float) -> float:
    # Only ever the exponential of a number <= 0, which cannot overflow.
    if z >= 0:
        return 1 / (1 + _exp(-z))
    e = _exp(z)
    return e / (1 + e)


def _softplus(z: float) -> float:
    # log(1 + e^z) = max(z, 0) + log(1 + e^-|z|): two summands >= 0, nothing cancels.
    return max(z, 0.0) + math.log1p(_exp(-abs(z)))


@quiet
def _elementwise(function: Callable[[float], float], x: ArrayLike, name: str) -> Array:
    array = arrays.floating(x, name)
    values = [function(value) for value in array.ravel().tolist()]
    return np.array(values, array.dtype).reshape(array.shape)


def exp(x: ArrayLike) -> Array:
    """``e^x`` of every entry; see `kernels.exp`."""
    return _elementwise(_exp, x, "x")


def sigmoid(z: ArrayLike) -> Array:
    """``1 / (1 + e^−z)`` of every entry; see `kernels.sigmoid`."""
    return _elementwise(_sigmoid, z, "z")


def softplus(z: ArrayLike) -> Array:
    """``log(1 + e^z)`` of every entry; see `kernels.softplus`."""
    return _elementwise(_softplus, z, "z")


def _softmax(z: Row) -> list[float]:
    # Taking the largest score off first changes nothing, and no exponential can overflow. A row
    # with +inf, or with nothing but -inf, has inf - inf here: NaN, in all entries.
    largest = max(z, default=0.0)
    exponentials = [_exp(score - largest) for score in z]
    total = sum(exponentials)
    return [e / total for e in exponentials]


def _log_sum_exp(z: Row) -> tuple[float, float]:
    """Return (shift, log Σ e^(z − shift)); their sum is log Σ e^z."""
    shift = max(z, default=-math.inf)
    if not math.isfinite(shift):
        shift = 0.0  # infinities have to stay what they are: inf - inf would be NaN
    total = 0.0
    for score in z:
        total += _exp(score - shift)
    return shift, _log(total)


def _log_softmax(z: Row) -> list[float]:
    shift, log_total = _log_sum_exp(z)
    return [(score - shift) - log_total for score in z]


def softmax(Z: ArrayLike) -> Array:
    """``e^Z[i, c] / Σ_j e^Z[i, j]``, row by row; see `kernels.softmax`."""
    return _by_rows(_softmax, Z)


def log_softmax(Z: ArrayLike) -> Array:
    """``Z[i, c] − log Σ_j e^Z[i, j]``, row by row; see `kernels.log_softmax`."""
    return _by_rows(_log_softmax, Z)


@quiet
def _by_rows(function: Callable[[Row], list[float]], Z: ArrayLike) -> Array:
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty_like(Z)
    for i, z in enumerate(Z.tolist()):
        result[i] = function(z)
    return result


@quiet
def logsumexp(Z: ArrayLike) -> Array:
    """``log Σ_j e^Z[i, j]`` of every row; see `kernels.logsumexp`."""
    Z = arrays.floating(Z, "Z", 2)
    return np.array([sum(_log_sum_exp(z)) for z in Z.tolist()], Z.dtype)
