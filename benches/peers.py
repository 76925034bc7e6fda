"""fastml beside other libraries, on the same machine, in the same run: ``python -m benches peers``.

A job is one piece of work that several libraries can do. Each peer is tried in every setting listed for it and
the fastest counts; its result is compared with ours before any of its times does. Then all take turns, and a
ratio is the median over the rounds of (peer's time / our time): above 1 we are faster. Losses are printed
like wins. A peer that is missing, fails or stops before the goal is named, and has no time.

A limit is a part of the job, timed alone: a product of matrices, or reading the data. It has no result to compare, so
it is no peer; the ratio is our share of it.

Worker threads that go on spinning after a call take the CPU from whoever comes next: those of OpenBLAS do so for
more than 60 ms, which makes a call on two cores after them up to twice as long. So they are told to sleep (by the
environment, before anything is imported, see `__main__`), and there is a short pause between two ways.
"""

from __future__ import annotations

import importlib
import statistics
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .measure import blas_limit, quiet_gc

__all__ = ["HEADER", "PACKAGES", "Job", "NotReached", "Outcome", "run", "versions"]

#: Distribution -> module of every peer, in the order of the table's columns.
PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "scikit-learn-intelex": "sklearnex",
    "torch": "torch",
    "faiss-cpu": "faiss",
}
#: Our own other ways are called so; they are no other library.
OURS = "fastml"
NOT_INSTALLED = "not installed"
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
    """One piece of work; `goals` are the ratios that we want to reach, by package."""

    key: str
    size: str
    goals: dict[str, float]
    prepare: Callable[[int], Prepared] = field(repr=False)


@dataclass
class Outcome:
    """What came of one peer, or of the limit, at one job.

    `status` is "timed", or says why there is no time: "missing", "failed", "not reached" or "wrong".
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

    def refuse(self, status: str, problem: str) -> None:
        self.status, self.problem = status, problem


def run(job: Job, n_threads: int) -> list[Outcome]:
    """Run a job and return one outcome for each of its peers; whoever fails is named there."""
    try:
        prepared = job.prepare(n_threads)
        with blas_limit(n_threads), quiet_gc():
            return _outcomes(job, prepared)
    except Exception as error:  # our own: the other jobs go on
        return [Outcome(job.key, job.size, OURS, status="failed", problem=_words(error))]


def _outcomes(job: Job, prepared: Prepared) -> list[Outcome]:
    expected = prepared.ours()  # compiles or loads
    entrants = [(package, make, False) for package, make in prepared.peers.items()]
    if prepared.limit is not None:
        entrants.insert(0, (prepared.limit.package, prepared.limit.alone, True))
    outcomes, ways = [], []
    for package, make, limit in entrants:
        outcome = Outcome(job.key, job.size, package, goal=job.goals.get(package), limit=limit)
        outcomes.append(outcome)
        call = _admit(outcome, make, expected)
        if call is not None:
            ways.append((outcome, call))
    del expected
    ours: list[float] = []
    theirs: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        ours.append(_seconds(prepared.ours))
        for (outcome, call), readings in zip(ways, theirs, strict=True):
            if outcome.problem is None:
                try:
                    readings.append(_seconds(call))
                except Exception as error:
                    outcome.refuse("failed", f"{outcome.setting}: {_words(error)}")
    for (outcome, _), readings in zip(ways, theirs, strict=True):
        if outcome.problem is None:
            _settle(outcome, ours, readings)
    return outcomes


def _settle(outcome: Outcome, ours: list[float], readings: list[float]) -> None:
    """Put in what the rounds gave."""
    ratios = [peer / own for peer, own in zip(readings, ours, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    outcome.seconds, outcome.ours_seconds = statistics.median(readings), statistics.median(ours)
    outcome.ratio, outcome.spread = statistics.median(ratios), (high - low) / 2


def _admit(outcome: Outcome, make: Callable[[], Peer], expected: Any) -> Call | None:
    """Try a peer in all its settings; return the fastest whose result is right, or say why there is none."""
    missing = _missing(outcome.package)
    if missing is not None:
        outcome.refuse("missing", missing)
        return None
    try:
        peer = make()
    except Exception as error:
        # Some packages load their libraries only when a part of them is imported.
        outcome.refuse("missing" if isinstance(error, ImportError) else "failed", _words(error))
        return None
    fastest = float("inf")
    refused: dict[str, list[str]] = {"wrong": [], "failed": [], "not reached": []}  # the worst comes first
    for setting, call in peer.settings.items():
        seconds, status, problem = _try(call, peer.judge, expected)
        if problem:
            refused[status].append(f"{setting}: {problem}")
        elif seconds < fastest:
            fastest, outcome.setting = seconds, setting
    if fastest < float("inf"):
        return peer.settings[outcome.setting]
    status = next(status for status, found in refused.items() if found)
    outcome.refuse(status, "; ".join(problem for found in refused.values() for problem in found))
    return None


def _try(call: Call, judge: Judge, expected: Any) -> tuple[float, str, str | None]:
    """Call once, judge, and time; return seconds, status and problem."""
    try:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        problem = judge(expected, result)
        if problem:
            return seconds, "wrong", problem
        if seconds < _LONG_S:  # a first call of seconds says enough
            seconds = _seconds(call)
    except NotReached as error:
        return 0.0, "not reached", str(error)
    except Exception as error:
        return 0.0, "failed", _words(error)
    return seconds, "timed", None


def _missing(package: str) -> str | None:
    """Say why a package cannot be used, or None."""
    module = PACKAGES.get(package)
    if module is None:
        return None
    try:
        importlib.import_module(module)
    except Exception as error:  # ImportError, or OSError where a shared library is not there
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return NOT_INSTALLED
        return f"cannot be imported: {_words(error)}"
    return None


def _words(error: Exception) -> str:
    """Return an exception in one line of reasonable length."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")


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
_WIDTH = 100


def lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lay the outcomes of one job out in at most 100 columns, under `HEADER`."""
    for place, o in enumerate(outcomes):
        if place == 0:
            yield f"{o.job}, {o.size}"
        goal = "" if o.goal is None else f"{o.goal:.2f}"
        name = f"{'':<12} {'limit' if o.limit else o.package:<20}"
        if o.ratio is None:
            yield from textwrap.wrap(reason(asdict(o)), _WIDTH, initial_indent=f"{name} ", subsequent_indent=" " * 15)
            continue
        mark = "" if o.goal is None else "reached" if o.ratio >= o.goal else "short"
        yield f"{name} {o.ours_seconds:8.4f} {o.seconds:8.4f} {o.ratio:7.2f} {o.spread:5.2f} {goal:>5} {mark}".rstrip()
        yield f"{'':<15}{o.setting}" + (f" ({o.package}); the ratio is our share of it" if o.limit else "")


def figures(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a whole run measures beside times, in lines."""
    if "errors" not in document:
        return
    yield "largest relative error of float32 L2 distances:"
    for points, values in document["errors"].items():
        found = ", ".join(f"{name} {'-' if value is None else f'{value:.1e}'}" for name, value in values.items())
        yield f"  {points:<8} {found}"
    yield "linear_loss_gradient, 90 float32 columns, time per row:"
    yield "  " + ", ".join(f"{int(n):,} rows {value:.1f} ns" for n, value in document["nanoseconds_per_row"].items())
    if document["extra_megabytes"] is not None:
        size = " × ".join(f"{length:,}" for length in document["extra_megabytes_of"])
        yield f"k_nearest of {size} raises the peak memory by {document['extra_megabytes']:.1f} MiB"


def reason(outcome: Mapping[str, Any]) -> str:
    """Say why an outcome has no time."""
    starts = {"failed": "failed: ", "not reached": "does not reach the goal: ", "wrong": "WRONG: "}
    return f"{starts.get(outcome['status'], '')}{outcome['problem']}"


def is_error(outcome: Mapping[str, Any]) -> bool:
    """Say whether a result is wrong or we failed; a peer may be missing, fail or stop early."""
    return outcome["status"] == "wrong" or (outcome["package"] == OURS and outcome["status"] != "timed")


def summary(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Count wins and losses beside other libraries: limits and our own other ways are none of these."""
    others = [o for o in outcomes if not o["limit"] and o["package"] != OURS]
    timed = [o for o in others if o["ratio"] is not None]
    slower = sum(o["ratio"] < 1 for o in timed)
    text = f"{len(timed)} comparisons: we are faster in {len(timed) - slower}, slower in {slower}"
    for status in ("not reached", "failed", "wrong"):
        count = sum(o["status"] == status for o in others)
        text += f"; {count} {_UNTIMED[status]}" if count else ""
    return f"{text}."


_UNTIMED = {
    "not reached": "without a time, as the peer does not reach the goal",
    "failed": "without a time, as the peer failed",
    "wrong": "without a time, as the peer's result differs",
}


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
