"""A cache folder that holds one kernel."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cache_probe import is_right, probe


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
