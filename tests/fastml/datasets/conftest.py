"""Where the readers look for data, and how much memory they take."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from fastml import datasets


@pytest.fixture(autouse=True)
def _no_environment(request, monkeypatch):
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get(datasets.DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{datasets.DATA_VARIABLE} is not set: no real data at hand")
    return Path(folder)


@pytest.fixture
def peak_bytes() -> Callable[..., int]:
    """``peak_bytes(call)``: the most memory that a call has in use, which ends with ValueError."""

    def measure(call: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"more than|longer than|at most"):
                call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure
