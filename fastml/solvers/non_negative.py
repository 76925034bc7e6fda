"""Least squares with coefficients that are not negative.

Source: C. L. Lawson and R. J. Hanson, Solving Least Squares Problems (1974), chapter 23. Here all columns that want to
enter do so together, which takes few solutions where theirs takes one per column; where that brings nothing, one does.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["non_negative"]

Array = NDArray[np.float64]


class _Problem(Protocol):
    """A sum of squares, with a penalty or without."""

    def solve(self, inside: NDArray[np.bool_]) -> Array:
        """Return the coefficients of the columns that are marked, which minimize the sum over these."""

    def slope(self, x: Array) -> Array:
        """Return how fast half the sum falls along each coefficient."""

    def value(self, x: Array) -> float:
        """Return half the sum."""


def non_negative(problem: _Problem, lengths: Array, rank: int, rounding: float) -> Array:
    """Return the coefficients of least squares, none of them below 0.

    Parameters
    ----------
    problem : object
        The sum of squares.
    lengths : ndarray of shape (D,)
        Lengths of the columns.
    rank : int
        Rank of the columns. More of them never enter on the whole, so that sums have one minimum.
    rounding : float
        Slopes of up to this times the length are rounding errors.
    """
    x, inside = np.zeros(len(lengths)), np.zeros(len(lengths), np.bool_)
    least, most = problem.value(x), len(lengths)
    while True:
        falls = problem.slope(x) / lengths
        wanted = np.flatnonzero(~inside & (falls > rounding))
        if not len(wanted):
            return x
        count = max(1, min(len(wanted), most, rank - int(inside.sum())))
        wanted = wanted[np.argsort(-falls[wanted], kind="stable")[:count]]
        more = inside.copy()
        more[wanted] = True
        new, marked = _descend(problem, x, more)
        now = problem.value(new)
        if now < least:
            x, inside, least, most = new, marked, now, 2 * count
        elif count > 1:
            most = count // 2
        else:
            return x  # what is left are rounding errors


def _descend(problem: _Problem, x: Array, inside: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Move to the minimum over the columns that are marked; those that would fall below 0 on the way are left out."""
    x = x.copy()
    while True:
        best = np.zeros(len(x))
        if inside.any():
            best[inside] = problem.solve(inside)
        below = inside & (best <= 0)
        if not below.any():
            return best, inside
        until = np.full(len(x), np.inf)
        until[below] = x[below] / np.where(x[below] > best[below], x[below] - best[below], 1.0)
        first = until <= until.min()
        x += until.min() * (best - x)
        x[first] = 0.0
        inside = inside & ~first
