"""Run the measurements and put them into one document; see docs/report_schema.md."""

from __future__ import annotations

import datetime
import importlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..measuring import targets
from ..measuring.limits import Limits, better, measure_limits
from ..measuring.repository import ROOT, source_of
from . import scaling, tiles
from .case import compile_cases, measure_case
from .known_answers import PUBLISHED_SECONDS, Question
from .plan import GENERATED, Options, Plan, make_plan
from .summary import summarize

__all__ = ["SCHEMA", "STUDIES", "Progress", "answers", "run"]

SCHEMA = 1
#: What a target is for: the tiers, and the BLAS that NumPy and Numba call.
HELD = ("fastml", "numpy", "scipy")
#: Everything that is measured by default has to fit into this, compilation included; with what a fresh clone installs
#: it stays under three minutes.
DEFAULT_SECONDS = 110.0
FULL_SECONDS = 45 * 60.0
#: What a study takes, about.
_STUDY_SECONDS = 12.0
#: A case gets its share of the time left, within these bounds (default, --full).
_CASE_SECONDS = ((0.3, 3.0), (1.0, 60.0))

#: Name for ``--only`` -> key in the document, and what measures it.
STUDIES: dict[str, tuple[str, Callable[[int, bool], Any]]] = {
    "distance tiles": ("tiles", lambda n_threads, full: tiles.measure()),
    "distance scaling": ("scaling", lambda n_threads, full: scaling.measure(n_threads, full=full)),
}


@dataclass
class Progress:
    """Where the report says what it is doing; this one says nothing."""

    total: int = 0
    done: int = field(default=0, init=False)

    def start(self, total: int) -> None:
        self.total = total

    def at(self, what: str) -> None:
        """Say what is being measured now."""

    def advance(self) -> None:
        self.done += 1

    def close(self) -> None:
        """Take the progress display away."""


def run(
    options: Options, *, catalogue: Any = None, progress: Progress | None = None, studies: Iterable[str] = STUDIES
) -> dict[str, Any]:
    """Measure what `options` select and return the document.

    Ctrl-C ends the measuring, not the report: the document then holds what there is and says
    ``"interrupted": true``.
    """
    from fastml.kernels.runtime import parallel

    if catalogue is None:
        catalogue = importlib.import_module("fastml.kernels.catalogue")

    progress = progress or Progress()
    started = time.perf_counter()
    default_threads, source = parallel.default()
    n_threads = options.n_threads or default_threads
    plan = make_plan(options, catalogue, n_threads, studies)
    document = _empty_document(options, plan, n_threads, "--threads" if options.n_threads else source)
    limits = None
    progress.start(len(plan.cases) + len(plan.questions) + len(plan.studies) + 2)
    try:
        progress.at("limits of this machine")
        limits = measure_limits(n_threads)
        progress.advance()
        _measure_cases(options, plan, n_threads, limits, catalogue, started, document, progress)
        for question in plan.questions:
            progress.at(question.name)
            document["known_answers"] += answers(question)
            progress.advance()
        for study in plan.studies:
            progress.at(study)
            key, measure = STUDIES[study]
            document[key] = measure(n_threads, options.full)
            progress.advance()
        progress.at("limits of this machine, once more")
        limits = better(limits, measure_limits(n_threads))
        progress.advance()
    except KeyboardInterrupt:
        document["interrupted"] = True
    finally:
        progress.close()
    if limits is not None:
        document["limits"] = asdict(limits)
        _add_shares(document["cases"], limits)
    document["seconds"] = time.perf_counter() - started
    document["summary"] = summarize(document)
    return document


def _empty_document(options: Options, plan: Plan, n_threads: int, source: str) -> dict[str, Any]:
    """Return all that a document says before anything is measured."""
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "mode": "full" if options.full else "default",
        "only": options.only,
        "interrupted": False,
        "seconds": 0.0,
        "source": source_of(ROOT),
        "machine": _machine(),
        "target": targets.state(HELD),
        "load_average": _load_average(),
        "threads": {"all": n_threads, "source": source},
        "limits": None,
        "data": plan.data,
        "planned": len(plan.cases) + len(plan.questions),
        "tiles": None,
        "scaling": None,
        "cases": [],
        "known_answers": [],
        "published_seconds": {key: list(value) for key, value in PUBLISHED_SECONDS.items()},
    }


def _measure_cases(
    options: Options,
    plan: Plan,
    n_threads: int,
    limits: Limits,
    catalogue: Any,
    started: float,
    document: dict[str, Any],
    progress: Progress,
) -> None:
    """Measure all cases, each with its share of the time that is left."""
    total_s = options.seconds or (FULL_SECONDS if options.full else DEFAULT_SECONDS)
    low, high = _CASE_SECONDS[options.full]
    # The questions come last, so that compiling is on the account of the cases; they get a second each.
    total_s -= len(plan.questions) + _STUDY_SECONDS * len(plan.studies)
    progress.at("how long compiling takes")
    compiled = compile_cases(plan.cases, n_threads)
    for position, case in enumerate(plan.cases):
        progress.at(case.name)
        left = total_s - (time.perf_counter() - started)
        budget = min(high, max(low, left / (len(plan.cases) - position)))
        took = compiled.get((case.entry.key, case.dtype), 0.0) if case.data == GENERATED else 0.0
        document["cases"].append(measure_case(case, budget, n_threads, limits, catalogue, took))
        progress.advance()


def _add_shares(cases: list[dict[str, Any]], limits: Limits) -> None:
    """Hold every tier against the limit that applies to it, with as many threads."""
    for case in cases:
        moved_or_done = case["bytes" if case["limit"] == "memory" else "flops"]
        for name, tier in case["tiers"].items():
            ceiling = limits.of(case["limit"], case["dtype"], "all" if name.endswith("_all") else "1")
            tier["share_of_limit"] = moved_or_done / tier["seconds"] / ceiling


def answers(question: Question) -> list[dict[str, Any]]:
    try:
        return [{**asdict(answer), "verdict": answer.verdict} for answer in question.ask()]
    except Exception as error:
        # Shown as a figure that differs, so that it cannot be overlooked.
        failed = {"workload": question.name.split()[0], "data": question.name.split()[-1], "what": question.name}
        found = f"{type(error).__name__}: {error}"
        return [{**failed, "dtype": "", "expected": "", "found": found, "seconds": 0.0, "verdict": "differs"}]


def _machine() -> dict[str, Any]:
    from fastml.cli import info

    return info.collect()


def _load_average() -> float | None:
    """Return how many processes wanted to run in the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
