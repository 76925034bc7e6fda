"""Run the measurements and put them into one document; see docs/report_schema.md."""

from __future__ import annotations

import datetime
import importlib
import inspect
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastml.cli.warmup import select

from . import scaling, tiles
from .cases import GENERATED, Case, generated_cases, real_cases
from .gate.environments import source_of
from .known_answers import PUBLISHED_SECONDS, Question, questions
from .limits import Limits, better, measure_limits
from .measure import Timing, Way, once, take_turns, uses_several_threads

SCHEMA = 1
#: Everything that is measured by default has to fit into this, compilation included.
DEFAULT_SECONDS = 140.0
FULL_SECONDS = 45 * 60.0
#: What a study takes, about.
_STUDY_SECONDS = 12.0
#: A case gets its share of the time left, within these bounds (default, --full).
_CASE_SECONDS = ((0.3, 3.0), (1.0, 60.0))
#: A ratio this near to 1 is not told from 1 by these readings; nor is any that the shortest readings contradict.
NOISE = 0.05


#: Name for ``--only`` -> key in the document, and what measures it.
STUDIES: dict[str, tuple[str, Callable[[int, bool], Any]]] = {
    "distance tiles": ("tiles", lambda n_threads, full: tiles.measure()),
    "distance scaling": ("scaling", lambda n_threads, full: scaling.measure(n_threads, full=full)),
}


class NothingSelected(ValueError):
    """The pattern of ``--only`` matches no case."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    full: bool = False
    only: str | None = None
    data: Path | None = None
    n_threads: int | None = None
    dtypes: tuple[str, ...] | None = None
    seconds: float | None = None


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


@dataclass
class Plan:
    """Cases and questions in the order in which they run."""

    cases: list[Case]
    questions: list[Question]
    studies: list[str]
    data: list[dict[str, Any]]


def make_plan(options: Options, catalogue: Any, n_threads: int, studies: Iterable[str] = ()) -> Plan:
    """Collect the cases, the questions whose answers are known, and the studies that `options` select.

    Raises
    ------
    NothingSelected
        If ``--only`` matches nothing.
    FileNotFoundError
        If ``--data`` names a folder that holds none of the data sets.
    """
    known = {dtype for entry in catalogue.ENTRIES.values() for dtype in entry.dtypes}
    if unknown := set(options.dtypes or ()) - known:
        raise NothingSelected(
            f"no kernel takes {', '.join(sorted(unknown))}; the dtypes are {', '.join(sorted(known))}"
        )
    cases = generated_cases(catalogue.ENTRIES, full=options.full, dtypes=options.dtypes)
    asked: list[Question] = []
    described: list[dict[str, Any]] = []
    for dataset in _datasets(options.data):
        cases += real_cases(catalogue.ENTRIES, dataset, full=options.full, dtypes=options.dtypes)
        asked += questions(dataset, full=options.full, n_threads=n_threads)
        described.append(
            {
                "name": dataset.name,
                "note": dataset.note,
                "train": list(dataset.X_train.shape),
                "test": list(dataset.X_test.shape),
            }
        )
    names = [case.name for case in cases] + [question.name for question in asked] + list(studies)
    chosen = set(select(names, options.only))
    if not chosen:
        known = "\n  ".join(sorted({case.name for case in cases} | set(studies)))
        raise NothingSelected(f"--only {options.only!r} matches nothing; there are\n  {known}")
    return Plan(
        [case for case in cases if case.name in chosen],
        [question for question in asked if question.name in chosen],
        [study for study in studies if study in chosen],
        described,
    )


def _datasets(folder: Path | None) -> Iterator[Any]:
    """Yield the embedded digits, then what the data folder holds."""
    from fastml import datasets

    yield datasets.load_digits()
    explicit = folder is not None
    if folder is None:
        variable = os.environ.get(datasets.DATA_VARIABLE)
        if not variable:
            return
        folder = Path(variable)
    found = 0
    missing = []
    for load in (datasets.load_mnist, datasets.load_cifar10):
        try:
            dataset = load(folder)
        except FileNotFoundError as error:
            # The folder need not hold both; any other trouble with a file is told.
            missing.append(str(error))
            continue
        found += 1
        yield dataset
    if explicit and not found:
        raise FileNotFoundError("\n".join(missing))


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
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "mode": "full" if options.full else "default",
        "only": options.only,
        "interrupted": False,
        "seconds": 0.0,
        "source": source_of(Path(__file__).resolve().parent.parent),
        "machine": _machine(),
        "load_average": _load_average(),
        "threads": {"all": n_threads, "source": "--threads" if options.n_threads else source},
        "limits": None,
        "data": plan.data,
        "planned": len(plan.cases) + len(plan.questions),
        "tiles": None,
        "scaling": None,
        "cases": [],
        "known_answers": [],
        "published_seconds": {key: list(value) for key, value in PUBLISHED_SECONDS.items()},
    }
    total_s = options.seconds or (FULL_SECONDS if options.full else DEFAULT_SECONDS)
    low, high = _CASE_SECONDS[options.full]
    # The questions come last, so that compiling is on the account of the cases; they get a second each.
    total_s -= len(plan.questions) + _STUDY_SECONDS * len(plan.studies)
    limits = None
    progress.start(len(plan.cases) + len(plan.questions) + len(plan.studies) + 2)
    try:
        progress.at("limits of this machine")
        limits = measure_limits(n_threads)
        progress.advance()
        progress.at("how long compiling takes")
        compiled = compile_cases(plan.cases, n_threads)
        for position, case in enumerate(plan.cases):
            progress.at(case.name)
            left = total_s - (time.perf_counter() - started)
            budget = min(high, max(low, left / (len(plan.cases) - position)))
            took = compiled.get((case.entry.key, case.dtype), 0.0) if case.data == GENERATED else 0.0
            document["cases"].append(measure_case(case, budget, n_threads, limits, catalogue, took))
            progress.advance()
        for question in plan.questions:
            progress.at(question.name)
            document["known_answers"] += _answers(question)
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
    document["summary"] = summarise(document)
    return document


def _add_shares(cases: list[dict[str, Any]], limits: Limits) -> None:
    """Hold every tier against the limit that applies to it, with as many threads."""
    for case in cases:
        moved_or_done = case["bytes" if case["limit"] == "memory" else "flops"]
        for name, tier in case["tiers"].items():
            ceiling = limits.of(case["limit"], case["dtype"], "all" if name.endswith("_all") else "1")
            tier["share_of_limit"] = moved_or_done / tier["seconds"] / ceiling


def compile_cases(cases: Iterable[Case], n_threads: int) -> dict[tuple[str, str], float]:
    """Compile what the cases will call in several processes at once.

    Returns the seconds of each entry and dtype that had something to compile: one after the other they would be
    most of the report.
    """
    from fastml.cli import warmup
    from fastml.kernels.catalogue import ENTRIES
    from fastml.kernels.runtime import jit

    if n_threads == 1 or not jit.cache_info().writable:
        return {}
    asked: dict[str, list[str]] = {}
    for case in cases:
        if case.entry is ENTRIES.get(case.entry.key):  # other processes know no other entries
            asked.setdefault(case.dtype, []).append(case.entry.key)
    return {
        (outcome.key, dtype): outcome.seconds
        for dtype, keys in asked.items()
        for outcome in warmup.run(list(dict.fromkeys(keys)), min(n_threads, 4), dtypes=(dtype,), silent=True)
        if outcome.compiled
    }


def measure_case(
    case: Case, budget: float, n_threads: int, limits: Limits, catalogue: Any, compiled_s: float = 0.0
) -> dict[str, Any]:
    """Measure one case; an exception in a kernel becomes the case's ``failure``, it does not end the report.

    `compiled_s` is what another process took to compile it, if it did.
    """
    entry = case.entry
    record: dict[str, Any] = {
        "name": case.name,
        "entry": entry.key,
        "function": entry.function,
        "family": entry.family,
        "formula": entry.formula,
        "data": case.data,
        "dtype": case.dtype,
        "accumulator": entry.dtypes[case.dtype].accumulator,
        "output": entry.dtypes[case.dtype].output,
        "size": _named(entry, case.size),
        "unit": entry.unit,
        "work": float(entry.work(case.size)),
        "bytes": float(entry.bytes(case.size, case.dtype)),
        "flops": float(entry.flops(case.size)),
        "limit": entry.limit,
        "fits_in_cache": entry.bytes(case.size, case.dtype) < limits.cache_bytes,
        "bound": {
            "rtol": entry.tolerance[case.dtype].rtol,
            "atol": entry.tolerance[case.dtype].atol,
            "reason": entry.tolerance[case.dtype].reason,
        },
        "tiers": {},
        "speedups": {},
        "first_call": None,
        "slower_than_vectorized": [],
        "agrees": False,
        "failure": None,
    }
    try:
        _measure(case, budget, n_threads, catalogue, record, compiled_s)
    except Exception as error:
        record["failure"] = f"{type(error).__name__}: {error}"
    return record


def _measure(
    case: Case, budget: float, n_threads: int, catalogue: Any, record: dict[str, Any], compiled_s: float
) -> None:
    entry, dtype = case.entry, case.dtype
    loops, vectorized, compiled = (entry.tier(name) for name in ("loops", "vectorized", "compiled"))
    inputs, part = case.inputs(), case.loop_inputs()

    def bind(function: Callable[..., Any], arguments: Any, **more: Any) -> Callable[[], Any]:
        return lambda: function(*arguments.args, **arguments.kwargs, **more)

    # First calls: they compile or load, and their results are compared below.
    before = _cache_counts()
    first_s, result_1 = once(bind(compiled, inputs, n_threads=1))
    first_all_s, result_all = once(bind(compiled, inputs, n_threads=n_threads))
    after = _cache_counts()
    _, result_v = once(bind(vectorized, inputs))

    ways = {
        "vectorized": Way(bind(vectorized, inputs)),
        "compiled_1": Way(bind(compiled, inputs, n_threads=1)),
        "compiled_all": Way(bind(compiled, inputs, n_threads=n_threads)),
    }
    if n_threads == 1:
        del ways["compiled_all"]
    if isinstance(result_1, np.ndarray) and "out" in inspect.signature(compiled).parameters:
        ways["compiled_out"] = Way(bind(compiled, inputs, n_threads=1, out=np.empty_like(result_1)))
        ways["compiled_out"].call()
    # Last in each round, because BLAS threads linger.
    if uses_several_threads(bind(vectorized, inputs), n_threads):
        ways["vectorized_all"] = Way(bind(vectorized, inputs), blas_threads=n_threads)
    timings = take_turns(ways, 0.7 * budget)
    # NumPy without BLAS has one thread only, and so has a machine with one CPU.
    timings.setdefault("vectorized_all", timings["vectorized"])
    timings.setdefault("compiled_all", timings["compiled_1"])

    # The loop: on its part, and on the whole only if that is affordable.
    part_s, result_loop = once(bind(loops, part))
    scale = entry.work(case.size) / entry.work(case.loop_size)
    loop_size, loop_truth_of = case.loop_size, part
    if case.loop_size != case.size and part_s * scale <= 0.15 * budget:
        part_s, result_loop = once(bind(loops, inputs))
        scale, loop_size, loop_truth_of = 1.0, case.size, inputs
    readings = [part_s]
    while len(readings) < 5 and sum(readings) + part_s < 0.1 * budget:
        readings.append(once(bind(loops, loop_truth_of))[0])
    loop = Timing.of(readings)
    timings["loops"] = Timing(loop.seconds * scale, loop.best * scale, loop.spread, loop.readings)

    # Errors: every tier on the part; on the whole too where the reference is affordable there.
    part_truth_s, truth = once(lambda: entry.reference(part))
    errors = {
        "loops": catalogue.check(entry, result_loop, truth, dtype) if loop_truth_of is part else 0.0,
        "vectorized": catalogue.check(entry, bind(vectorized, part)(), truth, dtype),
        "compiled_1": catalogue.check(entry, bind(compiled, part, n_threads=1)(), truth, dtype),
        "compiled_all": catalogue.check(entry, bind(compiled, part, n_threads=n_threads)(), truth, dtype),
    }
    whole = case.loop_size == case.size
    if not whole and part_truth_s * entry.work(case.size) / entry.work(case.loop_size) <= 0.3 * budget:
        whole = True
        truth = entry.reference(inputs)
    if whole:
        results = {"vectorized": result_v, "compiled_1": result_1, "compiled_all": result_all}
        if loop_truth_of is inputs:
            results["loops"] = result_loop
        for name, result in results.items():
            errors[name] = _worst(errors[name], catalogue.check(entry, result, truth, dtype))
    elif loop_truth_of is inputs:
        errors["loops"] = catalogue.check(entry, bind(loops, part)(), truth, dtype)

    for name in ("loops", "vectorized", "vectorized_all", "compiled_1", "compiled_all", "compiled_out"):
        if name not in timings:
            continue
        timing = timings[name]
        record["tiers"][name] = {
            **asdict(timing),
            "throughput": record["work"] / timing.seconds,
            "error": _number(errors.get(name)),
        }
    record["tiers"]["loops"]["timed_size"] = _named(entry, loop_size)
    record["tiers"]["loops"]["scaled"] = scale != 1.0
    record["errors_checked_on"] = "the whole" if whole else "a part"
    record["first_call"] = {
        "seconds": compiled_s
        + max(0.0, first_s - timings["compiled_1"].seconds)
        + max(0.0, first_all_s - timings["compiled_all"].seconds),
        "source": "compiled" if compiled_s else _source(before, after),
    }
    record["speedups"] = {
        name: timings[slow].seconds / timings[fast].seconds for name, (slow, fast) in SPEEDUPS.items()
    }
    record["slower_than_vectorized"] = [
        threads
        for threads, name in (("1", "compiled_1_over_vectorized"), ("all", "compiled_all_over_vectorized_all"))
        if record["speedups"][name] < 1
    ]
    record["agrees"] = all(error <= 1 for error in errors.values())


#: Name of a speed-up -> (slower tier, faster tier): the time of the first over the time of the second.
SPEEDUPS = {
    "vectorized_over_loops": ("loops", "vectorized"),
    "compiled_1_over_loops": ("loops", "compiled_1"),
    "compiled_all_over_loops": ("loops", "compiled_all"),
    "compiled_1_over_vectorized": ("vectorized", "compiled_1"),
    "compiled_all_over_vectorized_all": ("vectorized_all", "compiled_all"),
    "compiled_all_over_compiled_1": ("compiled_1", "compiled_all"),
}


def _answers(question: Question) -> list[dict[str, Any]]:
    try:
        return [{**asdict(answer), "verdict": answer.verdict} for answer in question.ask()]
    except Exception as error:
        # Shown as a figure that differs, so that it cannot be overlooked.
        failed = {"workload": question.name.split()[0], "data": question.name.split()[-1], "what": question.name}
        found = f"{type(error).__name__}: {error}"
        return [{**failed, "dtype": "", "expected": "", "found": found, "seconds": 0.0, "verdict": "differs"}]


def summarise(document: dict[str, Any]) -> dict[str, Any]:
    """Return what stands at the top of the report and decides the exit code."""
    cases = document["cases"]
    return {
        "measured": len(cases) + sum(1 for _ in document["known_answers"]),
        "cases": len(cases),
        "failed": [case["name"] for case in cases if case["failure"]],
        "disagree": [case["name"] for case in cases if not case["failure"] and not case["agrees"]],
        "slower": [
            {
                "name": case["name"],
                "threads": threads,
                "speedup": case["speedups"][name],
                "within_noise": case["speedups"][name] > 1 - NOISE or _best_disagree(case, name),
            }
            for case in cases
            for threads, name in (("1", "compiled_1_over_vectorized"), ("all", "compiled_all_over_vectorized_all"))
            if threads in case["slower_than_vectorized"]
        ],
        "differs": [answer["what"] for answer in document["known_answers"] if answer["verdict"] == "differs"],
        "matches": sum(answer["verdict"] == "matches" for answer in document["known_answers"]),
    }


def _best_disagree(case: dict[str, Any], name: str) -> bool:
    """Say whether the shortest readings have it the other way round than the medians."""
    slow, fast = (case["tiers"][tier]["best"] for tier in SPEEDUPS[name])
    return bool(slow > fast)


def exit_code(document: dict[str, Any]) -> int:
    """0 if everything agrees, 1 if anything is wrong (however fast), 130 after Ctrl-C."""
    summary = document["summary"]
    if summary["failed"] or summary["disagree"] or summary["differs"]:
        return 1
    return 130 if document["interrupted"] else 0


def groups(document: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Return ``(data, dtype, cases)`` in the order of the document."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for case in document["cases"]:
        found.setdefault((case["data"], case["dtype"]), []).append(case)
    return [(data, dtype, cases) for (data, dtype), cases in found.items()]


def group_title(data: str, dtype: str) -> str:
    """Return a heading for a group of cases."""
    if data.startswith(GENERATED):
        special = data.removeprefix(GENERATED).strip()
        return f"Generated arrays, {special + ', ' if special else ''}{dtype}"
    return f"{data[:1].upper()}{data[1:]}, {dtype}"


def _machine() -> dict[str, Any]:
    from fastml.cli import info

    return info.collect()


def _load_average() -> float | None:
    """Return how many processes wanted to run in the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _cache_counts() -> dict[str, int]:
    from fastml.kernels.runtime import jit

    counts = jit.stats().values()
    return {key: sum(count[key] for count in counts) for key in ("hits", "misses")}


def _source(before: dict[str, int], after: dict[str, int]) -> str:
    """Say where the machine code of a first call came from."""
    hits, misses = (after[key] - before[key] for key in ("hits", "misses"))
    if misses:
        return "compiled" if not hits else "partly compiled"
    return "cache" if hits else "ready"


def _named(entry: Any, size: Sequence[int]) -> dict[str, int]:
    return {axis: int(length) for axis, length in zip(entry.axes, size, strict=True)}


def _worst(a: float, b: float) -> float:
    """Return the larger error; NaN, which compares with nothing, counts as the largest."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _number(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity; an error that is no number is the worst there is."""
    if value is None:
        return None
    return float(value) if math.isfinite(value) else 1e308
