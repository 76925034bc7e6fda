"""Whether a result is right: how far it lies from the truth, in units of what it may."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .entry import Entry, Tolerance
from .truth import Array, Truth


def outputs(result: Any) -> tuple[Array, ...]:
    """Return whatever a kernel returned (float, array, tuple of these) as a tuple of arrays."""
    if isinstance(result, tuple):
        return tuple(np.asarray(part) for part in result)
    return (np.asarray(result),)


def check(entry: Entry, result: Any, truth: Truth, dtype: str) -> float:
    """Return the largest error of `result` in units of the tolerance: at most 1 is right.

    Infinite where no error can be given: another number of outputs, a wrong shape or dtype, an
    array in place of a float, a NaN or an infinity that should not be there or is missing, an
    integer that is not exact, a neighbour that is listed twice or does not exist.

    Parameters
    ----------
    entry : Entry
    result
        What a tier returned for the inputs that `truth` was made from.
    truth : Truth
        From `Entry.reference`.
    dtype : str
        The name of the input dtype, which selects the tolerance.
    """
    tolerance = entry.tolerance[dtype]
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) != len(truth):
        return math.inf
    worst = 0.0
    outputs = zip(parts, truth, truth.scale, truth.slack, truth.dtypes, strict=True)
    for number, (part, want, scale, slack, expected) in enumerate(outputs):
        got = np.asarray(part)
        if (
            type(part) is not (float if expected is None else np.ndarray)
            or got.shape != want.shape
            or (expected is not None and got.dtype != expected)
        ):
            return math.inf
        if number == truth.neighbors:
            units = _neighbor_error(got, truth, tolerance, exact=dtype == "uint8")
        elif got.dtype.kind == "i":
            units = 0.0 if np.array_equal(got, want) else math.inf
        else:
            units = _float_error(got, want, tolerance.rtol * scale + slack + tolerance.atol)
        worst = max(worst, units)
    return worst


def _float_error(got: Array, want: Array, bound: Array) -> float:
    if got.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        # A truth beyond the dtype's range is infinite in it, or rounds to the last finite number.
        largest = np.finfo(got.dtype).max
        overflow = np.isinf(got) & (np.sign(got) == np.sign(want)) & (np.abs(want) + bound >= largest)
        error = np.abs(got.astype(np.longdouble) - want)
        units = np.where(error == 0, 0, error / bound)
        units = np.where((got == want) | overflow | (np.isnan(got) & np.isnan(want)), 0, units)
    return float(np.max(np.where(np.isnan(units), np.inf, units)))


def _neighbor_error(indices: Array, truth: Truth, tolerance: Tolerance, exact: bool) -> float:
    """Judge neighbours, as many for each query or as in a sparse matrix, by the true distance of what was chosen.

    With distances that are off by at most e, the one chosen for a rank is off by at most 2e.
    """
    place, distances = truth.neighbors, truth.distances
    assert place is not None
    assert distances is not None
    wanted, of_rows = truth[place].ravel(), len(truth) == 3
    if exact:
        return 0.0 if np.array_equal(indices.ravel(), wanted) else math.inf
    if indices.size == 0:
        return 0.0
    n, m = distances.shape
    counts = np.diff(truth[0]) if of_rows else np.full(n, indices.size // n)
    rows, chosen = np.repeat(np.arange(n), counts), indices.ravel()
    if chosen.min() < 0 or chosen.max() >= m or np.unique(rows * m + chosen).size < chosen.size:
        return math.inf
    sizes = [scale for scale, dtype in zip(truth.scale, truth.dtypes, strict=True) if dtype != np.intp]
    scale = (*sizes, truth.scale[place])[0].ravel()
    bound = 2 * (tolerance.rtol * scale + tolerance.atol)
    return _float_error(distances[rows, chosen], distances[rows, wanted], bound)
