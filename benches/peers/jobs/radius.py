"""Jobs: all rows within a radius."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastml import kernels

from .job import Job, Judge, Peer, Prepared, package
from .neighbors import FEW, RTOL, SKLEARN, rows_agree, uniform

__all__ = ["jobs"]

Array = NDArray[Any]


def jobs(*, quick: bool = False) -> list[Job]:
    """Return all jobs; `quick` ones are small, to see that everything runs."""
    long = (60, 300, 40) if quick else (5_000, 20_000, 784)
    return [
        *(_radius(metric, *long) for metric in ("l2", "l1")),
        _radius("l2", *((200, 3_000, 3) if quick else (200_000, 1_000_000, 3))),
    ]


def _radius(metric: str, n: int, m: int, d: int) -> Job:
    """All rows within a radius, 20 of them in the mean, in order where a peer can bring them into order."""
    builds = (_scipy_radius, _pynanoflann_radius, _napf_radius) if d <= FEW else ()

    def prepare(n_threads: int) -> Prepared:
        X, Y = uniform(0, n, d), uniform(1, m, d)
        some = getattr(kernels, f"pairwise_{metric}")(X[:100], Y)
        radius = float(np.sort(some, axis=None)[20 * len(some) :][:2].mean())
        peers = {"scikit-learn": partial(_sklearn_radius, metric, X, Y, radius, n_threads)}
        names = ("scipy", "pynanoflann", "napf")
        peers |= {name: partial(build, X, Y, radius, n_threads) for name, build in zip(names, builds, strict=False)}
        return Prepared(lambda: kernels.radius_neighbors(X, Y, radius, metric=metric, n_threads=n_threads), peers)

    return Job(f"radius_neighbors {metric} float32", f"{n} × {m} × {d}, 20 rows within", prepare)


def _within_agree(parts: Callable[[Any], tuple[Array, Array | None]]) -> Judge:
    """Judge rows within a radius, of which `parts` returns how many there are, and their distances if there are any.

    Pairs whose distances round to either side of the radius may differ: one in ten thousand.
    """

    def judge(ours: Any, theirs: Any) -> str | None:
        indptr, _, distances = ours
        counts, (others, other_distances) = np.diff(indptr), parts(theirs)
        off = np.abs(counts - others).sum()
        if off > 1e-4 * len(distances):
            return f"{off} of {len(distances)} pairs differ"
        if other_distances is None or off:
            return None
        return rows_agree(RTOL)(distances, other_distances)

    return judge


def _of_arrays(found: Any) -> tuple[Array, Array | None]:
    return np.array([len(row) for row in found[0]]), np.concatenate([np.asarray(row) for row in found[0]])


def _sklearn_radius(metric: str, X: Array, Y: Array, radius: float, n_threads: int) -> Peer:
    from sklearn.neighbors import NearestNeighbors

    options: dict[str, Any] = {"radius": radius, "metric": SKLEARN[metric], "n_jobs": n_threads}
    if X.shape[1] > FEW:
        model = NearestNeighbors(algorithm="brute", **options).fit(Y)
        calls = {"brute force": lambda: model.radius_neighbors(X, sort_results=True)}
    else:
        tree = NearestNeighbors(algorithm="kd_tree", **options)
        calls = {"kd_tree, made and asked": lambda: tree.fit(Y).radius_neighbors(X, sort_results=True)}
    return Peer(calls, _within_agree(_of_arrays))


def _scipy_radius(X: Array, Y: Array, radius: float, n_threads: int) -> Peer:
    from scipy.spatial import KDTree

    wide = X.astype(np.float64), Y.astype(np.float64)

    def as_matrix() -> Any:
        return KDTree(wide[0]).sparse_distance_matrix(KDTree(wide[1]), radius, output_type="coo_matrix")

    def lists() -> Any:
        return KDTree(wide[1]).query_ball_point(wide[0], radius, workers=n_threads)

    def counts(found: Any) -> tuple[Array, Array | None]:
        return (found.tocsr().getnnz(axis=1) if hasattr(found, "tocsr") else np.array(list(map(len, found)))), None

    calls = {"KDTree, made, and all distances in no order": as_matrix, "KDTree, made, and lists of rows": lists}
    return Peer(calls, _within_agree(counts))


def _pynanoflann_radius(X: Array, Y: Array, radius: float, n_threads: int) -> Peer:
    pynanoflann = package("pynanoflann")

    def call() -> Any:
        tree = pynanoflann.KDTree(n_neighbors=1, metric="l2", radius=radius)
        tree.fit(Y)
        return tree.radius_neighbors(X, radius, n_jobs=n_threads)

    return Peer({"made and asked": call}, _within_agree(_of_arrays))


def _napf_radius(X: Array, Y: Array, radius: float, n_threads: int) -> Peer:
    napf = package("napf")

    def parts(found: Any) -> tuple[Array, Array | None]:
        counts, squares = _of_arrays(found[::-1])
        return counts, None if squares is None else np.sqrt(squares)

    tree = partial(napf.KDT, Y, metric=2, nthread=n_threads)
    calls = {"made and asked": lambda: tree().radius_search(X, radius * radius, True, nthread=n_threads)}
    return Peer(calls, _within_agree(parts))
