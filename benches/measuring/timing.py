"""Timing: several ways to do the same work, in turns, in one run.

Noise between two runs, and between two minutes, is far larger than noise within a second. So the
ways that are compared take turns, round after round, and each reports its median.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

#: A single reading is at least this long; shorter calls are repeated within one reading.
MIN_READING_S = 2e-4
MAX_ROUNDS = 25
#: Fewer readings give no median worth the name; a call too long for the budget gets fewer all the same.
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds per call.

    Attributes
    ----------
    seconds : float
        Median over the readings.
    best : float
        The shortest reading.
    spread : float
        Half the distance between the quartiles, as a share of the median.
    readings : int
        How many readings there were.
    """

    seconds: float
    best: float
    spread: float
    readings: int

    @classmethod
    def of(cls, readings: list[float]) -> Timing:
        median = statistics.median(readings)
        spread = 0.0
        if len(readings) >= 2 and median > 0:
            low, _, high = statistics.quantiles(readings, n=4, method="inclusive")
            spread = (high - low) / 2 / median
        return cls(median, min(readings), spread, len(readings))


@dataclass
class Way:
    """One way to do the work, with the number of BLAS threads it may use."""

    call: Callable[[], Any]
    blas_threads: int = 1
    readings: list[float] = field(default_factory=list)
    repeat: int = 1


@cache
def _blas() -> Any:
    # Looking for the BLAS libraries of the process takes milliseconds, so it is done once; by then
    # NumPy and SciPy must have loaded theirs.
    import numpy.linalg  # noqa: F401
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def blas_limit(n_threads: int) -> AbstractContextManager[Any]:
    """Hold BLAS, whoever calls it, at `n_threads` threads."""
    context: AbstractContextManager[Any] = _blas().limit(limits=n_threads, user_api="blas")
    return context


@contextmanager
def quiet_gc() -> Iterator[None]:
    """Keep the garbage collector out of the readings."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def once(call: Callable[[], Any], *, blas_threads: int | None = 1) -> tuple[float, Any]:
    """Return the seconds and the result of a single call."""
    limit = nullcontext() if blas_threads is None else blas_limit(blas_threads)
    with limit:
        start = time.perf_counter()
        result = call()
        return time.perf_counter() - start, result


def uses_several_threads(call: Callable[[], Any], n_threads: int) -> bool:
    """Say whether a NumPy call gets faster by BLAS threads: more CPU time passes than wall time."""
    if n_threads == 1:
        return False
    with blas_limit(n_threads):
        call()
        wall, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < 0.01:
            call()
        return time.process_time() - cpu > 1.25 * (time.perf_counter() - wall)


def take_turns(ways: Mapping[str, Way], budget: float, *, least: float = MIN_READING_S) -> dict[str, Timing]:
    """Time every way, in turns, within about `budget` seconds.

    Every call must have run once before: that first call, which may compile, is not part of this.

    Parameters
    ----------
    ways : mapping of str to Way
        What is compared.
    budget : float
        Seconds for all of them together. Ways whose single call is longer than their share are read
        once or twice and say so by their number of readings.
    least : float
        Seconds of a reading; shorter calls are repeated within one.

    Returns
    -------
    dict of str to Timing
        One per way, in the same order.
    """
    deadline = time.perf_counter() + budget
    with quiet_gc():
        for way in ways.values():
            # The first reading settles how often a short call is repeated in each later one.
            first = _read(way)
            way.repeat = max(1, min(10_000, round(least / max(first, 1e-9))))
            way.readings = [_read(way)] if way.repeat > 1 else [first]
        for finished in range(1, MAX_ROUNDS):
            round_s = sum(way.readings[-1] * way.repeat for way in ways.values())
            left = deadline - time.perf_counter()
            # Rounds below the minimum may overrun the budget by one budget, not by more.
            if left < round_s and (finished >= MIN_ROUNDS or left + budget < round_s):
                break
            for way in ways.values():
                way.readings.append(_read(way))
    return {name: Timing.of(way.readings) for name, way in ways.items()}


def _read(way: Way) -> float:
    with blas_limit(way.blas_threads):
        start = time.perf_counter()
        for _ in range(way.repeat):
            way.call()
        elapsed = (time.perf_counter() - start) / way.repeat
    if way.blas_threads > 1:
        # BLAS threads spin for a while after their work and would steal from whoever comes next.
        time.sleep(0.02)
    return elapsed
