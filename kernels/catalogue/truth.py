"""What a truth is, and the arithmetic that it is found in."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_MANY_TERMS = 10_000_000


class Truth(tuple[Array, ...]):
    """The true outputs of a call, with what is needed to judge others by them."""

    scale: tuple[Array, ...]  # per output: size of the terms behind each entry
    slack: tuple[Any, ...]  # per output: absolute allowance on top (0, or an array)
    dtypes: tuple[np.dtype[Any] | None, ...]  # per output: dtype of an array, None for a Python float
    distances: Array | None  # of neighbors: the true distance of every pair

    @property
    def neighbors(self) -> int | None:
        """Return which output has indices of neighbors; of three, as in a sparse matrix by rows, the second."""
        if self.distances is None:
            return None
        return 1 if len(self) == 3 else self.dtypes.index(np.dtype(np.intp))

    def __new__(
        cls,
        values: tuple[Any, ...],
        dtypes: tuple[Any, ...],
        scale: tuple[Any, ...] | None = None,
        slack: tuple[Any, ...] | None = None,
        distances: Array | None = None,
    ) -> Truth:
        """Make the tuple of the values; `scale` defaults to their size, `slack` to 0."""
        arrays = [np.asarray(value) for value in values]
        truth = super().__new__(cls, arrays)
        truth.scale = tuple(np.abs(a) for a in arrays) if scale is None else tuple(np.asarray(s) for s in scale)
        truth.slack = (0.0,) * len(arrays) if slack is None else slack
        truth.dtypes = tuple(None if dtype is None else np.dtype(dtype) for dtype in dtypes)
        truth.distances = distances
        return truth


def wide_dtype(dtype: np.dtype[Any], terms: int) -> type[np.floating[Any]]:
    """Return the dtype to compute in for inputs of `dtype`, with so many terms in all."""
    return np.longdouble if dtype == np.float64 and terms <= _MANY_TERMS else np.float64


def plain_sum_factor(n: int, dtype: np.dtype[Any], rtol: dict[str, float]) -> float:
    """Return the factor by which n float64 roundings of a plain sum widen a scale.

    float32 terms are summed in float64, where this is nothing; float64 terms have no wider sum.
    """
    return 1 + n * 2.0**-53 / rtol[dtype.name]
