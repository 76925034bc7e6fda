"""A cache folder that holds one kernel, kernels made in a test, and a pool of threads of its own."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cache_probe import is_right, probe
from fastml.kernels.runtime import jit, parallel


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> Path:
    """A cache folder that holds the probe's kernel."""
    cache = tmp_path_factory.mktemp("filled")
    found = probe(cache)
    assert is_right(found)
    assert (found["hits"], found["misses"]) == (0, 1)
    return cache


@pytest.fixture
def copy_of_filled(filled, tmp_path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "cache"))


@pytest.fixture
def made_up(monkeypatch, tmp_path) -> Callable[..., ModuleType]:
    """A function that runs a source as a module, as another process would do it again; its kernels are kept apart."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "made-up"))

    def run(source: str, name: str = "made_up") -> ModuleType:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        before = len(jit.KERNELS)
        exec(compile(source, f"{name}.py", "exec"), module.__dict__)
        del jit.KERNELS[before:]
        return module

    return run


@pytest.fixture
def fresh_pool(monkeypatch):
    """A pool of which no thread has been started.

    A helper of an earlier test may have been asked and not have begun yet: it goes back to the pool it is from.
    """
    earlier, pool = set(threading.enumerate()), parallel._pool

    class FreshPool(list):
        def append(self, inbox):
            if threading.current_thread() in earlier:
                pool.append(inbox)
            else:
                super().append(inbox)

    monkeypatch.setattr(parallel, "_pool", FreshPool([None] * parallel._POOL_THREADS))
