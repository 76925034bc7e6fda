"""A run: one member of a training, when it stops, what became of it, and where it may be resumed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .batches import Array
from .history import History

__all__ = ["Checkpoint", "DivergenceWarning", "EarlyStopping", "Run", "Status"]

Status = Literal["running", "max_iter", "converged", "stopped", "interrupted", "diverged"]

#: Rows of the first batches that tell whether the loss is much larger later; of those that count.
_ROWS_OF_FIRST_LOSS = 30


class DivergenceWarning(RuntimeWarning):
    """Training diverged: a loss or a weight is no longer finite."""


class EarlyStopping:
    """Watches one column of the history: what is best so far, and is it time to stop.

    Parameters
    ----------
    column : str
        The column; lower is better if its name ends in "loss".
    tol : float or None
        Stop when the best of the last `patience` evaluations is not better, by more than this, than the best
        before them; None: never.
    patience : int
        How many evaluations.
    keep : {"first", "last", None}
        Which of the best weights to keep where several evaluations are equally good; None keeps none.
    """

    def __init__(
        self, column: str, *, tol: float | None, patience: int, keep: Literal["first", "last"] | None = None
    ) -> None:
        self.column = column
        self.keep = keep
        self._sign = -1.0 if column.endswith("loss") else 1.0
        self._tol, self._patience = tol, patience
        #: The best values before the last `patience` evaluations, and after each of them.
        self._bests = deque([-math.inf], maxlen=patience + 1)

    def update(self, row: dict[str, float]) -> tuple[bool, bool]:
        """Return whether these weights are the best so far, and whether to stop."""
        value = self._sign * row[self.column]
        best = self._bests[-1]
        is_best = self.keep is not None and (value > best or (value == best and self.keep == "last"))
        self._bests.append(max(best, value))  # `best` if the value is NaN, which compares as false
        if self._tol is None or len(self._bests) <= self._patience or self._bests[0] == -math.inf:
            return is_best, False
        return is_best, self._bests[-1] <= self._bests[0] + self._tol


class Checkpoint(NamedTuple):
    """Where a run stands, so that it can be resumed.

    Attributes
    ----------
    done, epoch_at : int
        Steps done, and those of them before the epoch.
    order : object
        `Batches.state` before the epoch.
    seconds : float
        How long it took.
    state : object
        What `TrainedModel.state` returned.
    losses : ndarray
        Losses of the batches since the last evaluation, each times the part of a full batch that it is.
    evaluated : bool
        Whether it was evaluated after the last of these steps, if that was due.
    history : dict of ndarray
        What the evaluations found.
    best, best_step : object, int or None
        The best weights so far and their step, where they are kept.
    sound : object
        Weights of the last evaluation; None if that was after the last step.
    first_loss : float or None
        Largest loss of the first batches so far.
    converged : bool
        Whether there is nothing left to do.
    weights : ndarray or None
        What the batches of `losses` count. None, as in files that do not know of it: they are full ones. (The same
        holds of what follows.)
    counts : ndarray or None
        What the batches of each row of the history count.
    first_rows : int or None
        Rows of the first batches so far.
    """

    done: int
    epoch_at: int
    order: Any
    seconds: float
    state: Any
    losses: NDArray[np.float64]
    evaluated: bool
    history: dict[str, Array]
    best: Any
    best_step: int | None
    sound: Any
    first_loss: float | None
    converged: bool
    weights: NDArray[np.float64] | None = None
    counts: NDArray[np.float64] | None = None
    first_rows: int | None = None


@dataclass(eq=False)
class Run:
    """One member of a training: its settings, and what became of it.

    Attributes
    ----------
    column : int
        Which weights of the `TrainedModel` are its own.
    max_steps : int
        Steps after which it ends.
    stopping : EarlyStopping
        When it ends sooner, and which weights it keeps.
    history : History
        What its evaluations found.
    callbacks : sequence of callable
        Called with each new row of the history and a function that returns the weights; if one returns true
        the run ends.
    status : str
        "running" until it ends.
    steps : int
        How many steps it took.
    weights : object
        Its weights in the end: what `TrainedModel.weights` returned.
    state : object
        What `TrainedModel.state` returned in the end; None if `weights` are not the last ones.
    best_step : int or None
        The step of the best weights, where they were kept.
    diverged_at : tuple of int and float, or None
        First step with a loss that is not finite (or after which weights were not), and that loss.
    wants_checkpoint : bool
        Whether `checkpoint` is wanted.
    checkpoint : Checkpoint or None
        Where it stood in the end, so that it can be resumed; None if it diverged.
    """

    column: int
    max_steps: int
    stopping: EarlyStopping
    history: History = field(default_factory=History)
    callbacks: Sequence[Callable[[dict[str, float], Callable[[], Any]], object]] = ()
    status: Status = "running"
    steps: int = 0
    weights: Any = None
    state: Any = None
    best_step: int | None = None
    diverged_at: tuple[int, float] | None = None
    wants_checkpoint: bool = False
    checkpoint: Checkpoint | None = None
    #: Rows of the history that early stopping has seen, and the step of the last one.
    _seen: tuple[int, int] = 0, -1
    _best: Any = None
    #: Training loss of each of these rows, and what its batches count; the most that those of one do.
    _batch_losses: list[tuple[float, float]] = field(default_factory=list)
    _largest_weight: float = 0.0
    #: Rows of the first batches that count, and the largest loss of one of these batches.
    _first: tuple[int, float] = 0, -math.inf

    @property
    def first_loss(self) -> float | None:
        """Mean loss of the first batch, before its step.

        Of batches of so few rows that one says little the largest of the first few, and None before these are done.
        """
        rows, largest = self._first
        return largest if rows >= _ROWS_OF_FIRST_LOSS else None

    def note_first_losses(self, losses: NDArray[np.float64], rows: NDArray[np.intp]) -> None:
        """Look at the mean losses of the first batches, and at how many rows in them count."""
        before, largest = self._first
        first = (before + np.cumsum(rows) - rows < _ROWS_OF_FIRST_LOSS) & (rows > 0)
        self._first = before + int(rows[first].sum()), float(np.max(losses[first], initial=largest))

    def resume_from(self, checkpoint: Checkpoint) -> None:
        """Stand where another run stood."""
        self.history = History(checkpoint.history, resumed=True)
        rows = len(checkpoint.history["step"])
        counts = np.ones(rows) if checkpoint.counts is None else checkpoint.counts
        for count, *values in zip(counts, *checkpoint.history.values(), strict=True):
            self._look(dict(zip(checkpoint.history, values, strict=True)), count)
        self._seen = rows, checkpoint.done if checkpoint.evaluated else -1
        self._best, self.best_step = checkpoint.best, checkpoint.best_step
        if checkpoint.first_loss is not None:
            self._first = (
                _ROWS_OF_FIRST_LOSS if checkpoint.first_rows is None else checkpoint.first_rows,
                checkpoint.first_loss,
            )

    def checkpoint_at(
        self, done: int, losses: NDArray[np.float64], weights: NDArray[np.float64], sound: Any, **more: Any
    ) -> Checkpoint:
        """Return where the run stands after `done` steps."""
        rows, step = self._seen
        return Checkpoint(
            done=done,
            losses=losses[:0] if step == done else losses,
            evaluated=step == done,
            history={name: column[:rows] for name, column in self.history.arrays().items()},
            best=self._best,
            best_step=self.best_step,
            sound=None if step == done else sound,
            first_loss=self._first[1] if self._first[0] else None,
            converged=self.status == "converged",
            weights=weights[:0] if step == done else weights,
            counts=np.array([count for _, count in self._batch_losses[:rows]]),
            first_rows=self._first[0],
            **more,
        )

    def record(self, row: dict[str, float], weights: Callable[[int], Any], count: float = 1.0) -> bool:
        """Take a row into the history, whose batches count so much; return whether the run is to end."""
        self.history.add(**row)
        best, stop = self._look(row, count)
        if best:
            self._best, self.best_step = weights(self.column), int(row["step"])
        if stop:
            self.status = "converged"
        self._seen = self._seen[0] + 1, int(row["step"])
        # All are called, whatever the first one says. Ctrl-C may come meanwhile.
        wanted = [bool(callback(row, lambda: weights(self.column))) for callback in self.callbacks]
        if not stop and any(wanted):
            self.status = "stopped"
        return stop or any(wanted)

    def _look(self, row: dict[str, float], count: float) -> tuple[bool, bool]:
        """Show a row to early stopping, with the training loss that is to be judged by; return what it says."""
        self._batch_losses.append((row["train_loss"], count))
        self._largest_weight = max(self._largest_weight, count)
        return self.stopping.update(row | {"train_loss": self.recent_loss()})

    def recent_loss(self, enough: float = 0.0) -> float:
        """Return the training loss that tells whether training still helps.

        It is that of the last evaluation, but if its batches count less than half of what those of another one did, or
        less than `enough`, the mean over them and those before.
        """
        enough = max(enough, self._largest_weight / 2)
        last, total = self._batch_losses[-1]
        if total >= enough:
            return last
        total = loss = 0.0
        for part, count in reversed(self._batch_losses):
            if count > 0:  # the loss of batches that do not count is NaN
                total, loss = total + count, loss + count * part
            if total >= enough:
                break
        return loss / total

    def is_worse_than_at_first(self, penalty: float = 0.0, loss: float = 0.0, enough: float = 0.0) -> bool:
        """Say whether the last training loss is over twice the first loss and the penalty before any step.

        With good steps it is not: their sum falls, though the loss alone may rise while the penalty falls. To be sure,
        `loss` is that of all rows before any step, and `enough` what they count: the first batches may be without those
        of large losses, the last ones full of them.
        """
        if self.first_loss is None or not self._batch_losses:
            return False
        return self.recent_loss(enough) > 2 * (max(self.first_loss, loss) + penalty)

    def end(self, status: Status, steps: int, weights: Any, state: Any) -> None:
        """End the run with these weights, or with the best ones if it kept any."""
        self.status, self.steps = status, steps
        kept = self._best is not None
        self.weights, self.state = (self._best, None) if kept else (weights, state)
        self._best = None
