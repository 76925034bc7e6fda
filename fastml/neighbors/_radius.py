"""The search within a radius: methods that any model of neighbours can have, and what neighbours count.

As many neighbours as there are belong to a query, none perhaps, so they come row after row, as in a sparse matrix:
``indptr[i]:indptr[i + 1]`` are those of query i.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from .. import kernels
from ..kernels.arguments import arrays
from ..kernels.distances import arguments as distances_arguments
from ..utils import parameters
from ._base import KeptRows
from .voting import _AT_ONCE, NeighborWeights, _in_units_near

__all__ = ["RadiusNeighborsMixin", "blocks_of_rows", "checked_radius", "owners", "weights_within"]

Rows = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]


def checked_radius(radius: Any) -> float:
    """Return a radius of a model: one number, at least 0."""
    if np.ndim(radius):
        raise ValueError(f"radius has shape {np.shape(radius)}; it must be a number")
    return float(distances_arguments.radius(radius, 1))


class RadiusNeighborsMixin(KeptRows):
    """Neighbours within a radius."""

    radius: float

    def radius_neighbors(
        self,
        X: ArrayLike | None = None,
        radius: ArrayLike | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> tuple[NDArray[Any], NDArray[Any]] | NDArray[Any]:
        """Find all training rows within a radius.

        Parameters
        ----------
        X : array-like of shape (n, D), optional
            The queries; None means the training rows, each without itself.
        radius : float, or array-like of shape (n,), optional
            The largest distance that counts, or one for each query; None means the parameter of that name.
        return_distance : bool, default=True
            Whether to return the distances as well.
        sort_results : bool, default=False
            Changes nothing: neighbours are in order at any rate.

        Returns
        -------
        distances : ndarray of shape (n,) of arrays
            Of each query, ascending; dtype as in `fastml.kernels.radius_neighbors`. Only with `return_distance`.
        indices : ndarray of shape (n,) of arrays of intp
            Rows of the training data; the smaller first where distances are equal.
        """
        indptr, indices, distances = self._search_within(X, radius)
        if return_distance:
            return _by_rows(distances, indptr), _by_rows(indices, indptr)
        return _by_rows(indices, indptr)

    def radius_neighbors_graph(
        self,
        X: ArrayLike | None = None,
        radius: ArrayLike | None = None,
        mode: Literal["connectivity", "distance"] = "connectivity",
        sort_results: bool = False,
    ) -> csr_matrix:
        """Return the neighbours within a radius as a sparse matrix.

        Parameters
        ----------
        X, radius, sort_results
            As in `radius_neighbors`.
        mode : {"connectivity", "distance"}, default="connectivity"
            What stands at (query, neighbour): 1.0, or the distance.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, number of training rows)
            Entries of a row from near to far; a distance of 0 is an entry too.
        """
        if mode not in ("connectivity", "distance"):
            raise ValueError(f"mode is {mode!r}; it must be 'connectivity' or 'distance'")
        indptr, indices, distances = self._search_within(X, radius)
        values = distances if mode == "distance" else np.ones(len(indices))
        return csr_matrix((values, indices, indptr), (len(indptr) - 1, self.n_samples_fit_))

    def _search_within(self, X: ArrayLike | None, radius: ArrayLike | None = None) -> Rows:
        queries, rows = self._sides(X)
        return kernels.radius_neighbors(
            queries,
            rows,
            checked_radius(self.radius) if radius is None else radius,
            metric=self._kept.metric,
            metric_params=self._metric_params,
            algorithm=self._kept.algorithm,
            exclude_self=X is None,
            n_threads=parameters.threads(self.n_jobs),
        )


def owners(indptr: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return to which query each neighbour belongs.

    >>> owners(np.array([0, 2, 2, 3]))
    array([0, 0, 2])
    """
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def weights_within(
    distances: NDArray[Any], indptr: NDArray[np.intp], weights: NeighborWeights
) -> NDArray[np.float64] | None:
    """Return what each neighbour counts; None where all count the same.

    A function gets an array of arrays, of the queries that have neighbours. As in `weights_of` the weights of a query
    are divided by a power of two next to the largest of them.
    """
    if weights is None or weights == "uniform":
        return None
    counts = np.diff(indptr)
    some = np.flatnonzero(counts)
    begins, counts = indptr[:-1][some], counts[some]
    distances = distances.astype(np.float64, copy=False)
    if not some.size:
        return distances
    if callable(weights):
        own = np.append(begins, len(distances))
        with np.errstate(divide="ignore", over="ignore"):  # weights may be infinite
            returned = weights(_by_rows(distances.copy(), own))
        found = _checked(returned, distances, own, some)
        largest = np.repeat(np.maximum.reduceat(found, begins), counts)
        found = np.where(np.isinf(largest), np.isinf(found), _in_units_near(largest, found))
    else:
        nearest = np.repeat(distances[begins], counts)
        with np.errstate(divide="ignore", over="ignore"):
            found = np.where(nearest == 0, distances == 0, 1 / _in_units_near(nearest, distances))
    without = np.maximum.reduceat(found, begins) == 0
    if without.any():
        raise ValueError(f"all neighbours of row {some[without.argmax()]} have weight 0; at least one must count")
    return found


def _checked(
    returned: Any, distances: NDArray[np.float64], indptr: NDArray[np.intp], rows: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the weights of all rows, refused unless there is a number of at least 0 for each distance."""
    if not hasattr(returned, "__len__"):
        raise TypeError(
            f"weights returned a {type(returned).__name__}; an array for each of {len(rows)} rows is needed"
        )
    if len(returned) != len(rows):
        raise ValueError(f"weights returned {len(returned)} rows for the distances of {len(rows)}")
    parts = [arrays.real(part, "weights(distances)").astype(np.float64) for part in returned]
    for row, part, count in zip(rows, parts, np.diff(indptr), strict=True):
        if part.shape != (count,):
            raise ValueError(f"weights returned shape {part.shape} for the {count} distances of row {row}")
    found = np.concatenate(parts)
    wrong = ~(found >= 0)
    if wrong.any():
        at = wrong.argmax()
        row = rows[np.searchsorted(indptr, at, side="right") - 1]
        raise ValueError(
            f"weights returned {found[at]} for the distance {distances[at]} of row {row}; "
            "a weight must be a number of at least 0"
        )
    return found


def _by_rows(values: NDArray[Any], indptr: NDArray[np.intp]) -> NDArray[Any]:
    """Return an array of arrays, one for each row."""
    rows = np.empty(len(indptr) - 1, object)
    for row, (begin, end) in enumerate(itertools.pairwise(indptr.tolist())):
        rows[row] = values[begin:end]
    return rows


def blocks_of_rows(indptr: NDArray[np.intp], per_row: int) -> Iterator[tuple[slice, slice, NDArray[np.intp]]]:
    """Yield blocks of rows that have so many entries each: the rows, their neighbours, and their own indptr."""
    step = max(1, _AT_ONCE // max(1, per_row))
    for first in range(0, len(indptr) - 1, step):
        own = indptr[first : first + step + 1]
        yield slice(first, first + step), slice(own[0], own[-1]), own - own[0]
