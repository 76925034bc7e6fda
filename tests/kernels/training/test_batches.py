"""How a training's compiled loop is called: the order of rows, the size of a team, calls until all is done."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastml.kernels.training import batches
from fastml.kernels.training.batches import WAITING, WORKING, checked_order, team_size, until_done


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
    assert team_size(asked, most, seconds=1) == size


def test_small_work_is_done_by_one_unless_the_caller_says_otherwise(monkeypatch):
    monkeypatch.setattr(batches, "jit_enabled", lambda: True)
    monkeypatch.setattr(batches.parallel, "default", lambda: (4, "this test"))
    monkeypatch.setattr(batches, "_past", batches._Past())
    monkeypatch.setattr(batches.parallel, "_losses", batches.parallel._Losses())
    assert team_size(None, 8, seconds=1e-4) == 1
    assert team_size(None, 8, seconds=1) == 4
    assert team_size(2, 8, seconds=1e-4) == 2


def test_without_compilation_there_is_no_team(monkeypatch):
    monkeypatch.setattr(batches, "jit_enabled", lambda: False)
    assert team_size(8, 8, seconds=1) == 1


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for naps, and a process that remembers no team."""

    class Clock:
        def __init__(self) -> None:
            self.now, self.naps = 0.0, []

        def sleep(self, seconds: float) -> None:
            self.naps.append(seconds)
            self.now += seconds

        def perf_counter(self) -> float:
            return self.now

        monotonic = perf_counter

    clock = Clock()
    monkeypatch.setattr(batches, "time", clock)
    monkeypatch.setattr(batches, "_past", batches._Past())
    monkeypatch.setattr(batches.parallel, "_losses", batches.parallel._Losses())
    return clock


def calls(state, stages, *, leads=True, moves=False, first=0.02):
    """Return what `state[1]`, the most members, was at each call that came back with one of some stages.

    The first one takes `first` seconds.
    """
    seen = []

    def call() -> bool:
        if not seen:
            batches.time.now += first
        seen.append(int(state[1]))
        if len(seen) > len(stages):
            return True
        state[0] = stages[len(seen) - 1]
        state[2] += moves
        return False

    assert sum(1 for _ in until_done(call, state, 0, 1, leads=leads)) == len(stages), "Python runs in between"
    return seen


def test_who_works_is_called_again_at_once(clock):
    state = np.array([WORKING, 4, 0])
    assert calls(state, [WORKING] * 100) == [4] * 101
    assert clock.naps == []


def test_who_waits_looks_a_few_times_and_then_sleeps_longer_and_longer(clock):
    calls(np.array([WORKING, 4, 0]), [WAITING] * 20, leads=False)
    assert 10 < len(clock.naps) < 20
    assert all(short <= long for short, long in itertools.pairwise(clock.naps))
    assert clock.naps[0] < clock.naps[-1] <= 1e-3


def test_nobody_sleeps_for_long_in_a_short_call(clock):
    """It does not end before all are awake."""
    calls(np.array([WORKING, 4, 0]), [WAITING] * 20, leads=False, first=5e-4)
    assert len(clock.naps) > 10
    assert max(clock.naps) == 0


def test_each_wait_begins_with_looks(clock):
    calls(np.array([WORKING, 4, 0]), [WAITING] * 20, moves=True)
    assert clock.naps == []


def test_a_leader_that_loses_time_goes_on_alone(clock):
    seen = calls(np.array([WORKING, 4, 0]), [WAITING] * 50)
    assert (seen[0], seen[-1]) == (4, 1)
    assert sum(clock.naps[: seen.index(1)]) < 5e-3
    assert calls(np.array([WORKING, 4, 0]), [WAITING] * 50, leads=False) == [4] * 51, "others may wait"


def test_a_nap_from_which_the_system_does_not_wake_one_is_lost(clock):
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + 0.01)
    state = np.array([WORKING, 4, 0])
    assert calls(state, [WAITING] * 6)[-1] == 1


def test_time_that_a_long_call_can_spare_is_no_reason(clock):
    state, passing = np.array([WORKING, 4, 0]), iter(range(10**6))

    def call() -> bool:
        clock.now += 0.01
        state[:] = WAITING if next(passing) % 2 else WORKING, state[1], clock.now * 1e3
        return clock.now > 1

    for _ in until_done(call, state, 0, 1, leads=True):
        pass
    assert state[1] == 4


@pytest.mark.needs_jit
def test_after_a_loss_there_is_no_team_for_a_while(clock, monkeypatch):
    monkeypatch.setattr(batches.parallel, "default", lambda: (4, "this test"))
    pauses = []
    for _ in range(10):
        assert team_size(None, 8, seconds=1) == 4
        calls(np.array([WORKING, 4, 0]), [WAITING] * 50)
        begin = clock.now
        assert team_size(2, 8, seconds=1) == 2, "whoever asks for a team gets it"
        while team_size(None, 8, seconds=1) == 1:
            clock.now += 0.01
        pauses.append(round(clock.now - begin, 1))
    assert all(short <= long for short, long in itertools.pairwise(pauses))
    assert 0.1 < pauses[0] < 1 < 10 < pauses[-1] < 30
    for _ in range(10):
        state = np.array([WORKING, 4, 0])
        for _ in until_done(lambda state=state: state[2] > 5, state, 0, 1, leads=True):
            clock.now, state[2] = clock.now + 0.1, state[2] + 1
    calls(np.array([WORKING, 4, 0]), [WAITING] * 50)
    begin = clock.now
    while team_size(None, 8, seconds=1) == 1:
        clock.now += 0.01
    assert clock.now - begin < 1, "teams that kept together make up for those that did not"
