"""Jobs: searches of rows that are prepared before, and the one nearest row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastml import kernels

from .job import OURS, Call, Job, Peer, Prepared, package
from .neighbors import RTOL, neighbor_peer, rows_agree, uniform

__all__ = ["jobs"]

Array = NDArray[Any]

#: Calls of a job of which one is too short to be timed.
_CALLS = 100


def jobs(*, quick: bool = False) -> list[Job]:
    """Return all jobs; `quick` ones are small, to see that everything runs."""
    m = 5_000 if quick else 1_000_000
    found = [_prepared(n, m, 128) for n in ((1, 20) if quick else (1, 1_000))]
    found.append(_prepared_tree(10, m, 3))
    for size in [(200, 50, 16)] if quick else [(100_000, 100, 16), (20_000, 1_000, 16)]:
        found.append(_argmin(*size))
    return found


def _prepared(n: int, m: int, d: int) -> Job:
    def prepare(n_threads: int) -> Prepared:
        X, Y = uniform(0, n, d), uniform(1, m, d)
        rows = kernels.prepare(Y, n_threads=n_threads)
        peers = {"faiss-cpu": partial(neighbor_peer, "faiss-cpu", "l2", X, Y, 5, n_threads)}
        return Prepared(lambda: kernels.k_nearest(X, rows, 5, n_threads=n_threads), peers)

    return Job("prepared k_nearest l2 float32", f"{n} × {m} × {d}, k = 5", prepare)


def _prepared_tree(n: int, m: int, d: int) -> Job:
    """A few queries at a time in a tree that each has made before."""

    def prepare(n_threads: int) -> Prepared:
        Y, batches = uniform(1, m, d), list(uniform(0, n * _CALLS, d).reshape(_CALLS, n, d))
        rows = kernels.prepare(Y, n_threads=n_threads)

        def each(search: Callable[[Array], tuple[Array, Array]]) -> Call:
            def call() -> tuple[Array, Array]:
                distances, indices = zip(*map(search, batches), strict=True)
                return np.concatenate(distances), np.concatenate(indices)

            return call

        def peer(make: Callable[[], Callable[[Array], tuple[Array, Array]]]) -> Callable[[], Peer]:
            return lambda: Peer({"prepared": each(make())}, rows_agree(RTOL))

        def scipy() -> Callable[[Array], tuple[Array, Array]]:
            from scipy.spatial import KDTree

            tree = KDTree(Y.astype(np.float64))
            return lambda x: tree.query(x, 5)

        def pykdtree() -> Callable[[Array], tuple[Array, Array]]:
            from pykdtree.kdtree import KDTree

            tree = KDTree(Y)
            return lambda x: tree.query(x, 5)

        def pynanoflann() -> Callable[[Array], tuple[Array, Array]]:
            tree = package("pynanoflann").KDTree(n_neighbors=5, metric="l2")
            tree.fit(Y)
            return lambda x: tree.kneighbors(x)

        def napf() -> Callable[[Array], tuple[Array, Array]]:
            tree = package("napf").KDT(Y, metric=2, nthread=1)

            def search(x: Array) -> tuple[Array, Array]:
                squares, indices = tree.knn_search(x, 5, nthread=1)
                return np.sqrt(squares), indices

            return search

        makers = {"scipy": scipy, "pykdtree": pykdtree, "pynanoflann": pynanoflann, "napf": napf}
        ours = each(lambda x: kernels.k_nearest(x, rows, 5, n_threads=n_threads))
        return Prepared(ours, {name: peer(make) for name, make in makers.items()})

    return Job("prepared k_nearest l2 float32", f"{_CALLS} times {n} × {m} × {d}, k = 5", prepare)


def _argmin(n: int, m: int, d: int) -> Job:
    def prepare(n_threads: int) -> Prepared:
        X, Y = uniform(0, n, d), uniform(1, m, d)

        def ours() -> tuple[Array, Array]:
            return _by_column(*kernels.pairwise_argmin_min(X, Y, n_threads=n_threads))

        def sklearn() -> Peer:
            from sklearn.metrics import pairwise_distances_argmin_min

            return Peer(
                {"argmin_min": lambda: _by_column(*pairwise_distances_argmin_min(X, Y))},
                rows_agree(RTOL),
            )

        def heaps() -> Peer:
            return Peer({"k_nearest": lambda: kernels.k_nearest(X, Y, 1, n_threads=n_threads)}, rows_agree(RTOL))

        return Prepared(ours, {OURS: heaps, "scikit-learn": sklearn})

    return Job("pairwise_argmin_min l2 float32", f"{n} × {m} × {d}", prepare)


def _by_column(indices: Array, distances: Array) -> tuple[Array, Array]:
    """Return what `k_nearest` would."""
    return distances[:, np.newaxis], indices[:, np.newaxis]
