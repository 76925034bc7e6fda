"""A cache folder that holds one kernel, and kernels made in a test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cache_probe import is_right, probe
from fastml.kernels.runtime import jit


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
