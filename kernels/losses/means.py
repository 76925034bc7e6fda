"""Losses of arrays of scores, made from `formulas`: their means, their sums, or those of all rows.

One kernel per loss serves loss and gradient, with and without weights, means and sums; another one, rows. Both work on
blocks of `BLOCK` entries whose bounds depend on n alone, and leaves each block's sum in its own place; these are added
up in order. So the result has the same bits for any number of threads. Within a block at most `PART`
terms are added in the precision of the scores before the sum moves to float64, which bounds its error
by 1e-6 of the sum of magnitudes, for any n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import scalars, targets
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly
from ..simd.functions import like
from ..simd.rows import sum_of
from . import arguments
from .formulas import POINTWISE, weighted_binary_cross_entropy
from .table import LOSSES

__all__ = ["BLOCK", "PART", "mean_of_terms", "ones", "pointwise_loss"]

BLOCK = 8192
PART = 128

#: Seconds of a byte of scores, roughly, and where a logarithm is taken; twice as long with a gradient.
_BYTE_SECONDS = 4e-11
_SECONDS = {"binary_cross_entropy": 1.5e-10, "weighted_binary_cross_entropy": 1.5e-10}

#: Entries that one compiled call may do.
_CALL_ENTRIES = 1 << 20

_ONES = {np.dtype(name): readonly(np.ones(PART, name)) for name in ("f4", "f8")}
_NO_GRADIENT = {np.dtype(name): np.empty(0, name) for name in ("f4", "f8")}


def ones(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Weights of a whole part, for use where there are none: loops read them again and again."""
    return _ONES[dtype]


def _sums(name: str, term: Callable[..., Any]) -> Callable[..., None]:
    """Make the kernel of one loss."""

    @inner
    def part_sum(z, y, weight, parameter):  # type: ignore[no-untyped-def]
        total = like(parameter, 0)
        for i in range(z.size):
            total += weight[i] * term(z[i], y[i], parameter)[0]
        return total

    @inner
    def part_sum_and_gradient(z, y, weight, parameter, scale, dz, values):  # type: ignore[no-untyped-def]
        for i in range(z.size):
            value, derivative = term(z[i], y[i], parameter)
            values[i] = weight[i] * value
            dz[i] = scale * weight[i] * derivative
        return sum_of(values[: z.size])

    def sums(z, y, weight, weighted, parameter, scale, first, last, partial, dz):  # type: ignore[no-untyped-def]
        values = np.empty(PART, z.dtype)
        for block in range(first, last):
            total = 0.0
            block_end = min(z.size, (block + 1) * BLOCK)
            for at in range(block * BLOCK, block_end, PART):
                end = min(block_end, at + PART)
                w = weight[at:end] if weighted else weight
                # Slices, so that the compiler sees indices that start at 0 and uses vectors.
                if dz.size > 0:
                    total += part_sum_and_gradient(z[at:end], y[at:end], w, parameter, scale, dz[at:end], values)
                else:
                    total += part_sum(z[at:end], y[at:end], w, parameter)
            partial[block] = total

    sums.__qualname__ = sums.__name__ = f"{name}_sums"
    return kernel(sums)


def _rows(name: str, term: Callable[..., Any]) -> Callable[..., None]:
    """Make the kernel of one loss that leaves what each row adds to the sum, for whom does not want the sum."""

    @inner
    def part_values(z, y, weight, parameter, values):  # type: ignore[no-untyped-def]
        for i in range(values.size):
            values[i] = weight[i] * term(z[i], y[i], parameter)[0]

    @inner
    def part_values_and_gradient(z, y, weight, parameter, scale, values, dz):  # type: ignore[no-untyped-def]
        for i in range(values.size):
            value, derivative = term(z[i], y[i], parameter)
            values[i] = weight[i] * value
            dz[i] = scale * weight[i] * derivative

    def rows(z, y, weight, weighted, parameter, scale, first, last, values, dz):  # type: ignore[no-untyped-def]
        for at in range(first * BLOCK, min(z.size, last * BLOCK), PART):
            end = min(z.size, at + PART)
            w = weight[at:end] if weighted else weight
            if dz.size > 0:
                part_values_and_gradient(z[at:end], y[at:end], w, parameter, scale, values[at:end], dz[at:end])
            else:
                part_values(z[at:end], y[at:end], w, parameter, values[at:end])

    rows.__qualname__ = rows.__name__ = f"{name}_rows"
    return kernel(rows)


# Only the kernels that are called get compiled: who takes means pays for no rows.
_TERMS = POINTWISE | {"weighted_binary_cross_entropy": weighted_binary_cross_entropy}
_SUMS = {name: _sums(name, term) for name, term in _TERMS.items()}
_ROWS = {name: _rows(name, term) for name, term in _TERMS.items()}


def mean_of_terms(partial: NDArray[np.float64], total: float) -> float:
    """Add the blocks' sums in their order and divide by the sum of the weights, or by 1."""
    return float(np.add.reduce(partial)) / total


def pointwise_loss(
    loss: str,
    z: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    reduction: str,
    n_threads: int | None,
    *,
    gradient: bool,
    delta: object = 0.0,
    pos_weight: object = None,
    target_name: str = "y",
) -> tuple[Any, NDArray[Any]]:
    """Return a loss of one score, reduced as asked, and its gradient (an empty array if not asked for)."""
    mean = arguments.is_mean(reduction)
    z, y = arguments.scores_and_target(z, y, LOSSES[loss].target, target_name, mean=mean)
    n, dtype = z.size, z.dtype
    weight, total = targets.weights(sample_weight, n, dtype, mean=mean)
    parameter = scalars.checked_delta(delta, dtype) if LOSSES[loss].has_delta else dtype.type(0.0)
    if pos_weight is not None:
        loss, parameter = "weighted_binary_cross_entropy", arguments.checked_pos_weight(pos_weight, dtype)
    n_blocks = -(-n // BLOCK)
    dz = np.empty_like(z) if gradient else _NO_GRADIENT[dtype]
    w = ones(dtype) if weight is None else readonly(weight)
    if reduction == "none":
        results, fill = np.empty(n, dtype), _ROWS[loss]
    else:
        results, fill = np.empty(n_blocks, np.float64), _SUMS[loss]
    settled = readonly(z), readonly(y), w, weight is not None, parameter, dtype.type(1.0 / total)
    seconds = z.nbytes * _SECONDS.get(loss, _BYTE_SECONDS) * (1 + gradient)
    if n_threads is None and seconds < parallel.SMALL_SECONDS:  # without a function made for the call
        fill(*settled, 0, n_blocks, results, dz)
    else:
        parallel.run_ranges(
            lambda first, last: fill(*settled, first, last, results, dz),
            n_blocks,
            n_threads,
            most=_CALL_ENTRIES // BLOCK,
            seconds=seconds,
        )
    return results if reduction == "none" else mean_of_terms(results, total), dz
