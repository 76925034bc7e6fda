"""Measure one case: every tier timed in turns with the others, and its results compared with the truth."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from fastml.kernels.runtime import parallel

from ..measuring.limits import Limits
from ..measuring.timing import Timing, Way, once, take_turns, uses_several_threads
from .plan import Case

__all__ = ["SPEEDUPS", "compile_cases", "measure_case"]

#: Name of a speed-up -> (slower tier, faster tier): the time of the first over the time of the second.
SPEEDUPS = {
    "vectorized_over_loops": ("loops", "vectorized"),
    "compiled_1_over_loops": ("loops", "compiled_1"),
    "compiled_all_over_loops": ("loops", "compiled_all"),
    "compiled_1_over_vectorized": ("vectorized", "compiled_1"),
    "compiled_all_over_vectorized_all": ("vectorized_all", "compiled_all"),
    "compiled_all_over_compiled_1": ("compiled_1", "compiled_all"),
}


@dataclass(frozen=True)
class _Calls:
    """The tiers of a case, on the whole of it and on the part for the loop."""

    tiers: dict[str, Callable[..., Any]]
    inputs: Any
    part: Any
    n_threads: int

    @classmethod
    def of(cls, case: Case, n_threads: int) -> _Calls:
        tiers = {name: case.entry.tier(name) for name in ("loops", "vectorized", "compiled")}
        return cls(tiers, case.inputs(), case.loop_inputs(), n_threads)

    def bind(self, tier: str, arguments: Any, **more: Any) -> Callable[[], Any]:
        """Return a call of a tier; ``compiled_1`` and ``compiled_all`` say how many threads it has.

        All that there are is what kernels use by default, and that is fewer where the work is little.
        """
        kind, _, threads = tier.partition("_")
        if threads:
            is_default = self.n_threads == parallel.default()[0]
            more["n_threads"] = 1 if threads == "1" else None if is_default else self.n_threads
        function = self.tiers[kind]
        return lambda: function(*arguments.args, **arguments.kwargs, **more)


class _First(NamedTuple):
    """What the first calls returned on the whole, the seconds of those that compile or load, and which they did."""

    results: dict[str, Any]
    seconds: dict[str, float]
    source: str


class _Loop(NamedTuple):
    """The loop: its timing scaled up to the whole, by how much, and on which arguments of which size it ran."""

    timing: Timing
    scale: float
    arguments: Any
    size: tuple[int, ...]
    result: Any


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
    record = _facts(case, limits)
    try:
        _measure(case, budget, n_threads, catalogue, record, compiled_s)
    except Exception as error:
        record["failure"] = f"{type(error).__name__}: {error}"
    return record


def _facts(case: Case, limits: Limits) -> dict[str, Any]:
    """Return what is known of a case before it runs."""
    entry = case.entry
    return {
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


def _measure(
    case: Case, budget: float, n_threads: int, catalogue: Any, record: dict[str, Any], compiled_s: float
) -> None:
    calls = _Calls.of(case, n_threads)
    first = _first_calls(calls)
    timings = _time_whole(calls, first, 0.7 * budget)
    loop = _time_loop(case, calls, budget)
    timings["loops"] = loop.timing
    errors, whole = _errors(case, calls, first, loop, budget, catalogue)

    for name in ("loops", "vectorized", "vectorized_all", "compiled_1", "compiled_all", "compiled_out"):
        if name in timings:
            timing = timings[name]
            record["tiers"][name] = {
                **asdict(timing),
                "throughput": record["work"] / timing.seconds,
                "error": _number(errors.get(name)),
            }
    record["tiers"]["loops"]["timed_size"] = _named(case.entry, loop.size)
    record["tiers"]["loops"]["scaled"] = loop.scale != 1.0
    record["errors_checked_on"] = "the whole" if whole else "a part"
    record["first_call"] = {
        "seconds": compiled_s
        + sum(max(0.0, seconds - timings[name].seconds) for name, seconds in first.seconds.items()),
        "source": "compiled" if compiled_s else first.source,
    }
    record["agrees"] = all(error <= 1 for error in errors.values())
    _add_speedups(record, timings)


def _first_calls(calls: _Calls) -> _First:
    """Call each tier once on the whole."""
    seconds, results = {}, {}
    before = _cache_counts()
    for name in ("compiled_1", "compiled_all"):
        seconds[name], results[name] = once(calls.bind(name, calls.inputs))
    source = _source(before, _cache_counts())
    results["vectorized"] = once(calls.bind("vectorized", calls.inputs))[1]
    return _First(results, seconds, source)


def _time_whole(calls: _Calls, first: _First, budget: float) -> dict[str, Timing]:
    """Time all tiers but the loop on the whole, in turns."""
    inputs, n_threads = calls.inputs, calls.n_threads
    ways = {name: Way(calls.bind(name, inputs)) for name in ("vectorized", "compiled_1", "compiled_all")}
    if n_threads == 1:
        del ways["compiled_all"]
    result = first.results["compiled_1"]
    if isinstance(result, np.ndarray) and "out" in inspect.signature(calls.tiers["compiled"]).parameters:
        ways["compiled_out"] = Way(calls.bind("compiled_1", inputs, out=np.empty_like(result)))
        ways["compiled_out"].call()
    # Last in each round, because BLAS threads linger.
    if uses_several_threads(calls.bind("vectorized", inputs), n_threads):
        ways["vectorized_all"] = Way(calls.bind("vectorized", inputs), blas_threads=n_threads)
    timings = take_turns(ways, budget)
    # NumPy without BLAS has one thread only, and so has a machine with one CPU.
    timings.setdefault("vectorized_all", timings["vectorized"])
    timings.setdefault("compiled_all", timings["compiled_1"])
    return timings


def _time_loop(case: Case, calls: _Calls, budget: float) -> _Loop:
    """Time the loop on its part, and on the whole only if that is affordable."""
    part_s, result = once(calls.bind("loops", calls.part))
    scale = case.entry.work(case.size) / case.entry.work(case.loop_size)
    size, arguments = case.loop_size, calls.part
    if size != case.size and part_s * scale <= 0.15 * budget:
        part_s, result = once(calls.bind("loops", calls.inputs))
        scale, size, arguments = 1.0, case.size, calls.inputs
    readings = [part_s]
    while len(readings) < 5 and sum(readings) + part_s < 0.1 * budget:
        readings.append(once(calls.bind("loops", arguments))[0])
    loop = Timing.of(readings)
    timing = Timing(loop.seconds * scale, loop.best * scale, loop.spread, loop.readings)
    return _Loop(timing, scale, arguments, size, result)


def _errors(
    case: Case, calls: _Calls, first: _First, loop: _Loop, budget: float, catalogue: Any
) -> tuple[dict[str, float], bool]:
    """Compare every tier with the truth on the part, and on the whole too where the reference is affordable there.

    Returns the errors in units of the bound, and whether the whole was looked at.
    """
    entry, dtype = case.entry, case.dtype
    part_truth_s, truth = once(lambda: entry.reference(calls.part))
    looped_whole = loop.arguments is calls.inputs
    errors = {"loops": 0.0 if looped_whole else catalogue.check(entry, loop.result, truth, dtype)}
    for name in ("vectorized", "compiled_1", "compiled_all"):
        errors[name] = catalogue.check(entry, calls.bind(name, calls.part)(), truth, dtype)
    whole = case.loop_size == case.size
    if not whole and part_truth_s * entry.work(case.size) / entry.work(case.loop_size) <= 0.3 * budget:
        whole = True
        truth = entry.reference(calls.inputs)
    if whole:
        results = first.results | ({"loops": loop.result} if looped_whole else {})
        for name, result in results.items():
            errors[name] = _worst(errors[name], catalogue.check(entry, result, truth, dtype))
    elif looped_whole:
        errors["loops"] = catalogue.check(entry, calls.bind("loops", calls.part)(), truth, dtype)
    return errors, whole


def _add_speedups(record: dict[str, Any], timings: Mapping[str, Timing]) -> None:
    """Say by how much each tier is faster than another, and with how many threads it is not."""
    record["speedups"] = {
        name: timings[slow].seconds / timings[fast].seconds for name, (slow, fast) in SPEEDUPS.items()
    }
    record["slower_than_vectorized"] = [
        threads
        for threads, name in (("1", "compiled_1_over_vectorized"), ("all", "compiled_all_over_vectorized_all"))
        if record["speedups"][name] < 1
    ]


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
