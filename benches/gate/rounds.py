"""Pairs of processes, one per side, that take turns: where the readings come from.

Within a pair every benchmark is read in the order base, head, head, base (the next pair begins with the head), so that
a drift of the machine hits both alike. One process works while the other waits for its next line. The order of the
benchmarks is another one in every pair.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import math
import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from .cases import OF_THREADS
from .decision import log_ratio
from .environments import Environment, GateError

__all__ = [
    "InstalledSide",
    "Pair",
    "Process",
    "Reading",
    "Side",
    "ask",
    "compact",
    "expand",
    "first_calls",
    "measure_pair",
    "samples",
]

#: A reading is at least this long; shorter calls are repeated.
READING_S = 1e-3
#: How often a pair reads base, head, head, base: one thread, and several, which wait for one another and are noisier.
QUADS, QUADS_OF_THREADS = 2, 5
#: A worker that says nothing for so long is given up. Compiling a kernel takes up to a minute on a busy machine.
PATIENCE_S = 300.0
_WORKER = Path(__file__).with_name("worker.py")
_SETTINGS = ("FASTML_", "NUMBA_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "KMP_", "PYTHON")


class Process(Protocol):
    """A worker, as its parent sees it."""

    def send(self, request: dict[str, Any]) -> None: ...

    def receive(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Side(Protocol):
    """What starts workers."""

    @property
    def name(self) -> str: ...

    def start(self) -> Process: ...


@dataclass(frozen=True)
class Reading:
    """Seconds per call on both sides, in the order of time; how wrong the head's result is, if that was asked for."""

    repeat: int
    base: list[float]
    head: list[float]
    error: float | None = None


#: One pair of processes: benchmark -> readings.
Pair = dict[str, Reading]


@dataclass(frozen=True)
class InstalledSide:
    """A side in an environment of its own; `catalogue` is the folder of kernels whose catalogue is measured.

    `held` has the variables that hold its workers to a target.
    """

    environment: Environment
    catalogue: Path
    n_threads: int
    held: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.environment.name

    def start(self) -> Process:
        return _Subprocess(self)


class _Subprocess:
    def __init__(self, side: InstalledSide) -> None:
        self._name = side.name
        self._doing = "starting"
        environ = {key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS)}
        environ |= {
            "NUMBA_CACHE_DIR": str(side.environment.cache),
            # Models call BLAS; idle threads of it would spin beside the other side's turn.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            **side.held,
        }
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        command = [str(side.environment.python), "-I", "-B", str(_WORKER)]
        self._process = subprocess.Popen(
            [*command, str(side.environment.site), str(side.catalogue), str(side.n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env=environ,
            cwd=side.environment.site,
        )

    def send(self, request: dict[str, Any]) -> None:
        self._doing = f"{request['do']} {request.get('benchmark', '')}".strip()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a dead process is noticed when its answer is missing
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # A blocked read cannot be given a time, but the process that it waits for can.
        watchdog = threading.Timer(PATIENCE_S, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise GateError(f"the worker of the {self._name} died ({self._doing}): {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def ask(process: Process, **request: Any) -> dict[str, Any]:
    """Send one request and wait for its answer."""
    process.send(request)
    return process.receive()


def first_calls(
    sides: Sequence[Side],
    groups: Sequence[Sequence[str]],
    *,
    jobs: int,
    check: Sequence[Side] = (),
    tick: Callable[[], object] = lambda: None,
) -> list[dict[str, dict[str, Any]]]:
    """Call every benchmark once on every side, which fills the caches; return the answers by benchmark, for each side.

    Parameters
    ----------
    sides : sequence of Side
        One after the other: where two have the same kernels and one cache, the second finds what the first compiled.
    groups : sequence of sequence of str
        Benchmarks that share machine code, which two processes would both compile.
    jobs : int
        How many processes work at a time; each takes the next group when it is done with one.
    check : sequence of Side
        Whose results are compared with the truth.
    tick : callable
        Called after every benchmark.
    """
    answers: list[dict[str, dict[str, Any]]] = [{} for _ in sides]
    waiting = [collections.deque(groups) for _ in sides]

    def work() -> None:
        for side, left, found in zip(sides, waiting, answers, strict=True):
            if left:
                with contextlib.closing(side.start()) as process:
                    for name in itertools.chain.from_iterable(_taken(left)):
                        found[name] = ask(process, do="prepare", benchmark=name, check=side in check)
                        tick()

    with ThreadPoolExecutor(jobs) as pool:
        workers = [pool.submit(work) for _ in range(jobs)]
        try:
            for worker in as_completed(workers):
                worker.result()
        except BaseException:  # Ctrl-C too: nothing more begins
            for left in waiting:
                left.clear()
            raise
    return answers


def _taken(waiting: collections.deque[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Take one after the other, while others do the same."""
    while True:
        try:
            yield waiting.popleft()
        except IndexError:
            return


def measure_pair(base: Side, head: Side, names: Sequence[str], number: int, *, check: bool = False) -> Pair:
    """Start a process on each side, read all benchmarks in turns, and end both.

    Parameters
    ----------
    base, head : Side
    names : sequence of str
        Benchmarks that both sides have.
    number : int
        Which pair it is: the order of everything follows from it.
    check : bool
        Compare the head's results with the truth too.
    """
    order = list(names)
    random.Random(number).shuffle(order)
    # Both start at a time: loading the code takes seconds and is not timed.
    with ThreadPoolExecutor(2) as pool:
        processes = list(pool.map(lambda side: side.start(), (base, head)))
    try:
        first, second = (0, 1) if number % 2 == 0 else (1, 0)
        quad = [first, second, second, first]
        return {name: _read(processes, name, quad * _quads(name), check) for name in order}
    finally:
        for process in processes:
            process.close()


def _quads(name: str) -> int:
    return QUADS_OF_THREADS if name.endswith(OF_THREADS) else QUADS


def _read(processes: list[Process], name: str, turns: list[int], check: bool) -> Reading:
    # Both check, though only the head's error counts: what a check leaves in memory must not tell the sides apart.
    for process in processes:
        process.send({"do": "prepare", "benchmark": name, "check": check})
    error = [_sound(process.receive(), name) for process in processes][1].get("error")
    # The first readings settle how often a short call is repeated in the others; the same for both sides.
    once = max(min(_seconds(process, name, 1) for _ in range(2)) for process in processes)
    repeat = max(1, math.ceil(READING_S / max(once, 1e-7)))
    readings: tuple[list[float], list[float]] = ([], [])
    for turn in turns:
        readings[turn].append(_seconds(processes[turn], name, repeat))
    return Reading(repeat, *readings, error)


def _seconds(process: Process, name: str, repeat: int) -> float:
    return float(_sound(ask(process, do="time", repeat=repeat), name)["seconds"])


def _sound(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an answer; what ran before and now fails leaves nothing to compare."""
    for problem in ("failed", "missing"):
        if problem in answer:
            raise GateError(f"{name}: {answer[problem]}")
    return answer


def compact(pair: Pair) -> dict[str, list[Any]]:
    """Return the raw readings of a pair as ``name: [repeat, base, head]``, in microseconds with four digits."""

    def micro(readings: list[float]) -> list[float]:
        return [float(f"{1e6 * reading:.4g}") for reading in readings]

    return {name: [reading.repeat, micro(reading.base), micro(reading.head)] for name, reading in pair.items()}


def expand(rounds: dict[str, list[Any]]) -> Pair:
    """Undo `compact`."""
    return {
        name: Reading(repeat, [1e-6 * value for value in base], [1e-6 * value for value in head])
        for name, (repeat, base, head) in rounds.items()
    }


def samples(pairs: Sequence[Pair], names: Sequence[str]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the log ratios, (pairs, benchmarks); NaN where a pair lacks a benchmark."""
    result = np.full((len(pairs), len(names)), np.nan)
    for row, pair in zip(result, pairs, strict=True):
        for i, name in enumerate(names):
            if name in pair:
                row[i] = log_ratio(np.array(pair[name].base), np.array(pair[name].head))
    return result
