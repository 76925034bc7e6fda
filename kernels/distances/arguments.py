"""The table of metrics, and what distances and neighbors ask of their arguments. It can be read without Numba.

`METRICS` is the one table: checks of names, kernels, tiles, models, plots, reports and tests derive from it what they
say of a metric. What a tile does for a pair of columns stands in `_tile_metrics`, by metric.
"""

from __future__ import annotations

import numbers
import sys
from typing import Any, Literal, NamedTuple, get_args

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
from ..arguments.scalars import flag, listed, scalar

#: The short name of a metric: a key of `METRICS`.
Metric = str

#: How to search for neighbors.
Algorithm = Literal["auto", "brute", "tree"]


class MetricDefinition(NamedTuple):
    """What a metric is: a step for each column, of which a combination makes the total that kernels compare."""

    title: str
    #: Other names, first that which scikit-learn's models say.
    aliases: tuple[str, ...]
    formula: str
    #: What a column contributes, |x - y| or its square: a key of `_tile_metrics.STEPS`.
    step: str
    combination: Literal["sum", "maximum"]
    #: Whether the distance is the square root of the total.
    root: bool
    #: What a column of bytes contributes at most.
    largest_byte_step: int
    #: Whether `_pruning` has bounds of it: it needs a norm of x - y, and to know how the norm rounds.
    can_be_pruned: bool


METRICS: dict[Metric, MetricDefinition] = {
    "l1": MetricDefinition(
        title="L1",
        aliases=("manhattan", "cityblock"),
        formula="Σ|x − y|",
        step="difference",
        combination="sum",
        root=False,
        largest_byte_step=255,
        can_be_pruned=True,
    ),
    "l2": MetricDefinition(
        title="L2",
        aliases=("euclidean",),
        formula="√Σ(x − y)²",
        step="square",
        combination="sum",
        root=True,
        largest_byte_step=255**2,
        can_be_pruned=True,
    ),
    "linf": MetricDefinition(
        title="L∞",
        aliases=("chebyshev",),
        formula="max|x − y|",
        step="difference",
        combination="maximum",
        root=False,
        largest_byte_step=255,
        can_be_pruned=True,
    ),
}

_ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

#: All names of metrics, and the short name that each means.
METRIC_NAMES: dict[str, Metric] = {
    name: short for short, definition in METRICS.items() for name in (short, *definition.aliases)
}

#: The numbers by which compiled code tells metrics apart.
METRIC_CODES: dict[Metric, int] = {name: code for code, name in enumerate(METRICS)}
L1, L2, LINF = (METRIC_CODES[name] for name in ("l1", "l2", "linf"))


def most_int32_columns(metric: Metric) -> int:
    """Return of how many columns of bytes int32 holds the total at least; of a maximum there is no limit."""
    definition = METRICS[metric]
    most = np.iinfo(np.int32).max // definition.largest_byte_step
    return most if definition.combination == "sum" else sys.maxsize


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
    """Return the dtype of the distances between rows of `dtype` (one of `pair`'s three, or rounded ones).

    Raises
    ------
    ValueError
        For uint8 L1 over more than 8,421,504 columns, which may not fit int32.
    """
    if dtype.kind == "f":
        return dtype
    root = METRICS[metric].root
    if root and not squared:
        return FLOAT32
    if columns <= (most := most_int32_columns(metric)):
        return np.dtype(np.int32)
    if root:
        return np.dtype(np.int64)
    raise ValueError(
        f"X has {columns} columns; uint8 {METRICS[metric].title} distances are int32 and hold at most {most} columns "
        "(pass float64 for more)"
    )


def metric(name: object) -> Metric:
    """Return the short name of a metric, one of `METRICS`."""
    if not isinstance(name, str):
        raise TypeError(f"metric is a {type(name).__name__}; it must be a str, one of {listed(METRIC_NAMES)}")
    try:
        return METRIC_NAMES[name]
    except KeyError:
        raise ValueError(f"metric is {name!r}; it must be one of {listed(METRIC_NAMES)}") from None


def algorithm(name: object) -> Algorithm:
    """Return how to search for neighbors, one of `Algorithm`."""
    if not isinstance(name, str):
        raise TypeError(f"algorithm is a {type(name).__name__}; it must be a str, one of {listed(_ALGORITHMS)}")
    for known in _ALGORITHMS:
        if name == known:
            return known
    raise ValueError(f"algorithm is {name!r}; it must be one of {listed(_ALGORITHMS)}")


def k(k: object, m: int, exclude_self: bool, n: int) -> int:
    """Return the number of neighbors as an int, with 1 <= k <= candidates per row.

    `n` and `m` are the rows of X and Y; with `exclude_self` both must be equal and a row has
    m - 1 candidates.
    """
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, numbers.Integral):
        raise TypeError(f"k is {k!r} ({type(k).__name__}); it must be an integer")
    count = int(k)
    if flag(exclude_self, "exclude_self"):
        if n != m:
            raise ValueError(f"exclude_self needs as many rows in Y as in X, or an offset; Y has {m}, X has {n}")
        if not 1 <= count < m:
            raise ValueError(f"k is {count}; with exclude_self it must lie between 1 and {m - 1}, Y has {m} rows")
    elif not 1 <= count <= m:
        raise ValueError(f"k is {count}; it must lie between 1 and {m}, the number of rows of Y")
    return count


def radius(radius: object, n: int) -> Array:
    """Return radii in float64, of shape () or (n,): numbers from 0 to infinity."""
    if np.ndim(radius) == 0:  # type: ignore[arg-type]
        radii = np.asarray(scalar(radius, "radius"))
    else:
        radii = as_contiguous(real(radius, "radius"), FLOAT64)  # type: ignore[arg-type]
        if radii.shape != (n,):
            raise ValueError(f"radius has shape {radii.shape}; it must be a number or ({n},), one for each row of X")
    wrong = ~(radii >= 0)
    if wrong.any():
        where = f"radius[{wrong.argmax()}] is {radii[wrong.argmax()]}" if radii.ndim else f"radius is {radii}"
        raise ValueError(f"{where}; it must be at least 0")
    return radii


def excludes_self(exclude_self: object, n: int, m: int) -> bool:
    """Return whether a row is no candidate for itself, for which X and Y need as many rows."""
    if flag(exclude_self, "exclude_self") and n != m:
        raise ValueError(f"exclude_self needs as many rows in Y as in X; Y has {m}, X has {n}")
    return bool(exclude_self)


def _common_dtype(x: np.dtype[Any], y: np.dtype[Any]) -> np.dtype[Any]:
    # Dtypes of native byte order are singletons, so identity settles nearly all calls.
    if x is y and (x is FLOAT32 or x is FLOAT64 or x is UINT8):
        return x
    if x == UINT8:
        return UINT8 if y == UINT8 else floating_dtype(y)
    if y == UINT8:
        return floating_dtype(x)
    return FLOAT32 if floating_dtype(x) is FLOAT32 is floating_dtype(y) else FLOAT64
