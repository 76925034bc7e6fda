"""The table of metrics, and what distances and neighbors ask of their arguments. It can be read without Numba.

`METRICS` is the one table: checks of names, kernels, tiles, models, plots, reports and tests derive from it what they
say of a metric. What a tile does for a pair of columns stands in `_tile_metrics`, by metric. `VARIANTS` has what only
searches know: other readings of the same totals, and metrics of other rows, which are compiled by themselves.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from ..arguments.scalars import listed, scalar

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
    #: What its rows are: numbers of any kind, floats, floats of which only the direction counts, or packed bits.
    rows: Literal["numbers", "floats", "directions", "bits"] = "numbers"
    #: The metric by whose totals rows are compared, where it has none of its own.
    base: Metric | None = None


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

#: What searches know beside them.
VARIANTS: dict[Metric, MetricDefinition] = {
    "sqeuclidean": METRICS["l2"]._replace(title="squared L2", aliases=(), formula="Σ(x − y)²", root=False, base="l2"),
    "cosine": MetricDefinition(
        title="cosine",
        aliases=(),
        formula="1 − x·y / (|x| |y|)",
        step="square",
        combination="sum",
        root=False,
        largest_byte_step=0,
        can_be_pruned=True,
        rows="directions",
        base="l2",
    ),
    "inner_product": MetricDefinition(
        title="inner product",
        aliases=(),
        formula="x·y, largest first",
        step="product",
        combination="sum",
        root=False,
        largest_byte_step=0,
        can_be_pruned=False,
        rows="floats",
    ),
    "hamming": MetricDefinition(
        title="Hamming",
        aliases=(),
        formula="bits that differ",
        step="differing bits",
        combination="sum",
        root=False,
        largest_byte_step=0,
        can_be_pruned=False,
        rows="bits",
    ),
    "jaccard": MetricDefinition(
        title="Jaccard",
        aliases=(),
        formula="1 − bits of x and y / bits of x or y",
        step="differing and joined bits",
        combination="sum",
        root=False,
        largest_byte_step=0,
        can_be_pruned=False,
        rows="bits",
    ),
}

#: Factors of columns up to which products with float32 stay within their range, roughly.
_LARGEST_FACTOR = 2.0**40

DEFINITIONS = METRICS | VARIANTS

#: Those of rows as they are.
OF_NUMBERS = tuple(short for short, definition in DEFINITIONS.items() if definition.rows == "numbers")

_ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

#: All names of metrics, and the short name that each means.
METRIC_NAMES: dict[str, Metric] = {
    name: short for short, definition in DEFINITIONS.items() for name in (short, *definition.aliases)
}

#: The numbers by which compiled code tells metrics apart.
METRIC_CODES: dict[Metric, int] = {name: code for code, name in enumerate(METRICS)}
L1, L2, LINF = (METRIC_CODES[name] for name in ("l1", "l2", "linf"))


def base(metric: Metric) -> Metric:
    """Return by the totals of which metric rows are compared."""
    return DEFINITIONS[metric].base or metric


def most_int32_columns(metric: Metric) -> int:
    """Return of how many columns of bytes int32 holds the total at least; of a maximum there is no limit."""
    definition = DEFINITIONS[metric]
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


def sides(
    metric: Metric, parameters: Mapping[str, Any] | None, X: ArrayLike, Y: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Settle the two sides of a metric as `pair` does: rows of the kind that it takes, columns times their factors."""
    x, y, kind = pair(X, Y)
    factors = column_factors(metric, parameters, kind, x.shape[1])
    if kind == "uint8":
        is_narrow = factors is not None or DEFINITIONS[metric].rows in ("floats", "directions")
    else:
        is_narrow = x.dtype == FLOAT32 and factors is not None and _are_extreme(factors)
    if is_narrow:
        wide = x.astype(FLOAT64)
        x, y = wide, (wide if y is x else y.astype(FLOAT64))
    if factors is None:
        return x, y
    scaled = _times(x, factors)
    return scaled, (scaled if y is x else _times(y, factors))


def column_factors(
    metric: Metric, parameters: Mapping[str, Any] | None, kind: str, columns: int
) -> NDArray[np.float64] | None:
    """Return what columns are multiplied with so that their differences have their weights; None: there are none.

    `parameters` is ``{"w": weights}`` or None. A column of weight w counts as w columns: w |x - y| (L1), w (x - y)^2
    (L2), and in a maximum every column of positive weight alike. A column of weight 0 is not there.

    Raises
    ------
    TypeError, ValueError
        If the metric does not take rows of a `kind`, or `parameters`.
    """
    definition = DEFINITIONS[metric]
    if definition.rows == "bits" and kind != "uint8":
        raise TypeError(f"metric is {metric!r}; it needs rows of packed bits, uint8 as numpy.packbits makes them")
    if parameters is None:
        return None
    if not isinstance(parameters, Mapping):
        raise TypeError(f"metric_params is a {type(parameters).__name__}; it must be a dict or None")
    for name in parameters:
        if name != "w" or definition.rows != "numbers":
            known = "'w'" if definition.rows == "numbers" else "nothing"
            raise ValueError(f"metric_params has {name!r}; {known} may be in it for metric {metric!r}")
    if parameters.get("w") is None:
        return None
    w = as_contiguous(real(parameters["w"], "metric_params['w']"), FLOAT64)
    if w.shape != (columns,):
        raise ValueError(f"metric_params['w'] has shape {w.shape}; X has {columns} columns")
    wrong = ~((w >= 0) & (w < np.inf))
    if wrong.any():
        place = wrong.argmax()
        raise ValueError(f"metric_params['w'] has {w[place]} at {place}; weights must be finite and not negative")
    if definition.combination == "maximum":
        return (w > 0).astype(FLOAT64)
    return np.sqrt(w) if definition.step == "square" else w


def _are_extreme(factors: Array) -> bool:
    """Whether products with float32 may leave its range."""
    counting = factors[factors > 0]
    return bool(counting.size and not 1 / _LARGEST_FACTOR <= counting.min() <= counting.max() <= _LARGEST_FACTOR)


def _times(rows: Array, factors: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # in float64, and rounded once
        weighted = np.multiply(rows, factors, out=np.empty_like(rows), casting="same_kind")
    weighted[:, factors == 0] = 0  # 0 times NaN or infinity is not
    return weighted


def result_dtype(metric: Metric, dtype: np.dtype[Any], columns: int, squared: bool = False) -> np.dtype[Any]:
    """Return the dtype of the distances between rows of `dtype` (one of `pair`'s three, or rounded ones).

    Raises
    ------
    ValueError
        For uint8 L1 over more than 8,421,504 columns, which may not fit int32.
    """
    if dtype.kind == "f":
        return dtype
    if DEFINITIONS[metric].rows == "bits":
        return FLOAT64 if metric == "jaccard" else np.dtype(np.int32)
    root = DEFINITIONS[metric].root
    if root and not squared:
        return FLOAT32
    if columns <= (most := most_int32_columns(metric)):
        return np.dtype(np.int32)
    if DEFINITIONS[metric].step == "square":
        return np.dtype(np.int64)
    raise ValueError(
        f"X has {columns} columns; uint8 {DEFINITIONS[metric].title} distances are int32 and hold at most {most} "
        "columns (pass float64 for more)"
    )


def metric(name: object, among: Collection[Metric] = tuple(DEFINITIONS)) -> Metric:
    """Return the short name of a metric, one of `among`."""
    short = METRIC_NAMES.get(name) if isinstance(name, str) else None
    if short is not None and short in among:
        return short
    known = listed([name for name, short in METRIC_NAMES.items() if short in among])
    if not isinstance(name, str):
        raise TypeError(f"metric is a {type(name).__name__}; it must be a str, one of {known}")
    raise ValueError(f"metric is {name!r}; it must be one of {known}")


def algorithm(name: object) -> Algorithm:
    """Return how to search for neighbors, one of `Algorithm`."""
    if not isinstance(name, str):
        raise TypeError(f"algorithm is a {type(name).__name__}; it must be a str, one of {listed(_ALGORITHMS)}")
    for known in _ALGORITHMS:
        if name == known:
            return known
    raise ValueError(f"algorithm is {name!r}; it must be one of {listed(_ALGORITHMS)}")


def k(k: object, m: int, exclude_self: bool) -> int:
    """Return the number of neighbors as an int, with 1 <= k <= candidates per row.

    `m` is the number of rows of Y, of which with `exclude_self` a row has one less as candidates.
    """
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, numbers.Integral):
        raise TypeError(f"k is {k!r} ({type(k).__name__}); it must be an integer")
    count, most = int(k), m - exclude_self
    if most < 1:
        own = ", since with exclude_self each query leaves out one" if exclude_self else ""
        raise ValueError(f"Y has {m} row{'s' * (m != 1)}; it must have at least {1 + exclude_self}{own}")
    if not 1 <= count <= most:
        if exclude_self:
            raise ValueError(f"k is {count}; with exclude_self it must lie between 1 and {most}, Y has {m} rows")
        raise ValueError(f"k is {count}; it must lie between 1 and {m}, the number of rows of Y")
    return count


def radius(radius: object, n: int, metric: Metric = "l2") -> Array:
    """Return radii in float64, of shape () or (n,): numbers from 0 to infinity; of inner products of either sign."""
    if np.ndim(radius) == 0:  # type: ignore[arg-type]
        radii = np.asarray(scalar(radius, "radius"))
    else:
        radii = as_contiguous(real(radius, "radius"), FLOAT64)  # type: ignore[arg-type]
        if radii.shape != (n,):
            raise ValueError(f"radius has shape {radii.shape}; it must be a number or ({n},), one for each row of X")
    is_signed = metric == "inner_product"
    wrong = np.isnan(radii) if is_signed else ~(radii >= 0)
    if wrong.any():
        where = f"radius[{wrong.argmax()}] is {radii[wrong.argmax()]}" if radii.ndim else f"radius is {radii}"
        raise ValueError(f"{where}; it must be {'a number' if is_signed else 'at least 0'}")
    return radii


def _common_dtype(x: np.dtype[Any], y: np.dtype[Any]) -> np.dtype[Any]:
    # Dtypes of native byte order are singletons, so identity settles nearly all calls.
    if x is y and (x is FLOAT32 or x is FLOAT64 or x is UINT8):
        return x
    if x == UINT8:
        return UINT8 if y == UINT8 else floating_dtype(y)
    if y == UINT8:
        return floating_dtype(x)
    return FLOAT32 if floating_dtype(x) is FLOAT32 is floating_dtype(y) else FLOAT64
