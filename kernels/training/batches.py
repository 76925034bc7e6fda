"""Training on mini-batches, from the side of Python: what a training offers, and how its compiled loop is called.

A batch takes microseconds. So a compiled loop does many of them, and comes back a few dozen times a second, for Ctrl-C,
or where it waits for threads that have no CPU.

A team gains only while all its members run at the same time. Where other processes want the CPUs too, or a quota is
used up, each meeting lasts until the system gets round to the last of them: thousands of times what the batch takes. So
who waits gives its CPU away, and a leader that loses more time so than a team can be worth goes on alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runtime import parallel
from ..runtime.jit import jit_enabled
from ..runtime.team import MEMBERS

__all__ = ["COMING", "WAITING", "WORKING", "Trainable", "checked_order", "team_size", "until_done"]

#: What a thread of a team is doing: its share of a round, waiting for the others, or becoming a member.
WORKING, WAITING, COMING = range(3)

#: Looks at the board, of some 25 µs each (`team`), after which who waits sleeps in between, and how long, in seconds:
#: such a share of the time so far at most, for the call does not end before all are awake.
_LOOKS, _SHORTEST_NAP, _LONGEST_NAP, _NAP_SHARE = 4, 5e-5, 2.5e-4, 0.03

#: Seconds, and share of the time so far, that waits may have taken before the leader goes on alone.
_LOST_AT_ONCE, _LOST_SHARE = 1e-3, 0.1

#: What a member costs, in helpers: it needs a workspace, and has to be taken in.
_MEMBER_COST = 5

#: Seconds without teams after one that lost time: doubled each time, and halved by a team that lasted so long.
_FIRST_PAUSE, _LAST_PAUSE, _KEPT_SECONDS = 0.25, 16.0, 0.01


class Trainable(Protocol):
    """One or more models in training, with all that they need to go on."""

    @property
    def n_steps(self) -> int:
        """Batches done so far."""

    def run(self, order: ArrayLike, batch_size: int, steps: ArrayLike) -> NDArray[np.float64]:
        """Train on ``X[order[:batch_size]]``, ``X[order[batch_size:2 * batch_size]]``, …; return the batches' losses.

        Ctrl-C ends it within a fraction of a second: all is then as after the last batch that was completed.
        """

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that `run` changes."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `get_state` returned."""


def checked_order(order: ArrayLike, n: int) -> NDArray[np.intp]:
    """Return numbers of rows as a contiguous array, if X has them all."""
    numbers = np.ascontiguousarray(order, np.intp)
    if numbers.size and np.maximum.reduce(numbers.view(np.uintp)) >= n:  # negative numbers are very large ones
        raise ValueError(f"order has a number outside 0..{n - 1}; X has {n} rows")
    return numbers


def team_size(n_threads: int | None, most: int, *, seconds: float) -> int:
    """Return how many threads work on each batch, a power of two; `most` have something to do.

    Where `n_threads` says nothing, that depends on the seconds that all batches take one thread, and there is no team
    for a while after one that lost time.
    """
    allowed = parallel.resolve(n_threads, seconds=0.0 if _past.is_bad() else seconds / _MEMBER_COST)
    wanted = min(allowed, most, MEMBERS) if jit_enabled() else 1
    return 1 << (wanted.bit_length() - 1)


class _Past:
    """What this process remembers of its teams."""

    def __init__(self) -> None:
        self._until, self._pause = -math.inf, _FIRST_PAUSE

    def is_bad(self) -> bool:
        """Whether a team lost time not long ago."""
        return time.monotonic() < self._until

    def has_lost(self) -> None:
        self._until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LAST_PAUSE)

    def has_kept_together(self) -> None:
        self._pause = max(self._pause / 2, _FIRST_PAUSE)


_past = _Past()


def until_done(call: Callable[[], bool], state: NDArray[Any], stage: int, most: int, *, leads: bool) -> Iterator[None]:
    """Call a thread's compiled loop until it returns true; a task of `parallel.run`.

    ``state[stage]`` says what the thread is doing when it comes back. Where it waits, it looks again a few times, and
    then sleeps in between, longer and longer. A leader that has lost too much time sets ``state[most]``, how many
    members it may have, to one.
    """
    began = looked = time.perf_counter()
    place, looks, lost = None, 0, 0.0
    in_team = leads and state[most] > 1
    while not call():
        now = time.perf_counter()
        if state[stage] == WORKING:
            place, looks = None, 0
        elif state.tolist() != place:
            place, looks = state.tolist(), 1
        else:
            looks += 1
            lost += now - looked
        if looks > _LOOKS:
            longest = min(_LONGEST_NAP, _NAP_SHARE * (now - began))
            nap = min(_SHORTEST_NAP * 2 ** min(looks - _LOOKS, 10), longest)
            time.sleep(nap if nap >= _SHORTEST_NAP else 0)
            looked, now = now, time.perf_counter()
            lost += now - looked
        looked = now
        if in_team and lost > _LOST_AT_ONCE + _LOST_SHARE * (now - began):
            in_team = False
            state[most] = 1
            _past.has_lost()
        yield
    if in_team and time.perf_counter() - began > _KEPT_SECONDS:
        _past.has_kept_together()
