"""What a job is: one piece of work that several libraries can do, and what came of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = [
    "OURS",
    "PACKAGES",
    "Call",
    "Job",
    "Judge",
    "Limit",
    "NoData",
    "NotReached",
    "Outcome",
    "Peer",
    "Prepared",
    "package",
]

#: Distribution -> module of every peer, in the order of the table's columns.
PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "scikit-learn-intelex": "sklearnex",
    "torch": "torch",
    "faiss-cpu": "faiss",
    "jax": "jax",
    "pykdtree": "pykdtree",
    "pynanoflann": "pynanoflann",
    "napf": "napf",
    "glum": "glum",
}
#: Our own other ways are called so; they are no other library.
OURS = "fastml"
NOT_INSTALLED = "not installed"
Call = Callable[[], Any]
#: Says what is wrong with a peer's result beside ours, or None.
Judge = Callable[[Any, Any], str | None]


class NoData(Exception):
    """What a job works on is not at hand."""


class NotReached(Exception):
    """A setting of a peer stops before the goal: its result is not wrong, but its time says nothing."""


@dataclass(frozen=True)
class Peer:
    """One library at one job: the settings in which it is tried, and how its result is judged."""

    settings: dict[str, Call]
    judge: Judge


class Limit(NamedTuple):
    """A part of the job, timed alone: what it is and who does it."""

    package: str
    name: str
    call: Call

    def alone(self) -> Peer:
        return Peer({self.name: self.call}, lambda *_: None)  # it has no result


@dataclass(frozen=True)
class Prepared:
    """A job with its data made. Peers are made one by one, by package, as each may be missing or fail."""

    ours: Call
    peers: Mapping[str, Callable[[], Peer]] = field(default_factory=dict)
    limit: Limit | None = None


@dataclass(frozen=True)
class Job:
    """One piece of work. What it shall reach stands in `goals`."""

    key: str
    size: str
    prepare: Callable[[int], Prepared] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.key}, {self.size}"


@dataclass
class Outcome:
    """What came of one peer, or of the limit, at one job.

    `held` is false if the peer may run what the target does not have; the ratio then counts neither way. `status` is
    "timed", or says why there is no time: "missing", "failed", "not reached" or "wrong". Where the data of a job are
    not at hand we are the one that is missing.
    """

    job: str
    size: str
    package: str
    setting: str = ""
    seconds: float | None = None
    ours_seconds: float | None = None
    ratio: float | None = None
    spread: float | None = None  # half the distance between the quartiles of the rounds' ratios
    goal: float | None = None
    status: str = "timed"
    problem: str | None = None
    limit: bool = False
    held: bool = True

    def refuse(self, status: str, problem: str) -> None:
        self.status, self.problem = status, problem


def package(name: str) -> Any:
    """Import a peer's module; ImportError tells that it is missing."""
    return importlib.import_module(PACKAGES[name])
