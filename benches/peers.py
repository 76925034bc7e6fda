"""fastml beside other libraries, on the same machine, in the same run: ``python -m benches peers``.

A job is one piece of work that several libraries can do. Each peer is tried in every setting listed for it and
the fastest counts; its result is compared with ours before any of its times does. Then all take turns, and a
ratio is the median over the rounds of (peer's time / our time): above 1 we are faster. Losses are printed
like wins.

Worker threads that go on spinning after a call take the CPU from whoever comes next: those of OpenBLAS do so for
more than 60 ms, which makes a call on two cores after them up to twice as long. So they are told to sleep (by the
environment, before anything is imported, see `__main__`), and there is a short pause between two ways.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .measure import blas_limit, quiet_gc

__all__ = ["HEADER", "PACKAGES", "Job", "Outcome", "run", "versions"]

#: Distribution -> module of every peer, in the order of the table's columns.
PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "scikit-learn-intelex": "sklearnex",
    "torch": "torch",
    "faiss-cpu": "faiss",
}
ROUNDS = 5
_PAUSE_S = 0.02
_READING_S = 0.05
_LONG_S = 3.0

Call = Callable[[], Any]
#: Says what is wrong with a peer's result beside ours, or None.
Judge = Callable[[Any, Any], str | None]


def versions() -> dict[str, str | None]:
    """Return the version of every peer, None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@dataclass(frozen=True)
class Peer:
    """One library at one job: the settings in which it is tried, and how its result is judged."""

    package: str
    settings: dict[str, Call]
    judge: Judge | None  # None: there is nothing to compare


@dataclass(frozen=True)
class Prepared:
    """A job with its data made."""

    ours: Call
    peers: list[Callable[[], Peer]]  # called one by one: a package that is missing raises ImportError


@dataclass(frozen=True)
class Job:
    """One piece of work; `goals` are the ratios that we want to reach, by package."""

    key: str
    size: str
    goals: dict[str, float]
    prepare: Callable[[int], Prepared] = field(repr=False)


@dataclass
class Outcome:
    """What came of one peer at one job."""

    job: str
    size: str
    package: str
    setting: str = ""
    seconds: float | None = None
    ours_seconds: float | None = None
    ratio: float | None = None
    spread: float | None = None  # half the distance between the quartiles of the rounds' ratios
    goal: float | None = None
    problem: str | None = None


def run(job: Job, n_threads: int) -> list[Outcome]:
    """Run a job and return one outcome for each of its peers."""
    prepared = job.prepare(n_threads)
    with blas_limit(n_threads), quiet_gc():
        expected = prepared.ours()  # compiles or loads
        outcomes, ways = [], []
        for make in prepared.peers:
            outcome, call = _admit(job, make, expected)
            outcomes.append(outcome)
            if call is not None:
                ways.append((outcome, call))
        del expected
        ours: list[float] = []
        theirs: list[list[float]] = [[] for _ in ways]
        for _ in range(ROUNDS):
            ours.append(_seconds(prepared.ours))
            for (_, call), readings in zip(ways, theirs, strict=True):
                readings.append(_seconds(call))
    for (outcome, _), readings in zip(ways, theirs, strict=True):
        ratios = [peer / own for peer, own in zip(readings, ours, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        outcome.seconds, outcome.ours_seconds = statistics.median(readings), statistics.median(ours)
        outcome.ratio, outcome.spread = statistics.median(ratios), (high - low) / 2
    return outcomes


def _admit(job: Job, make: Callable[[], Peer], expected: Any) -> tuple[Outcome, Call | None]:
    """Try a peer in all its settings; return the fastest if its result is right."""
    try:
        peer = make()
    except ImportError as error:
        missing = (error.name or str(error)).split(".")[0]
        package = next((name for name, module in PACKAGES.items() if module == missing), missing)
        return Outcome(job.key, job.size, package, goal=job.goals.get(package), problem="not installed"), None
    outcome = Outcome(job.key, job.size, peer.package, goal=job.goals.get(peer.package))
    fastest = float("inf")
    for setting, call in peer.settings.items():
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        problem = peer.judge(expected, result) if peer.judge else None
        if problem:
            outcome.problem = f"{setting}: {problem}"
            continue
        if seconds < _LONG_S:  # a first call of seconds says enough
            seconds = _seconds(call)
        if seconds < fastest:
            fastest, outcome.setting = seconds, setting
    if fastest == float("inf"):
        outcome.problem = outcome.problem or "no setting reaches the goal"
        return outcome, None
    outcome.problem = None
    return outcome, peer.settings[outcome.setting]


def _seconds(call: Call) -> float:
    """Time a call, after a pause; a short one many times over, as after a pause it is not what it is later on."""
    time.sleep(_PAUSE_S)
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    times = int(_READING_S / once)
    if times < 2:
        return once
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def document(outcomes: Sequence[Outcome], n_threads: int, machine: dict[str, Any]) -> dict[str, Any]:
    """Return everything as JSON takes it."""
    return {
        "machine": machine,
        "threads": n_threads,
        "rounds": ROUNDS,
        "versions": versions(),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


HEADER = f"{'job':<12} {'peer':<20} {'ours s':>8} {'peer s':>8} {'ratio':>7} {'±':>5} {'goal':>5}"


def lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lay the outcomes of one job out in at most 100 columns, under `HEADER`."""
    for place, o in enumerate(outcomes):
        if place == 0:
            yield f"{o.job}, {o.size}"
        goal = "" if o.goal is None else f"{o.goal:.2f}"
        name = f"{'':<12} {o.package:<20}"
        if o.ratio is None:
            yield f"{name} {o.problem}"
            continue
        mark = "" if o.goal is None else "reached" if o.ratio >= o.goal else "short"
        yield f"{name} {o.ours_seconds:8.4f} {o.seconds:8.4f} {o.ratio:7.2f} {o.spread:5.2f} {goal:>5} {mark}".rstrip()
        if o.setting:
            yield f"{'':<15}{o.setting}"


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


def package(name: str) -> Any:
    """Import a peer's module; ImportError tells that it is missing."""
    return importlib.import_module(PACKAGES[name])
