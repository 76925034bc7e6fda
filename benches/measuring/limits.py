"""What this machine can do at best, measured in the same run as the kernels.

Memory: the dot product of the two halves of an array several times larger than the last-level
cache, by NumPy, with one thread and with all (each thread reads its own part; BLAS is held at one
thread per part). Every byte is read once, nothing is written.

GEMM: the product of two square matrices by NumPy's BLAS, float32 and float64, with one thread and
with all. It is the most arithmetic that a library gets out of this CPU.

The best of several readings counts: a limit is a ceiling, so its noise goes one way only. For the
same reason the report measures before and after the kernels and keeps the better of the two.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .timing import blas_limit, quiet_gc

_DEFAULT_CACHE = 32 * 2**20


@dataclass(frozen=True)
class Limits:
    """Ceilings of this machine, by number of threads ("1" and "all").

    Attributes
    ----------
    memory : dict of str to float
        Bytes read per second.
    gemm : dict of str to dict of str to float
        dtype -> threads -> floating-point operations per second.
    cache_bytes : int
        Size of the last-level cache, 32 MiB where the system does not tell.
    array_bytes : int
        Size of the array that was read.
    gemm_size : int
        Rows and columns of the matrices.
    n_threads : int
        What "all" means.
    """

    memory: dict[str, float]
    gemm: dict[str, dict[str, float]]
    cache_bytes: int
    array_bytes: int
    gemm_size: int
    n_threads: int

    def of(self, limit: str, dtype: str, threads: str) -> float:
        """Return the ceiling for `limit` ("memory" or "gemm"); integers are held against float32's GEMM."""
        if limit == "memory":
            return self.memory[threads]
        if limit == "gemm":
            return self.gemm["float64" if dtype == "float64" else "float32"][threads]
        raise ValueError(f"limit must be 'memory' or 'gemm', got {limit!r}")


def better(a: Limits, b: Limits) -> Limits:
    """Return the higher of two measurements of each ceiling of the same machine."""
    memory = {threads: max(rate, b.memory[threads]) for threads, rate in a.memory.items()}
    gemm = {
        dtype: {threads: max(rate, b.gemm[dtype][threads]) for threads, rate in rates.items()}
        for dtype, rates in a.gemm.items()
    }
    return replace(a, memory=memory, gemm=gemm)


def measure_limits(
    n_threads: int, *, readings: int = 5, gemm_size: int = 1536, array_bytes: int | None = None
) -> Limits:
    """Measure the ceilings with one thread and with `n_threads`; takes about two seconds."""
    llc = last_level_cache()
    if array_bytes is None:
        array_bytes = min(2**30, max(2**28, 4 * llc))
    with quiet_gc():
        array = np.ones(array_bytes // 4, np.float32)
        memory = _at_least_one({"1": _read_rate(array, 1, readings), "all": _read_rate(array, n_threads, readings)})
        del array
        gemm = {dtype: _gemm_rates(dtype, n_threads, gemm_size, readings) for dtype in ("float32", "float64")}
    return Limits(memory, gemm, llc, array_bytes, gemm_size, n_threads)


def _best(call: Callable[[], object], readings: int) -> float:
    call()
    best = float("inf")
    for _ in range(readings):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def reader(array: np.ndarray, n_threads: int) -> Callable[[], object]:
    """Return a call that reads a flat array once, with so many threads."""
    # Two streams per thread are read faster than one.
    halves = [np.split(part[: len(part) // 2 * 2], 2) for part in np.array_split(array, n_threads)]
    pool = ThreadPoolExecutor(n_threads)

    def read() -> object:
        with blas_limit(1):
            return list(pool.map(lambda pair: np.dot(*pair), halves))

    return read


def _read_rate(array: np.ndarray, n_threads: int, readings: int) -> float:
    return array.nbytes / _best(reader(array, n_threads), readings)


def _gemm_rates(dtype: str, n_threads: int, size: int, readings: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    A, B = rng.random((2, size, size)).astype(dtype)
    out = np.empty((size, size), dtype)
    rates = {}
    for name, threads in (("1", 1), ("all", n_threads)):
        with blas_limit(threads):
            rates[name] = 2 * size**3 / _best(lambda: np.matmul(A, B, out=out), readings)
    return _at_least_one(rates)


def _at_least_one(rates: dict[str, float]) -> dict[str, float]:
    """All threads can do what one can, even if the readings say less because the machine was busy."""
    return {"1": rates["1"], "all": max(rates.values())}


def last_level_cache() -> int:
    """Return the size of the last-level cache in bytes as Linux tells it, else a usual size."""
    if sys.platform != "linux":
        return _DEFAULT_CACHE
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KMG]?)", path.read_text().strip())
        if found:
            sizes.append(int(found[1]) * 1024 ** " KMG".index(found[2] or " "))
    return max(sizes, default=_DEFAULT_CACHE)
