"""Few queries of rows of 16-bit floats, which are widened a part at a time: no copy of all of them is made.

Each part of Y is searched by itself while it lies in the cache, and what is found is merged, in the order of (distance,
index). Of L2 it is the squares that are merged, since their roots may be equal where they are not. Where squares left
their range, their order is not that of what is returned for them, and all rows are widened after all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import arrays
from ..runtime import parallel
from . import arguments, extremes, panels, scales

__all__ = ["is_possible", "search"]

#: Bytes of a part when it is widened.
_PART_BYTES = 1 << 23

#: Of more queries a tree, or bounds, may dismiss most pairs, and these need all rows.
_MOST_QUERIES = 16

#: Rows of a part for each neighbor, at least: what is merged shall be little.
_ROWS_PER_NEIGHBOR = 64

#: Seconds in which a number is widened, roughly.
_SECONDS = 2e-9

_NO_GROUPS = np.empty(0, np.intp)

_Found = tuple[NDArray[Any], NDArray[np.intp]]

#: Finds the k nearest rows: ``nearest(metric, algorithm, x, x_groups, y, y_groups, k, n_threads)``.
Nearest = Callable[..., _Found]


def is_possible(metric: arguments.Metric, rows: Any) -> bool:
    """Whether rows are 16-bit floats, by the name of their dtype, and are searched as they are by a metric.

    These are NumPy's, those of `ml_dtypes`, and torch's. Directions are a copy of the rows anyway.
    """
    dtype = getattr(rows, "dtype", None)
    if getattr(dtype, "itemsize", 2) != 2:  # a name takes as long as a small search
        return False
    is_narrow = str(dtype).removeprefix("torch.") in ("float16", "bfloat16") and getattr(rows, "ndim", 0) == 2
    return is_narrow and arguments.DEFINITIONS[metric].rows in ("numbers", "floats")


def search(
    metric: arguments.Metric, x: NDArray[Any], Y: Any, k: int, n_threads: int | None, nearest: Nearest
) -> _Found | None:
    """Return distances and indices of the nearest rows of `Y`, or None where all are better widened at once.

    That is where rows are few, and queries or neighbors many.
    """
    m, d = Y.shape
    step = max(1, _PART_BYTES // max(1, 4 * d))
    if step >= m or len(x) > _MOST_QUERIES or k * _ROWS_PER_NEIGHBOR > step:
        return None
    of = "sqeuclidean" if metric == "l2" else metric
    threads = parallel.resolve(n_threads, seconds=panels.seconds(len(x), m, d * x.itemsize) + m * d * _SECONDS)
    n_parts = -(-m // step)
    found: list[_Found | None] = [None] * min(threads, n_parts)

    def look(task: int) -> Iterator[None]:
        widened = np.empty((step, d), x.dtype)  # once: fresh memory costs as much as to fill it
        for part in range(task, n_parts, len(found)):
            first = part * step
            rows = widened[: min(step, m - first)]
            np.copyto(rows, arrays.real(Y[first : first + step], "Y"))
            distances, indices = nearest(of, "brute", x, _NO_GROUPS, rows, _NO_GROUPS, min(k, len(rows)), 1)
            found[task] = _merged(of, k, found[task], (distances, indices + first))
            yield

    parallel.run(look, len(found), threads)
    whole = None
    for part in found:
        whole = part if whole is None or part is None else _merged(of, k, whole, part)
    if whole is None or (arguments.base(metric) == "l2" and _some_are_extreme(x, Y, *whole)):
        return None
    return (np.sqrt(whole[0]) if metric == "l2" else whole[0]), whole[1]


def _merged(metric: arguments.Metric, k: int, one: _Found | None, other: _Found) -> _Found:
    """Return the k nearest of two parts."""
    if one is None:
        return other
    distances, indices = (np.concatenate(parts, axis=1) for parts in zip(one, other, strict=True))
    order = np.lexsort((indices, -distances if metric == "inner_product" else distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)


def _some_are_extreme(x: NDArray[Any], Y: Any, squares: NDArray[Any], indices: NDArray[np.intp]) -> bool:
    """Whether squares may have left their range, those of equal rows excepted."""
    least, most = scales.ordinary(x.dtype, x.shape[1])
    if (squares > most).any():
        return True
    i, ranks = np.nonzero(squares <= least)
    places, j = np.unique(indices[i, ranks], return_inverse=True)
    _, rows, _ = arguments.pair(x, Y[places])
    return not extremes.are_equal(x, rows, i, j).all()
