"""A process of one side: it makes ready, calls and times what it is asked to, one line of JSON at a time.

Run with ``python -I worker.py SITE CATALOGUE THREADS`` by the interpreter of an environment; CATALOGUE is the folder of
kernels whose catalogue says what there is to measure. Imports nothing of ``benches`` but the file `cases.py` beside it.

============  =================================================  ============================================
request        does                                              answer
============  =================================================  ============================================
list           names the benchmarks, counts them another way     benchmarks: name, kernel, package; expected
prepare        makes inputs, calls once, checks if asked to      seconds of the first call, error
time           calls once, then `repeat` times with the clock    seconds of one call
quit           ends                                              none
============  =================================================  ============================================

An answer has ``failed`` where the benchmark raised, and ``missing`` where this revision does not have what it calls.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO


def load(name: str, file: Path) -> ModuleType:
    """Import a file under the name given."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Worker:
    """Holds the benchmark that is being timed."""

    def __init__(self, benchmarks: list[Any], missing: type[Exception], expected: int) -> None:
        self._benchmarks = {benchmark.name: benchmark for benchmark in benchmarks}
        self._expected = expected
        self._missing = missing
        self._prepared: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one request asks for."""
        try:
            answer: dict[str, Any] = getattr(self, f"_{request['do']}")(request)
            return answer
        except self._missing as error:
            return {"missing": str(error)}
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"}

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "benchmarks": [
                {"name": b.name, "kernel": b.kernel, "package": b.package} for b in self._benchmarks.values()
            ],
            "expected": self._expected,
        }

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        self._prepared = None  # two problems at a time would be one too many for the memory
        _collect()
        if request["benchmark"] not in self._benchmarks:
            raise self._missing(f"there is no {request['benchmark']}")
        self._prepared = self._benchmarks[request["benchmark"]].prepare()
        start = time.perf_counter()
        result = self._prepared.call()
        seconds = time.perf_counter() - start
        error = self._prepared.error(result) if request["check"] else None
        # JSON has no infinity, and NaN is as wrong as can be.
        return {"seconds": seconds, "error": None if error is None else min(error, 1e300) if error == error else 1e300}

    def _time(self, request: dict[str, Any]) -> dict[str, Any]:
        call, turns = self._prepared.call, range(request["repeat"])
        call()  # the other side had the caches in between
        start = time.perf_counter()
        for _ in turns:
            call()
        return {"seconds": (time.perf_counter() - start) / len(turns)}


def is_held(target: str) -> bool:
    """Whether the kernels are compiled for a kind of CPU: older revisions know none."""
    try:
        from fastml.kernels.runtime import cpu_kinds, jit
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("fastml"):
            raise  # what fastml stands on is not there, which is another thing
        return False
    kind = cpu_kinds.KINDS.get(target)
    return kind is not None and jit.compiled_for()[1:] == (kind.cpu, kind.features)


def _collect() -> None:
    """Collect garbage now, as it would come at times of its own; what is left stays, and is not searched again."""
    gc.collect()
    gc.freeze()


def serve(worker: Worker, requests: TextIO, answers: TextIO) -> None:
    """Answer until the requests end."""
    for line in requests:
        request = json.loads(line)
        if request["do"] == "quit":
            return
        answers.write(json.dumps(worker.answer(request)) + "\n")
        answers.flush()


def main(site: Path, catalogue: Path, n_threads: int) -> None:
    """Serve one parent."""
    # What a benchmark prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import fastml
    from fastml import kernels

    for module in (fastml, kernels):
        if site not in Path(str(module.__file__)).resolve().parents:
            raise SystemExit(f"{module.__name__} comes from {module.__file__}, which is not in {site}")
    if (target := os.environ.get("FASTML_TARGET")) and not is_held(target):
        raise SystemExit(f"this revision's fastml cannot be held to {target}")
    cases = load("gate_cases", Path(__file__).with_name("cases.py"))
    entries = cases.load_catalogue(catalogue).ENTRIES
    gc.disable()
    _collect()
    models = sum(name in fastml.__all__ for name in cases.MODELS)
    expected = cases.expected_number(entries, models, n_threads)
    serve(Worker(cases.benchmarks(entries, n_threads), cases.Missing, expected), sys.stdin, answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]), int(sys.argv[3]))
