"""Under a progress bar nothing is said of the compiler, and where no bar is seen it is."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from fastml.training import progress
from fastml.training.batches import Batches


@pytest.fixture
def silences(monkeypatch) -> list[bool]:
    """Whether each silence that has begun, and not ended, is one."""
    found = []

    @contextmanager
    def silent(when):
        found.append(when)
        yield
        found.remove(when)

    monkeypatch.setattr(progress, "silent", silent)
    return found


def test_the_bar_of_a_run_keeps_the_compiler_silent(silences, capsys):
    batches = Batches(4, 2, "sequential", False, np.random.default_rng(0))
    with progress.Progress(2, batches, "title"):
        assert silences == [True]
    assert silences == []


@pytest.mark.parametrize("shown", [True, False])
def test_the_bar_of_a_sweep_does_where_it_is_shown(silences, capsys, shown):
    with progress.SweepProgress(2, shown):
        assert silences == [shown]
    assert silences == []


def test_an_error_ends_the_silence(silences, capsys):
    with pytest.raises(KeyError), progress.SweepProgress(2, True):
        raise KeyError
    assert silences == []
