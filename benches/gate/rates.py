"""How often the gate is wrong: from recorded pairs of identical sides.

A recorded pair is one pair of processes on two environments that were built from one revision, with all benchmarks in
it. A simulated gate draws whole pairs, with replacement, for its screening and for its confirmation, and decides by the
very functions of `decision`. Whole pairs, because what disturbs a machine disturbs several benchmarks at a time. As
the sides are the same, either may be the head: every other gate takes the other one. A planted slowdown multiplies the
head's times of one kernel, or of one benchmark.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..history.record import kernel_of
from ..measuring.documents import write_text
from . import environments
from .cases import OF_THREADS
from .comparing import default_jobs, plan, warm
from .decision import RULE, Rule, confirmed, suspected
from .environments import GateError
from .rounds import compact, expand, measure_pair, samples
from .run import installed

__all__ = ["Rate", "bounds", "false_alarms", "power", "read", "record", "table", "write"]

SCHEMA = 1
GATES = 1_000
FACTORS = (1.1, 1.15, 1.2, 1.3, 1.5)
LEAST_PAIRS = 20
#: The slowdown for which benchmarks that are hard to find are listed.
HARD = 1.3

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Rate:
    """How many of so many gates."""

    times: int
    gates: int

    def __str__(self) -> str:
        low, high = bounds(self.times, self.gates)
        return f"{100 * self.times / self.gates:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def bounds(times: int, gates: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson for a share.

    >>> low, high = bounds(0, 1000)
    >>> low, round(high, 5)
    (0.0, 0.00368)
    """
    tail = (1 - confidence) / 2

    def at_most(k: int, p: float) -> float:
        if p in (0.0, 1.0):
            return float(p == 0 or k >= gates)
        logs = [
            math.lgamma(gates + 1) - math.lgamma(i + 1) - math.lgamma(gates - i + 1)
            + i * math.log(p) + (gates - i) * math.log1p(-p)
            for i in range(k + 1)
        ]  # fmt: skip
        return math.fsum(map(math.exp, logs))

    # Both bounds are where a tail of the binomial distribution is that small.
    low = 0.0 if times == 0 else _root(lambda p: 1 - at_most(times - 1, p) > tail)
    high = 1.0 if times == gates else _root(lambda p: at_most(times, p) < tail)
    return low, high


def _root(beyond: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


def false_alarms(values: Array, rule: Rule = RULE, *, gates: int = GATES, seed: int = 0) -> Rate:
    """Simulate gates on identical sides and count those that say slower."""
    random = np.random.default_rng(seed)
    times = sum(bool(_gate(_side(gate) * values, random, rule, None, 1.0).any()) for gate in range(gates))
    return Rate(times, gates)


def power(
    values: Array,
    planted: list[list[int]],
    factor: float,
    rule: Rule = RULE,
    *,
    gates: int = GATES,
    seed: int = 0,
) -> Rate:
    """Simulate gates with one slowdown planted and count those that find it.

    Parameters
    ----------
    values : ndarray
        Log ratios of identical pairs, (pairs, benchmarks).
    planted : list of list of int
        What may be slowed down, as columns of `values`; every gate takes one of them, in turn.
    factor : float
    rule : Rule
    gates, seed : int
    """
    random = np.random.default_rng(seed)
    times = 0
    for gate in range(gates):
        turn, which = divmod(gate, len(planted))
        columns = planted[which]
        times += bool(_gate(_side(turn) * values, random, rule, columns, factor)[columns].any())
    return Rate(times, gates)


def _side(turn: int) -> int:
    """Return by what log ratios are multiplied so that one side is the head, or the other."""
    return 1 if turn % 2 == 0 else -1


def _gate(values: Array, random: np.random.Generator, rule: Rule, columns: list[int] | None, factor: float) -> Array:
    """Decide one simulated gate; return which benchmarks are slower."""
    shift = np.zeros(values.shape[1])
    if columns is not None:
        shift[columns] = math.log(factor)
    drawn = values[random.integers(len(values), size=rule.least_pairs)] + shift
    suspects = np.flatnonzero(suspected(drawn, rule))
    slower = np.zeros(values.shape[1], bool)
    if len(suspects):
        again = values[random.integers(len(values), size=rule.confirming_pairs)][:, suspects] + shift[suspects]
        slower[suspects] = confirmed(again, rule)
    return slower


# -- recorded pairs --------------------------------------------------------------------------------


def read(folder: Path) -> tuple[list[str], list[str], Array, list[dict[str, Any]]]:
    """Read all recorded pairs: names of the benchmarks, their kernels, log ratios, and what else the files say."""
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    if not documents:
        raise GateError(f"{folder} holds no recorded pairs; python -m benches gate-record makes them")
    for document in documents:
        if document["schema"] != SCHEMA:
            raise GateError(f"a recorded pair has schema {document['schema']!r}, this version reads {SCHEMA}")
    # Benchmarks that came later are in some pairs only; what is drawn must be in all.
    names = sorted(set.intersection(*(set(document["rounds"]) for document in documents)))
    if not names:
        raise GateError(f"the pairs in {folder} have no benchmark in common")
    pairs = [expand(document["rounds"]) for document in documents]
    return names, [kernel_of(name) for name in names], samples(pairs, names), documents


def record(
    repository: Path, revision: str, folder: Path, cache: Path, pairs: int, only: str | None, say: Callable[[str], None]
) -> None:
    """Record identical pairs, one file each, numbered on from what is there; may be ended at any time."""
    from fastml.cli import info

    scratch = Path(tempfile.mkdtemp(prefix="fastml-gate-"))
    try:
        base_env, head_env = (
            environments.build(name, revision, repository, scratch / name, cache / name) for name in ("base", "head")
        )
        sides = installed(base_env, head_env)
        outcome = plan(sides[1], None, None, only)
        names = [found.name for found in outcome.found]
        for side, answers in zip(sides, warm(sides, outcome.found, default_jobs(), say), strict=True):
            failed = [name for name, answer in answers.items() if "failed" in answer]
            if failed:
                raise GateError(f"the {side.name} fails at {', '.join(failed)}")
        machine = info.collect()
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [
            int(found[1]) for file in folder.glob("*.json") if (found := re.fullmatch(r"(\d+)\.json", file.name))
        ]
        first = max(numbers, default=0) + 1
        for number in range(first, first + pairs):
            began = time.monotonic()
            pair = measure_pair(*sides, names, number)
            document = {
                "schema": SCHEMA,
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "commit": head_env.commit,
                "machine": {"cpu": machine["cpu"]["model"], "python": machine["python"], **machine["packages"]},
                "threads": sides[0].n_threads,
                "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
                "seconds": round(time.monotonic() - began, 1),
                "rounds": compact(pair),
            }
            write(document, folder / f"{number:03d}.json")
            say(f"{number:03d}.json: {document['seconds']} s, load {document['load_average']}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write(document: dict[str, Any], file: Path) -> None:
    """Write one benchmark a line, so that git and a reader can do something with it."""
    rounds = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(values, separators=(',', ':'))}"
        for name, values in document["rounds"].items()
    )
    head = json.dumps({key: value for key, value in document.items() if key != "rounds"}, separators=(",", ":"))
    write_text(f'{head[:-1]},\n "rounds": {{\n{rounds}\n}}}}\n', file)


def table(folder: Path, rule: Rule = RULE, *, gates: int = GATES) -> str:
    """Simulate everything and lay the rates out."""
    names, kernels, values, documents = read(folder)
    if len(values) < LEAST_PAIRS:
        note = f"{len(values)} pairs are too few to believe any of this; {LEAST_PAIRS} are the least\n"
    else:
        note = ""
    by_kernel: dict[str, list[int]] = {}
    for column, kernel in enumerate(kernels):
        by_kernel.setdefault(kernel, []).append(column)
    single = [[column] for column in range(len(names))]
    commits = sorted({document["commit"][:10] for document in documents})
    cpus = sorted({document["machine"]["cpu"] for document in documents})
    spread = np.exp(np.std(values, axis=0)) - 1
    lines = [
        f"{note}{len(values)} identical pairs of {len(names)} benchmarks of {len(by_kernel)} kernels and models",
        f"recorded at {', '.join(commits)} on {', '.join(cpus)}",
        f"ratios of a pair spread by {100 * np.median(spread):.1f} % (median benchmark) to {100 * spread.max():.1f} %",
        f"{gates:,} simulated gates each, {rule.least_pairs} pairs and {rule.confirming_pairs} to confirm; "
        "in brackets, 95 % intervals",
        "",
        f"false alarms of the whole gate         {false_alarms(values, rule, gates=gates)}",
    ]
    for factor in FACTORS:
        in_kernel = power(values, list(by_kernel.values()), factor, rule, gates=gates)
        in_one = power(values, single, factor, rule, gates=gates)
        lines.append(f"found: {factor:<4g} times slower, one kernel     {in_kernel}")
        lines.append(f"found: {factor:<4g} times slower, one benchmark  {in_one}")
    random = np.random.default_rng(0)
    drawn = (values[random.integers(len(values), size=rule.least_pairs)] for _ in range(gates))
    suspects = np.mean([suspected(_side(gate) * some, rule).sum() for gate, some in enumerate(drawn)])
    weak = hard_to_find(values, rule)
    of_threads = sum(names[column].endswith(OF_THREADS) for column in weak)
    lines += [
        f"run again though nothing is slower: {suspects:.1f} benchmarks a gate",
        "",
        f"by itself, {HARD:g} times slower, found in less than 95 % of the gates: {len(weak)} of {len(names)} "
        f"benchmarks, {of_threads} of them on all threads; the hardest:",
        *(f"  {rate}  {names[column]}" for column, rate in [*weak.items()][:10]),
    ]
    return "\n".join(lines)


def hard_to_find(values: Array, rule: Rule = RULE, *, gates: int = 200, seed: int = 0) -> dict[int, Rate]:
    """Return the benchmarks whose slowdown by `HARD` is found in less than 95 % of the gates, the hardest first."""
    found = [power(one[:, None], [[0]], HARD, rule, gates=gates, seed=seed) for one in values.T]
    hard = {column: rate for column, rate in enumerate(found) if rate.times < 0.95 * gates}
    return dict(sorted(hard.items(), key=lambda item: item[1].times))
