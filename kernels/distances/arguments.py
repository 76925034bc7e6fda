"""What distances and neighbours ask of their arguments: two sides of one dtype, a metric, a number of neighbors."""

from __future__ import annotations

import numbers
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..arguments.arrays import (
    FLOAT32,
    FLOAT64,
    KINDS,
    UINT8,
    Array,
    as_contiguous,
    dimensions_needed,
    floating_dtype,
    real,
    warn_of_rounding,
)
from ..arguments.scalars import flag, listed

Metric = Literal["l1", "l2", "linf"]


METRICS: dict[str, Metric] = {
    "l1": "l1",
    "manhattan": "l1",
    "cityblock": "l1",
    "l2": "l2",
    "euclidean": "l2",
    "linf": "linf",
    "chebyshev": "linf",
}


# The largest sums that still fit int32: 255 * D for L1, 255**2 * D for squared L2.
INT32_COLUMNS_L1 = np.iinfo(np.int32).max // 255
INT32_COLUMNS_SQUARED_L2 = np.iinfo(np.int32).max // 255**2


def pair(X: ArrayLike, Y: ArrayLike | None = None) -> tuple[Array, Array, str]:
    """Settle the two sides of a distance: 2-D, equal numbers of columns, one dtype.

    Returns
    -------
    X, Y : ndarray
        Of shapes (n, D) and (m, D). ``Y is X`` where `Y` is None or was the same object, so that a
        kernel may use the symmetry.
    kind : {"uint8", "float32", "float64"}
        Name of their dtype.
    """
    x = real(X, "X")
    y = x if Y is None or Y is X else real(Y, "Y")
    if x.ndim != 2:
        raise ValueError(f"X has shape {x.shape}; {dimensions_needed('X', 2)}")
    if y.ndim != 2:
        raise ValueError(f"Y has shape {y.shape}; {dimensions_needed('Y', 2)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"Y has {y.shape[1]} columns, X has {x.shape[1]}; they must be equal")
    dtype = _common_dtype(x.dtype, y.dtype)
    warn_of_rounding(x, "X", dtype)
    if y is not x:
        warn_of_rounding(y, "Y", dtype)
    settled = as_contiguous(x, dtype)
    return settled, (settled if y is x else as_contiguous(y, dtype)), KINDS[dtype]


def result_dtype(metric: Metric, dtype: np.dtype[Any], columns: int, squared: bool = False) -> np.dtype[Any]:
    """Return the dtype of the distances between rows of `dtype` (one of `pair`'s three).

    Raises
    ------
    ValueError
        For uint8 L1 over more than 8,421,504 columns, which may not fit int32.
    """
    if dtype != UINT8:
        return dtype
    if metric == "linf":
        return np.dtype(np.int32)
    if metric == "l1":
        if columns > INT32_COLUMNS_L1:
            raise ValueError(
                f"X has {columns} columns; uint8 L1 distances are int32 and hold at most {INT32_COLUMNS_L1} columns "
                "(pass float64 for more)"
            )
        return np.dtype(np.int32)
    if not squared:
        return FLOAT32
    return np.dtype(np.int32 if columns <= INT32_COLUMNS_SQUARED_L2 else np.int64)


def metric(name: object) -> Metric:
    """Return the short name of a metric: "l1", "l2" or "linf"."""
    if not isinstance(name, str):
        raise TypeError(f"metric is a {type(name).__name__}; it must be a str, one of {listed(METRICS)}")
    try:
        return METRICS[name]
    except KeyError:
        raise ValueError(f"metric is {name!r}; it must be one of {listed(METRICS)}") from None


def k(k: object, m: int, exclude_self: bool, n: int) -> int:
    """Return the number of neighbours as an int, with 1 <= k <= candidates per row.

    `n` and `m` are the rows of X and Y; with `exclude_self` both must be equal and a row has
    m - 1 candidates.
    """
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, numbers.Integral):
        raise TypeError(f"k is {k!r} ({type(k).__name__}); it must be an integer")
    count = int(k)
    if flag(exclude_self, "exclude_self"):
        if n != m:
            raise ValueError(f"exclude_self needs as many rows in Y as in X; Y has {m}, X has {n}")
        if not 1 <= count < m:
            raise ValueError(f"k is {count}; with exclude_self it must lie between 1 and {m - 1}, Y has {m} rows")
    elif not 1 <= count <= m:
        raise ValueError(f"k is {count}; it must lie between 1 and {m}, the number of rows of Y")
    return count


def _common_dtype(x: np.dtype[Any], y: np.dtype[Any]) -> np.dtype[Any]:
    # Dtypes of native byte order are singletons, so identity settles nearly all calls.
    if x is y and (x is FLOAT32 or x is FLOAT64 or x is UINT8):
        return x
    if x == UINT8:
        return UINT8 if y == UINT8 else floating_dtype(y)
    if y == UINT8:
        return floating_dtype(x)
    return FLOAT32 if floating_dtype(x) is FLOAT32 is floating_dtype(y) else FLOAT64
