"""Weights of training rows: a row of weight w is w equal rows, of which 0 are not there.

So a row fills w of a query's k places. Neighbours are taken in their order until their weights reach k, and the last
counts with what is left. How many that takes differs from query to query.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .voting import NeighborWeights, weights_of

__all__ = ["Places", "RowWeights", "padded"]

#: So many neighbours for each place are looked for at once if that is always enough; else those that most queries need.
_AT_ONCE = 8

#: Finds the nearest rows of weight above 0, ``find(queries, count)``: distances and indices (queries, count); the
#: index is -1 where there are no more.
Find = Callable[[NDArray[np.intp], int], tuple[NDArray[Any], NDArray[np.intp]]]


def padded(distances: NDArray[Any], indices: NDArray[np.intp], width: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return copies of neighbours with so many places for each query; the index of those that are none is -1."""
    wider = np.zeros((len(indices), width), distances.dtype), np.full((len(indices), width), -1)
    for values, narrower in zip(wider, (distances, indices), strict=True):
        values[:, : narrower.shape[1]] = narrower
    return wider


class Places(NamedTuple):
    """Neighbours that fill the places of queries, (n, width) each."""

    #: The last neighbour that counts stands again where other queries have more.
    distances: NDArray[Any]
    indices: NDArray[np.intp]
    #: How many places a neighbour fills.
    counts: NDArray[np.float64]

    def weights(self, weights: NeighborWeights, rows: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Return what each neighbour counts: its places, times what `weights` says of one; see `weights_of`."""
        each = weights_of(self.distances, weights, rows)
        return self.counts if each is None else self.counts * each


class RowWeights:
    """The weights of training rows, finite and not negative.

    Attributes
    ----------
    weight : ndarray of shape (m,), float64
        The weight of each row.
    present : ndarray of bool, shape (m,), or None
        Which rows are there; None where all are.
    n_present : int
        How many are there.
    total : float
        The sum of all weights.
    """

    def __init__(self, weight: NDArray[np.float64]) -> None:
        there = weight > 0
        self.weight = weight
        self.present = None if there.all() else there
        self.n_present = int(np.count_nonzero(there))
        self.total = math.fsum(weight.tolist())
        #: What the lightest row weighs, the two lightest, ...
        self._of_lightest = np.sort(weight[there]).cumsum()

    def most(self, k: int) -> int:
        """Return how many rows fill k places, whichever they are."""
        return min(self.n_present, int(np.searchsorted(self._of_lightest, k)) + 1)

    def nearest(self, find: Find, queries: NDArray[np.intp], k: int, most: int) -> tuple[Any, NDArray[np.intp]]:
        """Return distances and indices of so many neighbours, at most `most`, that they fill k places of each query.

        Where light rows are much lighter than others, first as many are looked for as most queries need; those that
        need more are searched again, each time twice as far.
        """
        most = min(most, self.most(k))
        count = most if most <= _AT_ONCE * k else min(most, math.ceil(2 * k * self.n_present / self.total) + k)
        distances, indices = find(queries, count)
        while count < most:
            short = np.flatnonzero(self._of(indices).cumsum(axis=1)[:, -1] < k)
            if not short.size:
                break
            count = min(most, 2 * count)
            distances, indices = padded(distances, indices, count)
            distances[short], indices[short] = find(queries[short], count)
        return distances, indices

    def places(self, distances: NDArray[Any], indices: NDArray[np.intp], k: int) -> Places:
        """Return how neighbours, in their order, fill k places."""
        own = self._of(indices)
        filled = np.zeros_like(own)  # before each
        np.cumsum(own[:, :-1], axis=1, out=filled[:, 1:])
        counts = np.minimum(own, np.maximum(k - filled, 0))
        used = np.count_nonzero(counts, axis=1)
        width = used.max(initial=1)
        ranks = np.minimum(np.arange(width), used[:, np.newaxis] - 1)
        distances, indices = (np.take_along_axis(each, ranks, axis=1) for each in (distances, indices))
        return Places(distances, indices, counts[:, :width])

    def _of(self, indices: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the weights of neighbours, 0 of those that are none."""
        weights: NDArray[np.float64] = np.where(indices < 0, 0.0, self.weight[indices])
        return weights
