"""Whether "auto" goes the faster way: data sets that are what they say, and a command that names what is slower."""

from __future__ import annotations

import numpy as np
import pytest

from benches import __main__ as command
from benches.searches import data_sets
from fastml.kernels import k_nearest


@pytest.mark.parametrize("name", data_sets.DATA_SETS)
def test_rows_are_drawn_anew_and_the_same_each_time(name):
    X, Y = data_sets.make(name, 30, 50)
    again = data_sets.make(name, 30, 50)
    assert X.dtype == Y.dtype == np.float32
    assert (len(X), len(Y), X.shape[1]) == (30, 50, Y.shape[1])
    assert np.isfinite(X).all()
    assert not np.array_equal(X, Y[:30])
    assert all(np.array_equal(a, b) for a, b in zip((X, Y), again, strict=True))


@pytest.fixture
def planted(monkeypatch):
    """Ways that take as long as is said, by a clock that only they move."""
    clock, seconds = [0.0], {"auto": 0.02, "brute": 0.03, "tree": 0.02}
    monkeypatch.setattr("benches.measuring.timing.time.perf_counter", lambda: clock[0])

    def search(X, Y, k, *, algorithm):
        clock[0] += seconds[algorithm]
        return k_nearest(X, Y, k)

    monkeypatch.setattr("fastml.kernels.k_nearest", search)
    return seconds


def test_the_command_names_where_the_choice_is_slower(planted, capsys):
    small = ["searches", "--only", "whole", "--queries", "20", "--rows", "40", "--seconds", "0.5"]
    assert command.main(small) == 0
    planted["auto"] = 0.03
    assert command.main(small) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-2].endswith("1.50  slower")
    assert out[-1].startswith("1 of 1 beyond 1.1")
    assert command.main(["searches", "--only", "nothing"]) == 2
    assert command.main([*small, "--queries", "0"]) == 2


def test_the_command_names_results_that_differ(planted, monkeypatch, capsys):
    import fastml.kernels

    right = fastml.kernels.k_nearest

    def search(X, Y, k, *, algorithm):
        distances, indices = right(X, Y, k, algorithm=algorithm)
        return distances, indices + (algorithm == "tree")

    monkeypatch.setattr("fastml.kernels.k_nearest", search)
    assert (
        command.main(["searches", "--only", "uniform, 2", "--queries", "20", "--rows", "40", "--seconds", "0.5"]) == 1
    )
    assert "results differ" in capsys.readouterr().out
