"""What the benchmarks share: the working tree's catalogue and models, called on the fastml that is installed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def _load(name: str, file: Path) -> ModuleType:
    """Import a file under the name given."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cases = _load("fastml_gate_cases", ROOT / "benches" / "gate" / "cases.py")
catalogue = cases.load_catalogue(ROOT / "kernels")


class Settings:
    """How asv times: few rounds in two processes, nothing warmed up but by `setup`."""

    version = "1"
    timeout = 600
    warmup_time = 0
    sample_time = 0.005
    rounds = 2
    repeat = (2, 7, 1.0)


@cache
def n_threads() -> int:
    """Return how many threads the kernels use by themselves."""
    for module in (
        "fastml.kernels.runtime.parallel",
        "fastml.kernels._threads",
    ):  # today's name, and that of old commits
        with contextlib.suppress(ImportError, AttributeError):
            return int(importlib.import_module(module).default()[0])
    return 1


def needed(get: Callable[[], Any]) -> Any:
    """Return what `get` finds in fastml; skip the benchmark where this commit does not have it."""
    try:
        return get()
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(str(error)) from None


def called(call: Callable[[], Any]) -> Any:
    """Call once, which compiles; a commit whose function has another signature is skipped."""
    try:
        return call()
    except TypeError as error:
        raise NotImplementedError(str(error)) from None


def warm_up(benchmark: Any) -> None:
    """Set a benchmark up with all its parameters, for `setup_cache`.

    That runs in a process of its own, so what a process that is measured needs is compiled by then. Otherwise the
    compiler's memory would be the peak.
    """
    for parameters in itertools.product(*benchmark.params):
        with contextlib.suppress(NotImplementedError):
            benchmark.setup(*parameters)


def one_blas_thread(threads: int = 1) -> Any:
    """Hold BLAS at so many threads; keep what is returned."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads, user_api="blas")
