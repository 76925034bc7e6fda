"""Distances of rows, and the nearest rows: truths and entries. "squared" is the L2 distance without its root."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..distances.arguments import DEFINITIONS, METRICS, base
from .entry import EPS, FLOATS, INDEX_BYTES, REGIMES, TINY, Dtypes, Entry, Inputs, Size, Tolerance, itemsize, tolerances
from .inputs import random_points, random_uniform
from .truth import Array, Truth, wide_dtype

_CHUNKS = (
    "sums run over at most 256 columns, then over those partial sums: (256 + D/256 + 4)·eps/2 in the worst case "
    "(less for fewer columns, see the scale), relative because no term is negative"
)
_EXACT = {"uint8": Tolerance(0.0, 0.0, "integers are exact")}
_ROOT = {"uint8": Tolerance(EPS["float32"], 0.0, "the root of an exact integer, rounded once or twice")}
_TOLERANCES = {
    "l1": tolerances(138, _CHUNKS) | _EXACT,
    "squared": tolerances(138, _CHUNKS, atol=4096) | _EXACT,
    # Squares below the smallest normal number may vanish: seen from the root, all below its root.
    "l2": {
        name: Tolerance(69 * EPS[name], 64 * math.sqrt(TINY[name]), "half of the square's bound: " + _CHUNKS)
        for name in EPS
    }
    | _ROOT,
    "linf": tolerances(1, "one subtraction, rounded once; maxima are exact") | _EXACT,
    "cosine": {
        name: Tolerance(
            138 * EPS[name], (69 * EPS[name]) ** 2, "entries of directions, rounded: eps·√d, see the scale; " + _CHUNKS
        )
        for name in EPS
    },
    "inner_product": tolerances(138, "relative to Σ|xy|: " + _CHUNKS),
    "hamming": _EXACT,
    "jaccard": {"uint8": Tolerance(EPS["float64"], 0.0, "the quotient of exact integers, rounded once")},
}
_TOLERANCES["sqeuclidean"] = _TOLERANCES["squared"]
_FORMULAS = {name: definition.formula for name, definition in DEFINITIONS.items()} | {"squared": "Σ(x − y)²"}


def entries() -> Iterator[Entry]:
    """Yield the entries of this family."""
    for metric, definition in METRICS.items():
        yield _pairwise(metric)
        if definition.root:
            yield _pairwise("squared")
    yield from map(_k_nearest, DEFINITIONS)
    for function in ("radius_neighbors", "radius_counts"):
        yield from (_radius(function, metric) for metric in METRICS)
    for metric in METRICS:
        yield from (_argmin(metric, with_distances) for with_distances in (False, True))


def _dtypes(kind: str) -> dict[str, Dtypes]:
    if kind in DEFINITIONS and DEFINITIONS[kind].rows == "bits":
        return {"uint8": Dtypes("int64", "float64" if kind == "jaccard" else "int32")}
    if kind in DEFINITIONS and DEFINITIONS[kind].rows != "numbers":
        return FLOATS
    return FLOATS | {"uint8": Dtypes("int32", "float32" if kind in METRICS and METRICS[kind].root else "int32")}


def _pair_terms(size: Size) -> float:
    return math.prod(size[:3])


def _pair_flops(size: Size) -> float:
    # As a matrix product of this size counts them, so that the share of the GEMM rate says how
    # the direct form compares with the BLAS form.
    return 2 * math.prod(size[:3])


def _pairwise(kind: str) -> Entry:
    squared = kind == "squared"
    metric = "l2" if squared else kind
    dtypes = _dtypes(kind)

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        n, m, d = size
        points = random_points(np.random.default_rng(seed), n, m, d, dtype, regime)
        return Inputs(points, {"squared": True} if squared else {})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d = size
        return (n + m) * d * itemsize(dtype) + n * m * itemsize(dtypes[dtype].output)

    return Entry(
        key="pairwise_l2[squared]" if squared else f"pairwise_{metric}",
        function=f"pairwise_{metric}",
        family="distances",
        formula=_FORMULAS[kind],
        dtypes=dtypes,
        sizes={"tiny": (23, 37, 33), "default": (200, 2000, 784), "full": (500, 5000, 3072)},
        axes=("n", "m", "d"),
        make=make,
        regimes=REGIMES,
        work=_pair_terms,
        unit="elem",
        bytes=size_bytes,
        flops=_pair_flops,
        limit="gemm",
        tolerance=_TOLERANCES[kind],
        loop_size=(10, 100, 784),
        specializations=len(dtypes) + METRICS[metric].root,  # wide uint8 rows: int64 instead of int32
        truth=_distance_truth(metric, squared, dtypes),
    )


def _k_nearest(metric: str) -> Entry:
    dtypes = _dtypes(metric)

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        n, m, d, k = size
        X, Y = random_points(np.random.default_rng(seed), n, m, d, dtype, regime.removeprefix("prepared "))
        if regime.startswith("prepared"):
            from ..neighbors.prepared import prepare

            return Inputs((X, prepare(Y, metric=metric), k), {"metric": metric})
        return Inputs((X, X if n == m else Y, k), {"metric": metric})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d, k = size
        return (n + m) * d * itemsize(dtype) + n * k * (itemsize(dtypes[dtype].output) + INDEX_BYTES)

    return Entry(
        key=f"k_nearest[{metric}]",
        function="k_nearest",
        family="neighbors",
        formula=f"the k smallest {_FORMULAS[metric]}",
        dtypes=dtypes,
        sizes={"tiny": (23, 37, 33, 5), "default": (200, 2000, 784, 5), "full": (500, 5000, 3072, 7)},
        axes=("n", "m", "d", "k"),
        make=make,
        regimes=REGIMES,
        work=_pair_terms,
        unit="elem",
        bytes=size_bytes,
        flops=_pair_flops,
        limit="gemm",
        tolerance=_TOLERANCES[metric],
        loop_size=(10, 100, 784, 5),
        # Wide uint8 rows: int64 instead of int32.
        specializations=len(dtypes) + (base(metric) == "l2" and "uint8" in dtypes),
        truth=_neighbor_truth(metric, dtypes),
        # Few queries: Y is cut and the parts are merged. Many long rows among themselves. Enough work for bounds.
        # Enough pairs of few columns for a tree, and of long rows for principal columns.
        warm_sizes={
            "typical": ((3, 4096, 2, 3), (2048, 2048, 416, 1), (1024, 4096, 1024, 1), (4096, 4096, 2, 1)),
            "prepared typical": ((2, 1 << 16, 64, 1),),
            "flat": ((4096, 8192, 256, 1),) if metric == "l2" else (),
        }
        if metric in METRICS
        else {},
    )


def _radius(function: str, metric: str) -> Entry:
    """Make an entry in which no pair lies so near the radius that rounding says whether it is within."""
    dtypes = _dtypes(metric)
    counts = function == "radius_counts"

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        n, m, d = size
        rng = np.random.default_rng(seed)
        if regime == "extreme":
            X, Y = random_points(rng, n, m, d, dtype, regime)
            radius = _in_a_gap(_true_distances(X, Y, metric, squared=False))
        else:
            X, Y = (_clustered(rng, rows, _clusters(m), d, dtype) for rows in (n, m))
            radius = 4.0
        return Inputs((X, X if n == m else Y, radius), {"metric": metric})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d = size
        if counts:
            return (n + m) * d * itemsize(dtype) + n * INDEX_BYTES
        rows_of = (np.bincount(np.arange(rows) % _clusters(m), minlength=_clusters(m)) for rows in (n, m))
        found = int(np.dot(*rows_of))
        entries = found * (itemsize(dtypes[dtype].output) + INDEX_BYTES)
        return (n + m) * d * itemsize(dtype) + (n + 1) * INDEX_BYTES + entries

    return Entry(
        key=f"{function}[{metric}]",
        function=function,
        family="neighbors",
        formula=f"{'how many' if counts else 'all'} {_FORMULAS[metric]} ≤ r",
        dtypes=dtypes,
        sizes={"tiny": (23, 37, 33), "default": (200, 2000, 784), "full": (500, 5000, 3072)},
        axes=("n", "m", "d"),
        make=make,
        regimes=REGIMES,
        work=_pair_terms,
        unit="elem",
        bytes=size_bytes,
        flops=_pair_flops,
        limit="gemm",
        tolerance=_TOLERANCES[metric],
        loop_size=(10, 100, 784),
        specializations=len(dtypes) + METRICS[metric].root,  # wide uint8 rows: int64 instead of int32
        truth=_radius_truth(metric, dtypes, counts),
        # Enough pairs of few columns for a tree.
        warm_sizes={"typical": ((4096, 4096, 2),)},
    )


#: Rows of Y in a cluster, and most and fewest clusters: as many as a column of bytes tells apart, and more than one.
_CLUSTER_ROWS, _MOST_CLUSTERS, _FEWEST_CLUSTERS = 20, 31, 3


def _clusters(m: int) -> int:
    return max(_FEWEST_CLUSTERS, min(_MOST_CLUSTERS, m // _CLUSTER_ROWS))


def _clustered(rng: np.random.Generator, rows: int, clusters: int, d: int, dtype: str) -> Array:
    """Draw rows around clusters, at most 2 apart within one and at least 6 otherwise, by any metric."""
    if dtype == "uint8":
        points: Array = np.zeros((rows, d), np.uint8)
        points[np.arange(rows), rng.integers(0, d, rows)] = 1
    else:
        points = (random_uniform(rng, (rows, d), dtype) * 2 - 1) / d
    points[:, 0] += (8 * (np.arange(rows) % clusters)).astype(dtype)
    return points


def _in_a_gap(distances: Array) -> float:
    """Return a radius where distances lie farthest apart, as a ratio: which are within is told by no rounding."""
    values = np.unique(distances[np.isfinite(distances) & (distances > 0)]).astype(np.float64)
    if not len(values):
        return 1.0
    values = np.append(values, 2 * values[-1])
    gap = np.argmax(values[1:] / values[:-1])
    return float(values[gap] / 2 + values[gap + 1] / 2)


def _argmin(metric: str, with_distances: bool) -> Entry:
    dtypes = _dtypes(metric)
    function = "pairwise_argmin_min" if with_distances else "pairwise_argmin"

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        n, m, d = size
        return Inputs(random_points(np.random.default_rng(seed), n, m, d, dtype, regime), {"metric": metric})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d = size
        return (n + m) * d * itemsize(dtype) + n * (INDEX_BYTES + with_distances * itemsize(dtypes[dtype].output))

    return Entry(
        key=f"{function}[{metric}]",
        function=function,
        family="neighbors",
        formula=f"the row of the smallest {_FORMULAS[metric]}{', and it' * with_distances}",
        dtypes=dtypes,
        sizes={"tiny": (23, 37, 33), "default": (20_000, 100, 16), "full": (100_000, 100, 16)},
        axes=("n", "m", "d"),
        make=make,
        regimes=REGIMES,
        work=_pair_terms,
        unit="elem",
        bytes=size_bytes,
        flops=_pair_flops,
        limit="gemm",
        tolerance=_TOLERANCES[metric],
        loop_size=(10, 100, 16),
        specializations=len(dtypes) + METRICS[metric].root,  # wide uint8 rows: int64 instead of int32
        truth=_argmin_truth(metric, dtypes, with_distances),
    )


# -- truth -----------------------------------------------------------------------------------------


#: What the differences of a row's columns make, by metric.
_TRUE_TOTALS: dict[str, Callable[[Array], Array]] = {
    "l1": lambda differences: np.sum(np.abs(differences), axis=1),
    "l2": lambda differences: np.sum(np.square(differences), axis=1),
    "linf": lambda differences: np.max(np.abs(differences), axis=1, initial=0),
}


def _true_bits(rows: Array) -> Array:
    return np.unpackbits(rows, axis=1).sum(axis=1, dtype=np.int64)


def _true_cosines(x: Array, Y: Array) -> tuple[Array, Array]:
    lengths = np.sqrt(np.sum(np.square(x))), np.sqrt(np.sum(np.square(Y), axis=1))
    have_directions = (lengths[0] > 0) & (lengths[1] > 0)
    u, v = (
        side / np.where(length > 0, length, 1)[..., np.newaxis] for side, length in zip((x, Y), lengths, strict=True)
    )
    distances = np.where(have_directions, np.sum(np.square(u - v), axis=1) / 2, 1)
    return distances, np.sqrt(distances) + distances


#: What a row and all others make, and what their rounding is relative to, by metrics that are none of differences.
_TRUE_DISTANCES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "cosine": _true_cosines,
    "inner_product": lambda x, Y: (np.sum(x * Y, axis=1), np.sum(np.abs(x * Y), axis=1)),
    "hamming": lambda x, Y: (_true_bits(x ^ Y), np.zeros(len(Y))),
    "jaccard": lambda x, Y: (_true_bits(x ^ Y) / np.maximum(_true_bits(x | Y), 1), np.ones(len(Y))),
}


def _true_distances(X: Array, Y: Array, metric: str, squared: bool) -> Array:
    metric, squared = ("l2", True) if metric == "sqeuclidean" else (metric, squared)
    integer = X.dtype == np.uint8
    wide: Any = np.int64 if integer else wide_dtype(X.dtype, len(X) * Y.size)
    x, y = X.astype(wide), Y.astype(wide)
    result = np.empty((len(X), len(Y)), wide if integer else np.longdouble)
    for i in range(len(X)):
        result[i] = _TRUE_TOTALS[metric](y - x[i])
    return np.sqrt(result.astype(np.longdouble)) if METRICS[metric].root and not squared else result


def _column_scale(X: Array, metric: str) -> float:
    """Return the part of the tolerance of a sum over columns that so few columns may use.

    Partial sums of 256 columns, then a sum of those, and a few roundings of each term: the
    tolerances are for 4,096 columns.
    """
    if metric == "linf" or X.dtype == np.uint8:  # no sum, or an exact one
        return 1.0
    d = X.shape[1]
    return (min(d, 256) + d / 256 + 4) / (256 + 16 + 4)


def _distance_truth(metric: str, squared: bool, dtypes: dict[str, Dtypes]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        X, Y = inputs.args
        distances = _true_distances(X, Y, metric, squared)
        return Truth((distances,), (dtypes[X.dtype.name].output,), (distances * _column_scale(X, metric),))

    return truth


def _neighbor_truth(metric: str, dtypes: dict[str, Dtypes]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        X, Y, k = inputs.args
        if metric in _TRUE_DISTANCES:
            wide: Any = np.uint8 if X.dtype == np.uint8 else wide_dtype(X.dtype, len(X) * Y.size)
            pairs = [_TRUE_DISTANCES[metric](x, Y.astype(wide)) for x in X.astype(wide)]
            distances, scale = (np.array(part).reshape(len(X), len(Y)) for part in zip(*pairs, strict=True))
        else:
            scale = distances = _true_distances(X, Y, metric, squared=False)
        ordered = -distances if metric == "inner_product" else distances
        indices = np.argsort(ordered, axis=1, kind="stable")[:, :k]
        nearest, scale = (np.take_along_axis(part, indices, axis=1) for part in (distances, scale))
        return Truth(
            (nearest, indices),
            (dtypes[X.dtype.name].output, np.intp),
            (scale * _column_scale(X, metric),) * 2,
            distances=distances.astype(np.float64),
        )

    return truth


def _radius_truth(metric: str, dtypes: dict[str, Dtypes], counts: bool) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        X, Y, radius = inputs.args
        distances = _true_distances(X, Y, metric, squared=False)
        order = np.argsort(distances, axis=1, kind="stable")
        nearest = np.take_along_axis(distances, order, axis=1)
        inside = nearest <= radius
        found = np.count_nonzero(inside, axis=1)
        if counts:
            return Truth((found,), (np.intp,))
        values = np.concatenate([[0], np.cumsum(found)]), order[inside], nearest[inside]
        return Truth(
            values,
            (np.intp, np.intp, dtypes[X.dtype.name].output),
            (*values[:2], values[2] * _column_scale(X, metric)),
            distances=distances.astype(np.float64),
        )

    return truth


def _argmin_truth(metric: str, dtypes: dict[str, Dtypes], with_distances: bool) -> Callable[[Inputs], Truth]:
    """Return the truth about the nearest row, in the order of scikit-learn's function of that name."""

    def truth(inputs: Inputs) -> Truth:
        X, Y = inputs.args
        found = _neighbor_truth(metric, dtypes)(Inputs((X, Y, 1), {}))
        which = (1, 0) if with_distances else (1,)
        values, scale = ([part[:, 0] for part in parts] for parts in (found, found.scale))
        return Truth(
            tuple(values[i] for i in which),
            tuple(found.dtypes[i] for i in which),
            tuple(scale[i] for i in which),
            distances=found.distances,
        )

    return truth
