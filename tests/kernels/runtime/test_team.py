"""How threads meet on a board: nobody goes on before all are there, whoever comes late, or never."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from fastml.kernels.runtime import jit, team

pytestmark = pytest.mark.needs_jit

#: More than any sum of shares.
MANY = 10**12


@jit.inner
def work(board, thread, rounds, most, shares, sums, place):  # type: ignore[no-untyped-def]
    """Add up in each round what all members have; `place` is round, members, step of the round, whether it began."""
    number, members, step, begun = place
    if thread > 0 and begun == 0:
        team.come(board, thread)
        number, members, _ = team.taken_in(board, thread)
        if number < 0:
            return team.is_closed(board)
        place[0], place[1], place[3] = number, members, 1
    while number < rounds:
        if step == 0:
            shares[number % 2, thread] = number * (thread + 1)
            team.write_mark(board, thread, number, members, most)
            place[2] = 1
        if not team.shared(board, thread, number, members):
            return team.is_closed(board)
        for member in range(members):
            sums[number, thread] += shares[number % 2, member]
        sums[number, thread] += MANY * members
        more = team.members_of(board, number)
        if thread == 0 and more > members:
            team.begin(board, number + 1, 7)
        if thread >= more:
            return True
        number, members, step = number + 1, more, 0
        place[0], place[1], place[2] = number, members, step
    return True


def run(threads: int, rounds: int, most: int, late: float = 0.0, missing: int | None = None) -> np.ndarray:
    """Return the sums (rounds, threads) that each thread found."""
    board = team.new_board()
    team.reset(board)
    shares, sums = np.zeros((2, threads), np.int64), np.zeros((rounds, threads), np.int64)

    def thread_work(thread: int) -> None:
        if thread:
            time.sleep(late)
        place = np.array((0, 1, 0, 0))
        while not work(board, thread, rounds, most, shares, sums, place):
            time.sleep(0)
        if thread == 0:
            team.leave(board)

    crew = [threading.Thread(target=thread_work, args=(t,)) for t in range(1, threads) if t != missing]
    for each in crew:
        each.start()
    thread_work(0)
    for each in crew:
        each.join(20)
        assert not each.is_alive()
    return sums


def check(sums: np.ndarray) -> np.ndarray:
    """Every member of a round found the same sum, of all members; return the members of each round."""
    members = sums[:, 0] // MANY
    for number, row in enumerate(sums):
        count = members[number]
        expected = MANY * count + number * count * (count + 1) // 2
        assert row[:count].tolist() == [expected] * count
        assert not row[count:].any()
    return members


work(team.new_board(), 0, 0, 1, np.zeros((2, 1), np.int64), np.zeros((0, 1), np.int64), np.array((0, 1, 0, 0)))


@pytest.mark.parametrize("rounds", [1, 2, 1000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
def test_members_of_a_round_see_what_all_have_done(threads, rounds):
    members = check(run(threads, rounds, threads))
    assert members[0] == 1
    assert (np.diff(members) >= 0).all()
    assert set(members) <= {1, 2, 4, 8}
    assert members.max() <= threads


def test_helpers_are_taken_in_sooner_or_later():
    for attempt in range(20):
        if check(run(2, 20_000 << min(attempt, 5), 2)).max() == 2:
            return
    pytest.fail("a helper that was there from the start was never taken in")


@pytest.mark.slow
def test_helpers_that_come_late():
    check(run(4, 300_000, 4, late=0.01))


def test_helpers_that_never_come():
    assert check(run(4, 20_000, 4, missing=1)).max() == 1
    assert check(run(4, 2000, 4, missing=3)).max() <= 2


def test_no_more_members_than_wanted():
    assert check(run(4, 20_000, 1)).max() == 1
    assert check(run(4, 2000, 2)).max() <= 2


def test_marks_of_different_threads_lie_in_different_cache_lines():
    board = team.new_board()
    assert board.ctypes.data % 64 == 0
    assert len(board) >= 8 * (team.MEMBERS + 2)
