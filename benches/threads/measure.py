"""Time jobs with the default number of threads and with one, in turns, with busy processes beside them or without."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from ..measuring.timing import Way, take_turns
from .jobs import Job

__all__ = ["Found", "beside", "measure"]

#: A reading is at least this long: some turns of the CPU that other processes get.
_READING_S = 0.02


@dataclass(frozen=True)
class Found:
    """Seconds of a call with one thread and with as many as it uses by default; medians."""

    name: str
    one: float
    default: float

    @property
    def ratio(self) -> float:
        """How many times as long the default takes: above 1 it is slower."""
        return self.default / self.one


@contextmanager
def beside(n_processes: int) -> Iterator[None]:
    """Have so many processes compute meanwhile."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(jobs: Iterable[Job], n_processes: int, limit: float, seconds: float) -> Iterator[Found]:
    """Yield what was found of each job; one that seems to take over `limit` times as long is timed again."""
    for job in jobs:
        call = job.make()
        ways: dict[str, Callable[[], object]] = {"one": partial(call, 1), "default": partial(call, None)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an epoch is not enough, say models
            for way in ways.values():
                way()
            with beside(n_processes):
                found = [_timed(job.name, ways, seconds)]
                if found[0].ratio > limit:
                    found.append(_timed(job.name, ways, 2 * seconds))
        yield min(found, key=lambda each: each.ratio)


def _timed(name: str, ways: dict[str, Callable[[], object]], seconds: float) -> Found:
    taken = take_turns({key: Way(call) for key, call in ways.items()}, seconds, least=_READING_S)
    return Found(name, **{key: timing.seconds for key, timing in taken.items()})
