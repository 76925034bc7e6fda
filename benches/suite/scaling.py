"""How times grow with threads, n, m, D, k and the size of a batch, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .common import Settings, called, n_threads, needed

#: Where an axis is not varied it has this length.
_BASE = {"n": 500, "m": 2000, "d": 256, "k": 5}
#: Rows whose results are compared with the truth.
_CHECKED = 4
_DISTANCES = ["pairwise_l1", "pairwise_l2", "k_nearest"]


class _Distances(Settings):
    axis = ""
    param_names = ("function", "value")

    def setup(self, function: str, value: int) -> None:
        from fastml import kernels

        if self.axis == "k" and function != "k_nearest":
            raise NotImplementedError("it has no k")
        if self.axis == "threads" and value > n_threads():
            raise NotImplementedError("there are not as many")
        found = needed(lambda: getattr(kernels, function))
        size = {**_BASE, self.axis: value}
        random = np.random.default_rng(0)
        X, Y = (random.random((size[rows], size["d"]), dtype=np.float32) for rows in ("n", "m"))
        arguments = (X, Y, size["k"]) if function == "k_nearest" else (X, Y)
        threads = value if self.axis == "threads" else 1
        self.call: Callable[[], Any] = lambda: found(*arguments, n_threads=threads)
        self.first, self.Y = X[:_CHECKED], Y
        called(self.call)

    def time_call(self, function: str, value: int) -> None:
        self.call()

    def track_error(self, function: str, value: int) -> float:
        """Largest relative error of the first rows' distances, beside float64."""
        order, result = (1 if function == "pairwise_l1" else 2), self.call()
        exact = np.linalg.norm(self.first[:, None].astype(np.float64) - self.Y, order, axis=2)
        if function == "k_nearest":
            result = result[0]
            exact = np.sort(exact, axis=1)[:, : result.shape[1]]
        return float(np.max(np.abs(result[:_CHECKED] - exact) / exact))


class Threads(_Distances):
    axis = "threads"
    params = (_DISTANCES, [1, 2, 4, 8, 16, 32])


class N(_Distances):
    axis = "n"
    params = (_DISTANCES, [1, 16, 256, 4096])


class M(_Distances):
    axis = "m"
    params = (_DISTANCES, [64, 1024, 16384])


class D(_Distances):
    axis = "d"
    params = (_DISTANCES, [2, 8, 32, 128, 512, 2048])


class K(_Distances):
    axis = "k"
    params = (["k_nearest"], [1, 5, 20, 100])


class Batch(Settings):
    """One epoch of SGDClassifier over 20,000 rows of 90 columns, by the size of a batch."""

    param_names = ("batch_size", "threads")
    params = ([1, 10, 100, 1_000, 10_000], [1, 2, 4])

    def setup(self, batch_size: int, threads: int) -> None:
        import fastml

        if threads > n_threads():
            raise NotImplementedError("there are not as many")
        make = needed(lambda: fastml.SGDClassifier)
        random = np.random.default_rng(0)
        X = random.standard_normal((20_000, 90), dtype=np.float32)
        y = (X[:, 0] > 0).astype(np.intp)
        parameters = {"loss": "log_loss", "max_iter": 1, "tol": None, "random_state": 0, "n_jobs": threads}
        self.fit: Callable[[], Any] = lambda: make(**parameters, batch_size=batch_size).fit(X, y)
        self.fitted = called(self.fit)
        self.X, self.y = X, y

    def time_epoch(self, batch_size: int, threads: int) -> None:
        self.fit()

    def track_score(self, batch_size: int, threads: int) -> float:
        """Share of the rows that are told right after one epoch."""
        return float(self.fitted.score(self.X, self.y))
