"""Jobs: distances and nearest neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastml import kernels
from fastml.datasets import load_cifar10, load_mnist

from ...report.tiles import arithmetic
from .job import OURS, Call, Job, Judge, Limit, NoData, Peer, Prepared, package

__all__ = ["FEW", "RTOL", "SKLEARN", "errors", "extra_megabytes", "jobs", "neighbor_peer", "rows_agree", "uniform"]

Array = NDArray[Any]
_SCIPY = {"l1": "cityblock", "l2": "euclidean", "linf": "chebyshev"}
SKLEARN = {"l1": "manhattan", "l2": "euclidean", "linf": "chebyshev", "cosine": "cosine"}
_P = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
_SEARCHES = ("scikit-learn", "scikit-learn-intelex", "torch", "faiss-cpu", "jax")
_TREES = ("pykdtree", "pynanoflann", "napf")
#: Trees win where columns are few; from about here on they visit every row.
FEW = 32
#: What float32 results may differ by: peers sum in another order, and L2 by matrix products cancels.
RTOL = 1e-3


def jobs(*, quick: bool = False) -> list[Job]:
    """Return all jobs; `quick` ones are small, to see that everything runs."""
    n, m, d = (60, 300, 40) if quick else (2_000, 20_000, 784)
    found = []
    for size in [(50, 200, 64)] if quick else [(500, 5_000, 3_072), (n, m, d)]:
        found += [_gemm(*size, dtype) for dtype in ("float32", "float64")]
    small = (60, 300, 40) if quick else (500, 5_000, 784)
    found += [_pairwise(metric, *small, dtype) for metric in ("l1", "linf") for dtype in ("float32", "float64")]
    for metric in ("l2", "l1", "linf"):
        # Of the two that most peers do slowly a quarter is enough.
        found.append(_nearest(metric, n if metric == "l2" else n // 4, m, d))
    found.append(_nearest("cosine", n, m, d, only=("scikit-learn", "scikit-learn-intelex")))
    found += [_nearest("l2", n, m, d, kind=kind) for kind in ("normal", "Cauchy")]
    for name, dtype in (("MNIST", "float32"), ("MNIST", "uint8"), ("CIFAR-10", "float32")):
        found.append(_images(name, n, dtype))
    found.append(_bytes(n, m, d))
    found.append(_bits(60, 300, 256) if quick else _bits(10_000, 1_000_000, 256))
    side = 200 if quick else 5_000
    for columns in (2, 8, 32):
        found.append(_pairwise("l2", side, side, columns, "float32"))
        found.append(_nearest("l2", side, side, columns, only=("scipy", *_SEARCHES, *_TREES)))
    one = (1, 5_000, 32) if quick else (1, 1_000_000, 128)
    found.append(_nearest("l2", *one, k=10, only=("faiss-cpu", "scikit-learn", "jax")))
    found.append(_cross_validation(200 if quick else 5_000, 48 if quick else 3_072))
    found.append(_imputer(200 if quick else 5_000, 8))
    return found


def rows_agree(rtol: float) -> Judge:
    """Judge distances, or (distances, indices): equal to `rtol`, indices up to ties within it."""

    def judge(ours: Any, theirs: Any) -> str | None:
        if not isinstance(ours, tuple):
            ours, theirs = (ours, None), (theirs, None)
        distances, indices = ours
        others, other_indices = theirs
        if distances.shape != others.shape:
            return f"shape {others.shape}, ours {distances.shape}"
        off = ~(np.abs(distances.astype(np.float64) - others) <= rtol * np.abs(distances))  # NaN is off
        if off.any():
            worst = np.max(np.abs(distances.astype(np.float64) - others) / np.maximum(np.abs(distances), 1e-300))
            return f"distances differ by up to {worst:.1e} relative"
        if indices is None:
            return None
        # Distances agree place by place, so an index may differ only where two distances are that near.
        near = np.diff(distances.astype(np.float64), axis=1) <= 2 * rtol * np.abs(distances[:, 1:])
        tied = np.zeros(indices.shape, bool)
        tied[:, 1:] |= near
        tied[:, :-1] |= near
        tied[:, -1] = True  # the next one, which nobody returned, may be as near
        wrong = (indices != other_indices) & ~tied
        return f"{wrong.sum()} of {wrong.size} neighbours differ" if wrong.any() else None

    return judge


def uniform(seed: int, *shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).random(shape, dtype=np.float32).astype(dtype)


def _gemm(n: int, m: int, d: int, dtype: str) -> Job:
    def prepare(n_threads: int) -> Prepared:
        X, Y = uniform(0, n, d, dtype=dtype), uniform(1, m, d, dtype=dtype)
        out, product = np.empty((n, m), dtype), np.empty((n, m), dtype)
        limit = Limit("numpy", "the matrix product alone", lambda: np.matmul(X, Y.T, out=product))
        return Prepared(lambda: kernels.pairwise_l2(X, Y, out=out, n_threads=n_threads), limit=limit)

    return Job(f"pairwise_l2 {dtype}", f"{n} × {m} × {d}", prepare)


def _pairwise(metric: str, n: int, m: int, d: int, dtype: str) -> Job:
    function = getattr(kernels, f"pairwise_{metric}")

    def prepare(n_threads: int) -> Prepared:
        X, Y = uniform(0, n, d, dtype=dtype), uniform(1, m, d, dtype=dtype)
        out = np.empty((n, m), dtype)

        def scipy() -> Peer:
            from scipy.spatial.distance import cdist

            wide, wide_out = (X.astype(np.float64), Y.astype(np.float64)), np.empty((n, m))
            calls = {"float64, out given": lambda: cdist(*wide, _SCIPY[metric], out=wide_out)}
            return Peer(calls, rows_agree(1e-5 if dtype == "float32" else 1e-13))

        limit = None
        if metric != "l2" and dtype == "float32":
            limit = Limit(OURS, "its arithmetic alone, in registers", arithmetic(metric, n * m * d, n_threads))
        return Prepared(lambda: function(X, Y, out=out, n_threads=n_threads), {"scipy": scipy}, limit)

    return Job(f"pairwise_{metric} {dtype}", f"{n} × {m} × {d}", prepare)


def _nearest(
    metric: str, n: int, m: int, d: int, *, kind: str = "uniform", k: int = 5, only: tuple[str, ...] = _SEARCHES
) -> Job:
    """Rows of one kind; where they are Cauchy's, a few entries are most of a row, and no bound tells points apart."""

    def rows() -> tuple[Array, Array]:
        if kind == "uniform":
            return uniform(0, n, d), uniform(1, m, d)
        draw = {"normal": "standard_normal", "Cauchy": "standard_cauchy"}[kind]
        X, Y = (getattr(np.random.default_rng(seed), draw)((some, d)) for seed, some in ((0, n), (1, m)))
        return X.astype(np.float32), Y.astype(np.float32)

    size = f"{n} × {m} × {d}, k = {k}"
    return _search(metric, "float32", size if kind == "uniform" else f"{kind}, {size}", rows, k, only)


def _search(
    metric: str, dtype: str, size: str, rows: Callable[[], tuple[Array, Array]], k: int, only: tuple[str, ...]
) -> Job:
    """Peers get the rows as float32, which is what they are made for."""

    def prepare(n_threads: int) -> Prepared:
        X, Y = rows()
        wide = X.astype(np.float32, copy=False), Y.astype(np.float32, copy=False)
        peers = {name: partial(neighbor_peer, name, metric, *wide, k, n_threads) for name in only}
        return Prepared(lambda: kernels.k_nearest(X, Y, k, metric=metric, n_threads=n_threads), peers)

    return Job(f"k_nearest {metric} {dtype}", size, prepare)


def _images(name: str, n: int, dtype: str) -> Job:
    """Images for tests in those for training, as many as are at hand; few of them where `n` is small."""

    def rows() -> tuple[Array, Array]:
        try:
            images = {"MNIST": load_mnist, "CIFAR-10": load_cifar10}[name]()
        except FileNotFoundError as error:
            raise NoData(str(error)) from None
        return images.X_test[:n].astype(dtype), images.X_train[: 30 * n].astype(dtype)

    return _search("l2", dtype, f"{name}, {n} in those for training, k = 5", rows, 5, _SEARCHES)


def _bytes(n: int, m: int, d: int) -> Job:
    def prepare(n_threads: int) -> Prepared:
        X, Y = (np.random.default_rng(seed).integers(0, 256, (rows, d), np.uint8) for seed, rows in ((0, n), (1, m)))
        wide = X.astype(np.float32), Y.astype(np.float32)

        def own() -> Peer:
            calls = {"our own, float32": lambda: kernels.k_nearest(*wide, 5, metric="l1", n_threads=n_threads)}
            return Peer(calls, rows_agree(1e-5))

        onedal = partial(neighbor_peer, "scikit-learn-intelex", "l1", *wide, 5, n_threads)
        peers = {OURS: own, "scikit-learn-intelex": onedal}
        return Prepared(lambda: kernels.k_nearest(X, Y, 5, metric="l1", n_threads=n_threads), peers)

    return Job("k_nearest l1 uint8", f"{n} × {m} × {d}, k = 5", prepare)


def _bits(n: int, m: int, bits: int) -> Job:
    k = 5

    def prepare(n_threads: int) -> Prepared:
        X, Y = (
            np.random.default_rng(seed).integers(0, 256, (rows, bits // 8), np.uint8) for seed, rows in ((0, n), (1, m))
        )

        def faiss_search() -> Peer:
            faiss = package("faiss-cpu")
            faiss.omp_set_num_threads(n_threads)
            calls: dict[str, Call] = {}
            for name, use_heap in (("heap", True), ("counts", False)):
                index = faiss.IndexBinaryFlat(bits)
                index.use_heap = use_heap
                index.add(Y)
                calls[f"IndexBinaryFlat, {name}"] = partial(index.search, X, k)
            for variant in ("hc", "mc"):
                calls[f"knn_hamming, {variant}"] = partial(faiss.knn_hamming, X, Y, k, variant=variant)
            return Peer(calls, rows_agree(0))

        peers = {"faiss-cpu": faiss_search}
        return Prepared(lambda: kernels.k_nearest(X, Y, k, metric="hamming", n_threads=n_threads), peers)

    return Job("k_nearest hamming", f"{n} × {m} × {bits} bits, k = {k}", prepare)


def neighbor_peer(name: str, metric: str, X: Array, Y: Array, k: int, n_threads: int) -> Peer:
    build: Callable[..., dict[str, Call]] = {
        "scipy": _scipy_search,
        "scikit-learn": _sklearn_search,
        "scikit-learn-intelex": _onedal_search,
        "torch": _torch_search,
        "faiss-cpu": _faiss_search,
        "jax": _jax_search,
        "pykdtree": _pykdtree_search,
        "pynanoflann": _pynanoflann_search,
        "napf": _napf_search,
    }[name]
    return Peer(build(metric, X, Y, k, n_threads), rows_agree(RTOL))


def _scipy_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    from scipy.spatial import KDTree

    wide = X.astype(np.float64), Y.astype(np.float64)
    return {"KDTree, made and asked": lambda: KDTree(wide[1]).query(wide[0], k, p=_P[metric], workers=n_threads)}


def _sklearn_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    from sklearn.neighbors import NearestNeighbors

    return _model_search(NearestNeighbors, metric, X, Y, k, n_threads)


def _onedal_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    from sklearnex.neighbors import NearestNeighbors

    return _model_search(NearestNeighbors, metric, X, Y, k, n_threads)


def _model_search(kind: Any, metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    """Search by brute force in a model that is fitted before, or by a tree, which each call makes."""

    def model(algorithm: str, n_jobs: int) -> Any:
        return kind(n_neighbors=k, algorithm=algorithm, metric=SKLEARN[metric], n_jobs=n_jobs)

    def brute(x: Array, y: Array) -> Call:
        return partial(model("brute", n_threads).fit(y).kneighbors, x)

    def tree(x: Array, y: Array, n_jobs: int) -> Call:
        return lambda: model("kd_tree", n_jobs).fit(y).kneighbors(x)

    calls = {}
    for dtype in ("float32", "float64"):
        rows = X.astype(dtype), Y.astype(dtype)
        calls[f"brute force, {dtype}"] = brute(*rows)
        if X.shape[1] <= FEW:
            for jobs in sorted({1, n_threads}):  # joblib's threads may cost more than they gain
                calls[f"kd_tree, made and asked, {dtype}, {jobs} jobs"] = tree(*rows, jobs)
    return calls


def _torch_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    torch = package("torch")
    torch.set_num_threads(n_threads)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)

    def search(rows: int, **options: Any) -> Call:
        def call() -> tuple[Array, Array]:
            found = [torch.cdist(part, y, **options).topk(k, largest=False) for part in x.split(rows)]
            return torch.cat([f.values for f in found]).numpy(), torch.cat([f.indices for f in found]).numpy()

        return call

    if metric != "l2":
        return {"cdist and topk": search(len(X), p=_P[metric])}
    calls = {}
    for rows in (len(X), 256):
        options = {"compute_mode": "use_mm_for_euclid_dist"}
        calls[f"cdist by matrix product and topk, {rows} rows"] = search(rows, **options)
        if X.shape[1] <= FEW:  # where matrix products are short and lose the digits of near pairs
            options = {"compute_mode": "donot_use_mm_for_euclid_dist"}
            calls[f"cdist by differences and topk, {rows} rows"] = search(rows, **options)
    return calls


def _faiss_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    faiss = package("faiss-cpu")
    faiss.omp_set_num_threads(n_threads)
    names = {"l1": faiss.METRIC_L1, "l2": faiss.METRIC_L2, "linf": faiss.METRIC_Linf}
    index = faiss.IndexFlat(X.shape[1], names[metric])
    index.add(Y)

    default = faiss.cvar.distance_compute_blas_threshold

    def search(threshold: int) -> Call:
        def call() -> tuple[Array, Array]:
            faiss.cvar.distance_compute_blas_threshold = threshold
            try:
                distances, indices = index.search(X, k)
            finally:
                faiss.cvar.distance_compute_blas_threshold = default
            return np.sqrt(np.maximum(distances, 0)) if metric == "l2" else distances, indices

        return call

    calls = {"IndexFlat": search(default)}
    if metric == "l2" and X.shape[1] <= FEW:
        calls["IndexFlat, by differences"] = search(len(X) + 1)
    return calls


def _jax_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    """Search by a compiled function; `approx_min_k` with a recall of 1 takes ten times longer than `top_k`."""
    jax = package("jax")
    jnp = jax.numpy
    x, y = jnp.asarray(X), jnp.asarray(Y)
    gather = {
        "l1": lambda differences: jnp.abs(differences).sum(1),
        "l2": lambda differences: jnp.sqrt((differences * differences).sum(1)),
        "linf": lambda differences: jnp.abs(differences).max(1),
    }[metric]

    def by_product(part: Any, y: Any) -> Any:
        negative, indices = jax.lax.top_k(2 * part @ y.T - jnp.sum(y * y, 1), k)
        return jnp.sqrt(jnp.maximum(jnp.sum(part * part, 1)[:, None] - negative, 0)), indices

    def by_differences(x: Any, y: Any) -> Any:
        # One row at a time: the differences of all would be an array of n x m x d.
        negative, indices = jax.lax.map(lambda row: jax.lax.top_k(-gather(y - row), k), x)
        return -negative, indices

    def of(function: Callable[..., Any]) -> Call:
        compiled = jax.jit(function)

        def call() -> tuple[Array, Array]:
            distances, indices = jax.block_until_ready(compiled(x, y))
            return np.asarray(distances), np.asarray(indices)

        return call

    def in_blocks(size: int) -> Call:
        def search(x: Any, y: Any) -> Any:
            whole = len(x) // size * size
            found = jax.lax.map(lambda part: by_product(part, y), x[:whole].reshape(-1, size, x.shape[1]))
            rest = by_product(x[whole:], y)
            return [jnp.concatenate([f.reshape(-1, k), r]) for f, r in zip(found, rest, strict=True)]

        return of(search)

    calls = {}
    if metric == "l2":
        calls["product and top_k"] = of(by_product)
        if len(X) > 256:
            calls["product and top_k, 256 rows"] = in_blocks(256)
    if metric != "l2" or X.shape[1] <= FEW:
        calls["differences and top_k, row by row"] = of(by_differences)
    return calls


def _pykdtree_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    """Search with OpenMP's threads, as many as the command has set."""
    from pykdtree.kdtree import KDTree

    return {"made and asked": lambda: KDTree(Y).query(X, k)}


def _pynanoflann_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    pynanoflann = package("pynanoflann")

    def call() -> tuple[Array, Array]:
        tree = pynanoflann.KDTree(n_neighbors=k, metric="l2")
        tree.fit(Y)
        distances, indices = tree.kneighbors(X, n_jobs=n_threads)
        return distances, indices.astype(np.intp)

    return {"made and asked": call}


def _napf_search(metric: str, X: Array, Y: Array, k: int, n_threads: int) -> dict[str, Call]:
    napf = package("napf")

    def call() -> tuple[Array, Array]:
        squares, indices = napf.KDT(Y, metric=2, nthread=n_threads).knn_search(X, k, nthread=n_threads)
        return np.sqrt(squares), indices

    return {"made and asked": call}


def _cross_validation(n: int, d: int) -> Job:
    ks = [1, 2, 3, 5, 7, 10, 15, 20, 25, 30]

    def prepare(n_threads: int) -> Prepared:
        from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold
        from sklearn.neighbors import KNeighborsClassifier

        from fastml import knn_cross_validation

        rng = np.random.default_rng(0)
        X, y = rng.integers(0, 256, (n, d), np.uint8), rng.integers(0, 10, n)
        splitter = StratifiedKFold(5, shuffle=True, random_state=0)
        test_fold = np.empty(n, np.intp)
        for fold, (_, test) in enumerate(splitter.split(X, y)):
            test_fold[test] = fold

        def ours() -> Array:
            result = knn_cross_validation(
                X, y, n_neighbors=ks, cv=PredefinedSplit(test_fold), n_jobs=n_threads, progress=False
            )
            return result.scores[0].mean(axis=1)

        def search(dtype: str, processes: int) -> Call:
            rows = X.astype(dtype)
            model = KNeighborsClassifier(algorithm="brute", n_jobs=1 if processes > 1 else n_threads)
            options = {"cv": PredefinedSplit(test_fold), "refit": False, "n_jobs": processes}
            grid = GridSearchCV(model, {"n_neighbors": ks}, **options)
            return lambda: grid.fit(rows, y).cv_results_["mean_test_score"]

        def sklearn() -> Peer:
            calls = {f"GridSearchCV, {dtype}, {jobs} jobs": search(dtype, jobs) for dtype, jobs in
                     (("float32", 1), ("float64", 1), ("float32", n_threads))}  # fmt: skip
            # A tie of the votes or of two distances in float32 may go the other way.
            return Peer(calls, lambda a, b: None if np.abs(a - b).max() < 5e-3 else "scores differ")

        return Prepared(ours, {"scikit-learn": sklearn})

    return Job("knn_cross_validation uint8", f"{n} × {d}, 10 ks, 5 folds", prepare)


def _imputer(n: int, d: int) -> Job:
    def prepare(n_threads: int) -> Prepared:
        from fastml import KNNImputer

        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, d))
        X[rng.random((n, d)) < 1 / 3] = np.nan

        def sklearn() -> Peer:
            from sklearn import impute

            def judge(ours: Any, theirs: Any) -> str | None:
                off = np.abs(ours - theirs).max()
                return None if off < 1e-12 else f"values differ by up to {off:.1e}"

            return Peer({"as it is": lambda: impute.KNNImputer().fit_transform(X)}, judge)

        return Prepared(lambda: KNNImputer(n_jobs=n_threads).fit_transform(X), {"scikit-learn": sklearn})

    return Job("KNNImputer float64", f"{n} × {d}, a third missing, k = 5", prepare)


_MEMORY = """
import sys
from pathlib import Path
import numpy as np
from fastml import kernels
n, m, d = map(int, sys.argv[1:4])
rng = np.random.default_rng(0)
X, Y = rng.random((n, d), dtype=np.float32), rng.random((m, d), dtype=np.float32)
kernels.k_nearest(X[:200], Y[:9000], 5)  # compiles or loads, and starts the threads
def now(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if name in line)
Path("/proc/self/clear_refs").write_text("5")  # forget the peak: compiling needs more than searching
before = now("VmRSS")
kernels.k_nearest(X, Y, 5)
print((now("VmHWM") - before) / 1024)
"""


def extra_megabytes(n: int, m: int, d: int) -> float | None:
    """Return how many MiB a fresh process has more at most during `k_nearest`; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", _MEMORY, str(n), str(m), str(d)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True)
    return float(done.stdout)


def errors() -> dict[str, dict[str, float | None]]:
    """Return the largest relative error of float32 L2 distances, against float64 ones of the same numbers.

    "uniform": rows uniform in [0, 1). "far": pairs of rows 1e-3 apart in each column, at an offset of 1e4.
    """
    X, Y = uniform(0, 200, 128), uniform(1, 300, 128)
    near = (np.float32(1e4) + uniform(2, 200, 128)).astype(np.float32)
    beside = (near + np.float32(1e-3)).astype(np.float32)
    found: dict[str, dict[str, float | None]] = {}
    for name, (x, y) in {"uniform": (X, Y), "far": (near, beside)}.items():
        wide = np.sqrt(((x.astype(np.float64)[:, np.newaxis] - y.astype(np.float64)) ** 2).sum(axis=2))
        found[name] = {"fastml": _worst(kernels.pairwise_l2(x, y), wide)}
        for peer, distances in _PEER_DISTANCES.items():
            try:
                found[name][peer] = _worst(distances(x, y), wide)
            except Exception:  # missing, or it fails
                found[name][peer] = None
    return found


def _worst(distances: Array, wide: Array) -> float:
    """Return the largest relative error; pairs that were not returned are NaN."""
    return float(np.nanmax(np.abs(distances.astype(np.float64) - wide) / wide))


def _sklearn_distances(x: Array, y: Array) -> Array:
    from sklearn.metrics import euclidean_distances

    distances: Array = euclidean_distances(x, y)
    return distances


def _torch_distances(x: Array, y: Array) -> Array:
    torch = package("torch")
    distances: Array = torch.cdist(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    return distances


def _faiss_distances(x: Array, y: Array) -> Array:
    faiss = package("faiss-cpu")
    index = faiss.IndexFlat(x.shape[1], faiss.METRIC_L2)
    index.add(y)
    squares, order = index.search(x, 5)  # more than a hundred would be found in another way
    distances = np.full((len(x), len(y)), np.nan)
    np.put_along_axis(distances, order, np.sqrt(np.maximum(squares, 0)), axis=1)
    return distances


_PEER_DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "scikit-learn": _sklearn_distances,
    "torch": _torch_distances,
    "faiss-cpu": _faiss_distances,
}
