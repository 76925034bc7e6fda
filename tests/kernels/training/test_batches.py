"""How a training's compiled loop is called: the order of rows, the size of a team, calls until all is done."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.training import batches
from fastml.kernels.training.batches import WAITING, WORKING, Patience, checked_order, team_size, until_done


def test_an_order_is_taken_as_it_is():
    order = np.array([2, 0, 2], np.intp)
    assert checked_order(order, 3) is order
    assert checked_order([], 0).size == 0
    assert checked_order(np.arange(6, dtype=np.int32)[::2], 5).tolist() == [0, 2, 4]


@pytest.mark.parametrize("order", [[3], [-1], [0, 1, 10**12]])
def test_rows_that_there_are_not_are_refused(order):
    with pytest.raises(ValueError, match=r"order has a number outside 0\.\.2; X has 3 rows"):
        checked_order(order, 3)


@pytest.mark.needs_jit
@pytest.mark.parametrize(("asked", "most", "size"), [(1, 8, 1), (3, 8, 2), (8, 8, 8), (100, 100, 8), (8, 5, 4)])
def test_a_team_is_a_power_of_two(asked, most, size):
    assert team_size(asked, most, small=False) == size


def test_small_work_is_done_by_one_unless_the_caller_says_otherwise(monkeypatch):
    monkeypatch.setattr(batches, "jit_enabled", lambda: True)
    monkeypatch.setattr(batches.parallel, "default", lambda: (4, "this test"))
    assert team_size(None, 8, small=True) == 1
    assert team_size(None, 8, small=False) == 4
    assert team_size(2, 8, small=True) == 2


def test_without_compilation_there_is_no_team(monkeypatch):
    monkeypatch.setattr(batches, "jit_enabled", lambda: False)
    assert team_size(8, 8, small=False) == 1


def test_a_loop_is_called_until_it_is_done_and_python_runs_in_between():
    answers = [False, False, True]
    state = np.array([WORKING, 4])
    assert sum(1 for _ in until_done(lambda: answers.pop(0), state, 0, 1, Patience(0, 0))) == 2
    assert answers == []
    assert state[1] == 4, "who works is not out of patience"


def test_who_waits_for_long_goes_on_alone():
    state = np.array([WAITING, 4])
    calls = []

    def call() -> bool:
        calls.append(int(state[1]))
        return len(calls) == 5

    list(until_done(call, state, 0, 1, Patience(at_once=2, per_second=0)))
    assert calls == [4, 4, 4, 1, 1]
