"""Run jobs: each peer is tried in all its settings, judged, and then times are taken in turns."""

from __future__ import annotations

import importlib
import statistics
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..measuring import targets
from ..measuring.timing import blas_limit, quiet_gc
from .jobs import goals, linear, losses, neighbors, networks, radius, searches, training
from .jobs.job import NOT_INSTALLED, OURS, PACKAGES, Call, Job, Judge, NoData, NotReached, Outcome, Peer, Prepared

__all__ = ["all_jobs", "document", "measure_figures", "run", "run_all", "versions", "why_missing"]

ROUNDS = 5
_PAUSE_S = 0.02
_READING_S = 0.05
_LONG_S = 3.0


def all_jobs(quick: bool = False) -> list[Job]:
    """Return the jobs of all families, in the order of the table; `quick` ones are small."""
    families = neighbors, radius, searches, losses, linear, training, networks
    return [job for family in families for job in family.jobs(quick=quick)]


def run_all(
    jobs: Iterable[Job],
    n_threads: int,
    machine: dict[str, Any],
    *,
    on_job: Callable[[dict[str, Any], list[Outcome]], None],
    figures: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Run jobs, then measure `figures`; return the document, and whether Ctrl-C ended it.

    `on_job` gets the document so far and the outcomes of the job that is done: what ends the run, whatever it is, then
    loses one job and not the hour. `figures` gets the document too, and returns what is to be added to it.
    """
    made = document([], n_threads, machine)
    try:
        for job in jobs:
            outcomes = run(job, n_threads)
            made["outcomes"] += map(asdict, outcomes)
            made["target"] = _target(made["outcomes"])
            on_job(made, outcomes)
        if figures is not None:
            made |= figures(made)
    except KeyboardInterrupt:
        return made, True
    return made, False


def measure_figures(quick: bool = False) -> dict[str, Any]:
    """Measure what is no comparison of times."""
    size = (200, 600, 78) if quick else (10_000, 60_000, 784)
    return {
        "errors": neighbors.errors(),
        "nanoseconds_per_row": losses.nanoseconds_per_row(*[(100, 1_000)] if quick else []),
        "extra_megabytes": neighbors.extra_megabytes(*size),
        "extra_megabytes_of": size,
    }


def run(job: Job, n_threads: int) -> list[Outcome]:
    """Run a job and return one outcome for each of its peers; whoever fails is named there."""
    try:
        prepared = job.prepare(n_threads)
        with blas_limit(n_threads), quiet_gc():
            return _outcomes(job, prepared)
    except NoData as error:
        return [Outcome(job.key, job.size, OURS, status="missing", problem=str(error))]
    except Exception as error:  # our own: the other jobs go on
        return [Outcome(job.key, job.size, OURS, status="failed", problem=_words(error))]


def _outcomes(job: Job, prepared: Prepared) -> list[Outcome]:
    expected = prepared.ours()  # compiles or loads
    entrants = [(package, make, False) for package, make in prepared.peers.items()]
    if prepared.limit is not None:
        entrants.insert(0, (prepared.limit.package, prepared.limit.alone, True))
    outcomes, ways = [], []
    for package, make, limit in entrants:
        goal = goals.of(job.name, goals.LIMIT if limit else package)
        outcome = Outcome(job.key, job.size, package, goal=goal, limit=limit)
        outcomes.append(outcome)
        call = _admit(outcome, make, expected)
        if call is not None:
            ways.append((outcome, call))
    del expected
    if not ways:  # nothing to compare our times with
        return outcomes
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
            _take_down(outcome, ours, readings)
    return outcomes


def _take_down(outcome: Outcome, ours: list[float], readings: list[float]) -> None:
    """Put in what the rounds gave."""
    ratios = [peer / own for peer, own in zip(readings, ours, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    outcome.seconds, outcome.ours_seconds = statistics.median(readings), statistics.median(ours)
    outcome.ratio, outcome.spread = statistics.median(ratios), (high - low) / 2


def _admit(outcome: Outcome, make: Callable[[], Peer], expected: Any) -> Call | None:
    """Try a peer in all its settings; return the fastest whose result is right, or say why there is none."""
    problem = why_missing(outcome.package)
    if problem is not None:
        outcome.refuse("missing", problem)
        return None
    outcome.held = targets.why_not_held(outcome.package) is None
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


def why_missing(package: str) -> str | None:
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


def document(outcomes: Sequence[Outcome], n_threads: int, machine: dict[str, Any]) -> dict[str, Any]:
    """Return everything as JSON takes it."""
    return {
        "machine": machine,
        "target": _target([asdict(outcome) for outcome in outcomes]),
        "threads": n_threads,
        "rounds": ROUNDS,
        "versions": versions(),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def _target(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what this process is held to, and which of the peers so far are."""
    return targets.state([OURS, *(outcome["package"] for outcome in outcomes if outcome["status"] != "missing")])
