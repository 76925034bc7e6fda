"""How the speed of distances and nearest neighbours changes with threads, n, m, D and k, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastml import kernels

__all__ = ["AXES", "measure"]

#: Where an axis is not varied it has this length.
BASE = {"n": 500, "m": 2000, "d": 256, "k": 5}
AXES = {
    "n": (1, 4, 16, 64, 256, 1024, 4096),
    "m": (64, 256, 1024, 4096, 16384, 65536),
    "d": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    "k": (1, 2, 5, 10, 20, 50, 100, 200),
}
_READINGS = 5
_FULL = 4  # the base's n and m are so many times larger with --full


def measure(n_threads: int, *, full: bool = False) -> list[dict[str, Any]]:
    """Return a list of points: function, axis, its value, threads, and pairs x columns a second."""
    base = {**BASE, **({"n": _FULL * BASE["n"], "m": _FULL * BASE["m"]} if full else {})}
    return [_point(*place, n_threads) for place in _places(base, n_threads)]


def _places(base: dict[str, int], n_threads: int) -> Iterator[tuple[str, str, int, dict[str, int]]]:
    for function in ("pairwise_l2", "k_nearest"):
        for axis, values in AXES.items():
            if axis != "k" or function == "k_nearest":
                for value in values:
                    yield function, axis, value, {**base, axis: value}
        for threads in sorted({2**i for i in range(8) if 2**i <= n_threads} | {n_threads}):
            yield function, "threads", threads, base


def _point(function: str, axis: str, value: int, size: dict[str, int], n_threads: int) -> dict[str, Any]:
    n, m, d, k = (size[name] for name in "nmdk")
    rng = np.random.default_rng(0)
    X, Y = rng.random((n, d), dtype=np.float32), rng.random((m, d), dtype=np.float32)
    threads = value if axis == "threads" else n_threads
    call: Callable[[], object]
    if function == "pairwise_l2":
        out = np.empty((n, m), np.float32)

        def call() -> object:
            return kernels.pairwise_l2(X, Y, out=out, n_threads=threads)
    else:

        def call() -> object:
            return kernels.k_nearest(X, Y, k, n_threads=threads)

    call()
    readings = []
    for _ in range(_READINGS):
        start = time.perf_counter()
        call()
        readings.append(time.perf_counter() - start)
    rate = n * m * d / float(np.median(readings))
    return {"function": function, "axis": axis, "value": value, "threads": threads, "rate": rate}
