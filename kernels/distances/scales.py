"""Squared L2 distances beyond the range of their dtype: which they are, and in which scale they are made again.

A sum of squares can overflow or vanish where the distance itself does not. A pair is *ordinary* if its total lies
between two bounds, in which no part that was lost below the normal numbers counts; any other pair is *too small* or
*too large*, and its total is made again in float64: of float32 rows as they are, since their squares keep within
the range of float64, and of float64 rows times a constant power of two. Which of the three a pair is and what comes of
it depends on its two rows alone.

Order: too small pairs come before ordinary ones and too large ones after them, each kind by its totals. Their distances
never pass those of the next kind.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["distances", "ordinary", "rescaled", "squares"]

#: With float64 differences times 2 to this power, or to its negative, no square that counts leaves the range.
_POWERS = {np.dtype(np.float32): 0, np.dtype(np.float64): 600}


@cache
def ordinary(dtype: np.dtype[Any], columns: int) -> tuple[float, float]:
    """Return the least and the most that the total of an ordinary pair can be.

    What a square loses below the normal numbers is at most half an eps of the smallest of them, so that `columns`
    squares lose nothing that counts in a total of `columns` times the smallest normal number. The least total is a
    power of four at or above that: totals are below it exactly where their roots are below its root.
    """
    kind = np.finfo(dtype)
    if columns == 0:
        return 0.0, float(kind.max)
    return math.ldexp(float(kind.tiny), ((columns - 1).bit_length() + 1) // 2 * 2), float(kind.max)


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def rescaled(rows: NDArray[Any], large: bool) -> NDArray[np.float64]:
    """Return rows in float64, between which totals are made that were too large, or too small.

    Values that overflow are cut, which concerns no pair that was too small: there they are equal.
    """
    power = _POWERS[rows.dtype]
    if not power:
        return rows.astype(np.float64)
    if large:
        return rows * 2.0**-power
    largest = np.finfo(np.float64).max
    return np.clip(rows * 2.0**power, -largest, largest)


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def distances(totals: NDArray[np.float64], large: bool, dtype: np.dtype[Any], columns: int) -> NDArray[Any]:
    """Return the distances whose totals between `rescaled` rows are `totals`."""
    least, most = ordinary(dtype, columns)
    found = np.sqrt(totals) * 2.0 ** (_POWERS[dtype] if large else -_POWERS[dtype])
    found = np.maximum(found, math.sqrt(most)) if large else np.minimum(found, math.sqrt(least))
    return found.astype(dtype)


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def squares(totals: NDArray[np.float64], dtype: np.dtype[Any], columns: int) -> NDArray[Any]:
    """Return the squared distances that were too small, as far as the dtype has them."""
    return np.minimum(np.ldexp(totals, -2 * _POWERS[dtype]), ordinary(dtype, columns)[0]).astype(dtype)
