"""Elementwise functions and the softmax family."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...arguments import arrays
from ...arguments.arrays import Array
from ._common import quiet, row_blocks, row_max, row_max_and_shift, row_sum

__all__ = ["exp", "log_softmax", "logsumexp", "sigmoid", "softmax", "softplus"]


@quiet
def exp(x: ArrayLike) -> Array:
    """Compute ``e^x`` of every entry; see `kernels.exp`."""
    x = arrays.floating(x, "x")
    return np.exp(x, out=np.empty_like(x))


@quiet
def sigmoid(z: ArrayLike) -> Array:
    """Compute ``1 / (1 + e^−z) = e^min(z, 0) / (1 + e^−|z|)`` of every entry; see `kernels.sigmoid`."""
    z = arrays.floating(z, "z")
    result, other = _exp_both_sides(z)
    other *= result
    other += 1
    result /= other
    return result


@quiet
def softplus(z: ArrayLike) -> Array:
    """Compute ``log(1 + e^z) = max(z, 0) + log(1 + e^−|z|)`` of every entry; see `kernels.softplus`."""
    z = arrays.floating(z, "z")
    result = np.abs(z, out=np.empty_like(z))
    np.negative(result, out=result)
    np.exp(result, out=result)
    np.log1p(result, out=result)
    result += np.maximum(z, 0)
    return result


def _exp_both_sides(z: Array) -> tuple[Array, Array]:
    """Return e^min(z, 0) and e^min(−z, 0): one of each pair is 1, their product is e^−|z|.

    A second exponential costs less than a `where`, whose branches no predictor can guess.
    """
    up = np.minimum(z, 0, out=np.empty_like(z))
    np.exp(up, out=up)
    down = np.maximum(z, 0, out=np.empty_like(z))
    np.negative(down, out=down)
    np.exp(down, out=down)
    return up, down


@quiet
def softmax(Z: ArrayLike) -> Array:
    """Compute ``e^Z[i, c] / Σ_j e^Z[i, j]``, in blocks of rows; see `kernels.softmax`."""
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty_like(Z)
    for rows in row_blocks(Z):
        P = np.subtract(Z[rows], row_max(Z[rows])[:, None], out=result[rows])
        np.exp(P, out=P)
        P /= row_sum(P)[:, None]
    return result


@quiet
def log_softmax(Z: ArrayLike) -> Array:
    """Compute ``Z[i, c] − log Σ_j e^Z[i, j]``, in blocks of rows; see `kernels.log_softmax`."""
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty_like(Z)
    for rows in row_blocks(Z):
        _, shift = row_max_and_shift(Z[rows])
        block = np.subtract(Z[rows], shift, out=result[rows])
        block -= np.log(row_sum(np.exp(block)))[:, None]
    return result


@quiet
def logsumexp(Z: ArrayLike) -> Array:
    """Compute ``log Σ_j e^Z[i, j]`` of every row, in blocks; see `kernels.logsumexp`."""
    Z = arrays.floating(Z, "Z", 2)
    result = np.empty(len(Z), Z.dtype)
    for rows in row_blocks(Z):
        _, shift = row_max_and_shift(Z[rows])
        P = Z[rows] - shift
        np.exp(P, out=P)
        result[rows] = np.log(row_sum(P)) + shift[:, 0]
    return result
