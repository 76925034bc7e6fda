"""Training on mini-batches, from the side of Python: what a training offers, and how its compiled loop is called.

A batch takes microseconds. So a compiled loop does many of them, and comes back a few dozen times a second, for Ctrl-C,
or where it waits for threads that have no CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runtime import parallel
from ..runtime.jit import jit_enabled
from ..runtime.team import MEMBERS

__all__ = ["COMING", "WAITING", "WORKING", "Patience", "Trainable", "checked_order", "team_size", "until_done"]

#: What a thread of a team is doing: its share of a round, waiting for the others, or becoming a member.
WORKING, WAITING, COMING = range(3)


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


class Patience(NamedTuple):
    """Waits after which the leader of a team goes on alone: the others have no CPU."""

    at_once: int
    per_second: int


def checked_order(order: ArrayLike, n: int) -> NDArray[np.intp]:
    """Return numbers of rows as a contiguous array, if X has them all."""
    numbers = np.ascontiguousarray(order, np.intp)
    if numbers.size and np.maximum.reduce(numbers.view(np.uintp)) >= n:  # negative numbers are very large ones
        raise ValueError(f"order has a number outside 0..{n - 1}; X has {n} rows")
    return numbers


def team_size(n_threads: int | None, most: int, *, small: bool) -> int:
    """Return how many threads work on each batch, a power of two; `most` have something to do, one if it is `small`."""
    allowed = parallel.resolve(n_threads, small=small)
    wanted = min(allowed, most, MEMBERS) if jit_enabled() else 1
    return 1 << (wanted.bit_length() - 1)


def until_done(
    call: Callable[[], bool], state: NDArray[Any], stage: int, most: int, patience: Patience
) -> Iterator[None]:
    """Call a thread's compiled loop until it returns true; a task of `parallel.run`.

    ``state[stage]`` says what the thread is doing when it comes back. Where it waits, the others may need this CPU; if
    that goes on, ``state[most]``, how many members the leader may have, becomes one.
    """
    started, waits = time.perf_counter(), 0
    while not call():
        if state[stage] != WORKING:
            time.sleep(0)
            waits += 1
            if waits > patience.at_once + patience.per_second * (time.perf_counter() - started):
                state[most] = 1
        yield
