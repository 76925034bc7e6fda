"""Blocks of rows, reductions of rows, and what becomes of infinities."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...arguments.arrays import Array

# Entries of a block of differences or rows: half a megabyte of float32, which stays in an L2 cache.
BLOCK = 1 << 17

# Up to here rows are reduced column by column: NumPy's reduction costs some 50 ns for every row.
NARROW = 32

# Infinities and NaN go through by IEEE arithmetic; both branches of a `where` are computed.
quiet = np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")


def row_blocks(x: Array) -> Iterator[slice]:
    """Yield slices of rows that have about BLOCK entries together, and at least one row."""
    step = max(1, BLOCK * len(x) // max(1, x.size))
    for i in range(0, len(x), step):
        yield slice(i, i + step)


def row_max(Z: Array) -> Array:
    if 0 < Z.shape[1] <= NARROW:
        largest = Z[:, 0].copy()
        for column in Z.T[1:]:
            np.maximum(largest, column, out=largest)
        return largest
    return np.max(Z, axis=1, initial=-np.inf)


def row_sum(P: Array) -> Array:
    # einsum adds up in a plain loop, `sum` pairwise: more exact where there is much to add.
    return np.einsum("ij->i", P) if P.shape[1] <= NARROW else P.sum(axis=1)


def row_max_and_shift(Z: Array) -> tuple[Array, Array]:
    """Return the largest score of each row, and as a column the same with 0 if it is not finite.

    An infinite shift would turn infinities, which have a logarithm to be kept, into inf - inf.
    """
    largest = row_max(Z)
    return largest, np.where(np.isfinite(largest), largest, 0)[:, None]
