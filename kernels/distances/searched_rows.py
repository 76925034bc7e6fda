"""The rows by whose totals neighbors are ordered, where these are not the caller's, and the distances of such totals.

A search knows the totals of few metrics. The others are these of other rows (`settled`), or read in another way
(`distances`).

Cosine. 1 - cos of the angle between x and y is |u - v|^2 / 2 with the directions u = x / |x| and v = y / |y|. By
differences a small angle keeps its digits: u and v are off by half an eps of each entry, so that a distance d is off by
eps (sqrt(2 d) + c d), where 1 - u.v is off by eps. A row of zeros has no direction. It shall have the distance 1 from
all rows, as in scikit-learn, so it is a step along a column that is added to all rows: in Y of length 1, at a right
angle to all that have a direction; in X so long that what it is compared with vanishes in the rounding, and all totals
are equal.

Bits. Groups of 64 bits are one number, a lane of a tile; what is lacking is filled with zeros, which no metric counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runtime import parallel
from ..runtime.jit import kernel, readonly
from . import arguments
from ._conclusions import product_keys, products
from .arguments import DEFINITIONS, Metric
from .tile_shapes import BITS

__all__ = ["are_zeros", "distances", "product_keys", "settled"]

#: What a row of zeros has in the column that is added, in X, by the dtype: its square is exact, and takes in all else.
_FAR = {"float32": 2.0**40, "float64": 2.0**100}

#: Seconds of an element that is made a direction, roughly, and elements that one compiled call may make.
_SECONDS, _CALL_ELEMENTS = 2e-9, 1 << 24


def settled(
    metric: Metric,
    parameters: Mapping[str, Any] | None,
    X: ArrayLike,
    Y: ArrayLike | None,
    n_threads: int | None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows that are searched for, and among; ``y is x`` where both sides are the same.

    Raises
    ------
    TypeError, ValueError
        As `arguments.sides`.
    """
    x, y = arguments.sides(metric, parameters, X, Y)
    rows = DEFINITIONS[metric].rows
    if rows == "bits":
        bits = _groups(x)
        return bits, (bits if y is x else _groups(y))
    if rows != "directions":
        return x, y
    directions, some_are_zero = _directions(x, n_threads)
    others = directions if y is x else _directions(y, n_threads)[0]
    if some_are_zero:
        directions = directions.copy() if y is x else directions
        last = directions[:, -1]
        last[last == 1] = _FAR[x.dtype.name]
    return directions, others


def are_zeros(directions: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether rows that are searched for by cosine were zeros: they have the distance 1 from all that have one."""
    zeros: NDArray[np.bool_] = directions[:, -1] == _FAR[directions.dtype.name]
    return zeros


def distances(metric: Metric, totals: NDArray[Any]) -> NDArray[Any]:
    """Return the distances that totals, or squares that were put right, stand for; it may change `totals`."""
    if metric == "cosine":
        totals *= totals.dtype.type(0.5)
        totals[totals > 4] = 1
        return np.minimum(totals, 2, out=totals)
    return products(totals) if metric == "inner_product" else totals


def _directions(rows: NDArray[Any], n_threads: int | None) -> tuple[NDArray[Any], bool]:
    """Return rows over their lengths, and whether some are zeros; these have a 1 in the column that is added."""
    n, d = rows.shape
    found = np.empty((n, d + 1), rows.dtype)
    zeros: list[bool] = []
    rows = readonly(rows)

    def work(first: int, last: int) -> None:
        with np.errstate(all="ignore"):
            zeros.append(_write_directions(rows[first:last], found[first:last]))

    most = max(1, _CALL_ELEMENTS // max(1, d))
    parallel.run_ranges(work, n, n_threads, most=most, seconds=rows.size * _SECONDS)
    return found, any(zeros)


@kernel
def _write_directions(rows, out):  # type: ignore[no-untyped-def]
    """Write rows over their lengths, then 0, or of a row of zeros 1; return whether there is one.

    Lengths are made in float64, of float64 rows whose squares may leave its range times a power of two.
    """
    some_are_zero = False
    columns = rows.shape[1]
    for i in range(rows.shape[0]):
        row, target = rows[i], out[i]
        largest = 0.0
        for j in range(columns):
            largest = max(largest, abs(np.float64(row[j])))
        scale = 1.0
        if largest > 2.0**500:
            scale = 2.0**-600
        elif largest < 2.0**-400:
            scale = 2.0**600
        total = 0.0
        for j in range(columns):
            value = scale * np.float64(row[j])
            total += value * value
        length = np.sqrt(total)
        is_zero = total == 0
        some_are_zero |= is_zero
        if is_zero:
            length = 1.0
        for j in range(columns):
            target[j] = scale * np.float64(row[j]) / length
        target[columns] = 1.0 if is_zero else 0.0
    return some_are_zero


def _groups(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return packed bits in groups of 64."""
    n, d = rows.shape
    if d % BITS.itemsize or rows.ctypes.data % BITS.itemsize:
        padded = np.zeros((n, -(-d // BITS.itemsize)), BITS)
        padded.view(np.uint8)[:, :d] = rows
        return padded
    return rows.view(BITS)
