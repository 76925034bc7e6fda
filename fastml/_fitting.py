"""The training loop of iterative models: batches, evaluations, history, stopping, best weights, Ctrl-C, divergence.

A model gives the loop something that trains (`Trainable`): one set of weights, or several that take the same
batches (*columns*), which is how a sweep reads the rows once for all its settings. What the loop finds out about
a column it writes into a `Run`; columns that differ in their length only may share one column, so that the shorter
run is a checkpoint of the longer one. A run has the same bits whether its column trains alone or among others:
what the loop does for one run does not depend on the other runs.

Time goes by in steps, one for each batch. The loop hands all batches up to the next evaluation to the model in one
call.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .kernels.runtime.permutation import permutation

__all__ = [
    "COLUMNS", "SAMPLING", "Array", "Batches", "Course", "DivergenceWarning", "Evaluations", "History", "Rates", "Rows",
    "Run", "Trainable", "Watch", "loss_in_training", "train",
]  # fmt: skip

Array = NDArray[Any]
Rates = Callable[[int, int], NDArray[np.float64]]
Status = Literal["running", "max_iter", "converged", "stopped", "interrupted", "diverged"]

#: Columns of a history.
COLUMNS = ("step", "epoch", "seconds", "train_loss", "train_score", "validation_loss", "validation_score")

#: Rows of the first batches that tell whether the loss is much larger later; of those that count.
_TELLING = 30

#: Ways to draw the rows of the batches.
SAMPLING = ("permutation", "fixed_permutation", "replacement", "sequential")


class DivergenceWarning(RuntimeWarning):
    """Training diverged: a loss or a weight is no longer finite."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows with their targets, and with their weights if they have any."""

    X: Array
    y: Array
    weight: Array | None = None

    def take(self, rows: NDArray[np.intp]) -> Rows:
        """Copy some of the rows."""
        return Rows(self.X[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    @cached_property
    def variance(self) -> float:
        """Weighted mean squared distance of the targets from their mean."""
        y = self.y.astype(np.float64)
        return float(np.average((y - np.average(y, weights=self.weight)) ** 2, weights=self.weight))

    @cached_property
    def varies(self) -> bool:
        """Whether the targets of the rows that count are not all the same, without which R² is undefined."""
        y = self.y if self.weight is None else self.y[self.weight > 0]
        return len(y) > 0 and bool((y != y[0]).any())


class Trainable(Protocol):
    """One or several sets of weights (columns) that take the same batches."""

    @property
    def n_steps(self) -> int:
        """Batches done so far; right after Ctrl-C too."""

    def run(self, order: NDArray[np.intp], batch_size: int, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Train on the rows `order`, batch by batch, with step sizes (batches, columns).

        Return the loss (batches, columns) of each batch before its step.
        """

    def evaluate(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return losses and scores, one for each column, of the weights that `weights` would return."""

    def finite(self) -> NDArray[np.bool_]:
        """Say for each column whether all weights are finite."""

    def weights(self, column: int) -> Any:
        """Return a copy of a column's weights, as the model is to have them."""

    def state(self, column: int) -> Any:
        """Return a copy of all that a column needs to go on training."""

    def keep(self, columns: list[int]) -> None:
        """Forget all other columns."""

    # One whose runs may be resumed also has ``last_losses()``: the losses of the batches that the last call of `run`
    # has completed, though Ctrl-C ended it; and its `state` is never None.


# --------------------------------------------------------------------------------------------- batches


class Batches:
    """The order of the rows, epoch by epoch, and how it is cut into batches.

    Parameters
    ----------
    rows : int or ndarray of intp
        How many rows there are, or which of them to take.
    size : int
        Rows of a batch, at most as many as there are.
    sampling : {"permutation", "fixed_permutation", "replacement", "sequential"}
        A new random order in each epoch; one random order for all epochs; each row drawn from all;
        the order in which the rows are stored.
    drop_last : bool
        Whether to leave out the last batch of an epoch if it is not full.
    rng : numpy.random.Generator
        What the random orders come from.
    weight : ndarray of shape (all rows,), optional
        What each row counts in the mean of the losses; None: as much as any other.
    """

    def __init__(
        self,
        rows: int | NDArray[np.intp],
        size: int,
        sampling: str,
        drop_last: bool,
        rng: np.random.Generator,
        weight: Array | None = None,
    ) -> None:
        self.rows = None if isinstance(rows, int) else rows
        self.n = rows if isinstance(rows, int) else len(rows)
        self.size = min(size, self.n)
        self.steps = self.n // self.size if drop_last else -(-self.n // self.size)
        self._used = min(self.n, self.steps * self.size)
        self._sampling = sampling
        self._rng = rng
        self._weight = weight
        self._fixed: NDArray[np.intp] | None = None
        if sampling in ("sequential", "fixed_permutation"):
            self._fixed = self._rows_at(np.arange(self.n) if sampling == "sequential" else permutation(self.n, rng))

    def epoch(self) -> NDArray[np.intp]:
        """Return the rows of the next epoch."""
        if self._fixed is not None:
            return self._fixed
        if self._sampling == "replacement":
            return self._rows_at(self._rng.integers(self.n, size=self._used))
        return self._rows_at(permutation(self.n, self._rng))

    def lengths(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows of each batch of `order`, of which the last may be shorter."""
        return np.diff(np.append(np.arange(0, len(order), self.size), len(order)))

    def counts(self, order: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return what each batch of `order` counts: the weights of its rows over the rows of a full batch."""
        return (self.lengths(order) if self._weight is None else self._sums(self._weight.take(order))) / self.size

    def counting(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return how many rows of each batch of `order` have a weight above 0."""
        return self.lengths(order) if self._weight is None else self._sums(self._weight[order] > 0)

    def _sums(self, values: Array) -> Array:
        dtype = np.intp if values.dtype == np.bool_ else np.float64
        return np.add.reduceat(values, np.arange(0, len(values), self.size), dtype=dtype)

    @property
    def state(self) -> Any:
        """What the next epoch's order depends on."""
        return self._rng.bit_generator.state

    @state.setter
    def state(self, state: Any) -> None:
        self._rng.bit_generator.state = state

    def _rows_at(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        places = places[: self._used].astype(np.intp, copy=False)
        return places if self.rows is None else self.rows[places]


# ------------------------------------------------------------------------------- evaluations, history


@dataclass(frozen=True, eq=False)
class Evaluations:
    """When to evaluate, and on which rows.

    Parameters
    ----------
    steps : int or None
        An evaluation every so many steps; None means `per_epoch`.
    per_epoch : int
        Evaluations in each epoch, evenly spread; the last stands at its end.
    train : Rows or None
        Rows for the training loss and score. None: the mean loss of the rows of the batches since the evaluation
        before, each before its step, and no score.
    last_batch : bool
        Whether to take, of these rows, the last ones that were trained on, as many as a batch has.
    validation : Rows or None
        Rows for the validation loss and score.
    """

    steps: int | None = None
    per_epoch: int = 1
    train: Rows | None = None
    last_batch: bool = False
    validation: Rows | None = None

    def within_epoch(self, done: int, steps: int) -> set[int]:
        """Return after which steps (1 to `steps`) of an epoch to evaluate, if `done` were done before it."""
        if self.steps is not None:
            return set(range(self.steps - done % self.steps, steps + 1, self.steps))
        return {-(-i * steps // self.per_epoch) for i in range(1, self.per_epoch + 1)}


class History:
    """What the evaluations found: a list for each of `COLUMNS`.

    Parameters
    ----------
    before : mapping of arrays, optional
        A history that this one continues.
    resumed : bool
        Whether steps, epochs and seconds are counted as they were in that one, and not from its end.
    """

    def __init__(self, before: dict[str, Array] | None = None, *, resumed: bool = False) -> None:
        self._lists = {name: [] if before is None else before[name].tolist() for name in COLUMNS}
        #: Steps, epochs and seconds from before.
        self.origin = [values[-1] if values and not resumed else 0 for values in list(self._lists.values())[:3]]

    def add(self, **row: float) -> None:
        """Append one row."""
        for name, values in self._lists.items():
            values.append(row[name])

    def arrays(self) -> dict[str, Array]:
        """Return the columns as arrays; ``pandas.DataFrame`` takes them as they are."""
        return {name: np.array(v, np.intp if name == "step" else np.float64) for name, v in self._lists.items()}


class Watch:
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

    def look(self, row: dict[str, float]) -> tuple[bool, bool]:
        """Return whether these weights are the best so far, and whether to stop."""
        value = self._sign * row[self.column]
        best = self._bests[-1]
        is_best = self.keep is not None and (value > best or (value == best and self.keep == "last"))
        self._bests.append(max(best, value))  # `best` if the value is NaN, which compares as false
        if self._tol is None or len(self._bests) <= self._patience or self._bests[0] == -math.inf:
            return is_best, False
        return is_best, self._bests[-1] <= self._bests[0] + self._tol


# ------------------------------------------------------------------------------------------------ runs


class Course(NamedTuple):
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
        What `Trainable.state` returned.
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
        Which weights of the `Trainable` are its own.
    max_steps : int
        Steps after which it ends.
    watch : Watch
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
        Its weights in the end: what `Trainable.weights` returned.
    state : object
        What `Trainable.state` returned in the end; None if `weights` are not the last ones.
    best_step : int or None
        The step of the best weights, where they were kept.
    diverged_at : tuple of int and float, or None
        First step with a loss that is not finite (or after which weights were not), and that loss.
    resumable : bool
        Whether `course` is wanted.
    course : Course or None
        Where it stood in the end, so that it can be resumed; None if it diverged.
    """

    column: int
    max_steps: int
    watch: Watch
    history: History = field(default_factory=History)
    callbacks: Sequence[Callable[[dict[str, float], Callable[[], Any]], object]] = ()
    status: Status = "running"
    steps: int = 0
    weights: Any = None
    state: Any = None
    best_step: int | None = None
    diverged_at: tuple[int, float] | None = None
    resumable: bool = False
    course: Course | None = None
    #: Rows of the history that the watch has seen, and the step of the last one.
    _seen: tuple[int, int] = 0, -1
    _best: Any = None
    #: Training loss of each of these rows, and what its batches count; the most that those of one do.
    _parts: list[tuple[float, float]] = field(default_factory=list)
    _most: float = 0.0
    #: Rows of the first batches that count, and the largest loss of one of these batches.
    _first: tuple[int, float] = 0, -math.inf

    @property
    def first_loss(self) -> float | None:
        """Mean loss of the first batch, before its step.

        Of batches of so few rows that one says little the largest of the first few, and None before these are done.
        """
        rows, largest = self._first
        return largest if rows >= _TELLING else None

    def note_first_losses(self, losses: NDArray[np.float64], rows: NDArray[np.intp]) -> None:
        """Look at the mean losses of the first batches, and at how many rows in them count."""
        before, largest = self._first
        first = (before + np.cumsum(rows) - rows < _TELLING) & (rows > 0)
        self._first = before + int(rows[first].sum()), float(np.max(losses[first], initial=largest))

    def take_up(self, course: Course) -> None:
        """Stand where another run stood."""
        self.history = History(course.history, resumed=True)
        rows = len(course.history["step"])
        counts = np.ones(rows) if course.counts is None else course.counts
        for count, *values in zip(counts, *course.history.values(), strict=True):
            self._look(dict(zip(course.history, values, strict=True)), count)
        self._seen = rows, course.done if course.evaluated else -1
        self._best, self.best_step = course.best, course.best_step
        if course.first_loss is not None:
            self._first = _TELLING if course.first_rows is None else course.first_rows, course.first_loss

    def course_at(
        self, done: int, losses: NDArray[np.float64], weights: NDArray[np.float64], sound: Any, **more: Any
    ) -> Course:
        """Return where the run stands after `done` steps."""
        rows, step = self._seen
        return Course(
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
            counts=np.array([count for _, count in self._parts[:rows]]),
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
        """Show a row to the watch, with the training loss that is to be judged by; return what it says."""
        self._parts.append((row["train_loss"], count))
        self._most = max(self._most, count)
        return self.watch.look(row | {"train_loss": self.recent_loss()})

    def recent_loss(self, enough: float = 0.0) -> float:
        """Return the training loss that tells whether training still helps.

        It is that of the last evaluation, but if its batches count less than half of what those of another one did, or
        less than `enough`, the mean over them and those before.
        """
        enough = max(enough, self._most / 2)
        last, total = self._parts[-1]
        if total >= enough:
            return last
        total = loss = 0.0
        for part, count in reversed(self._parts):
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
        if self.first_loss is None or not self._parts:
            return False
        return self.recent_loss(enough) > 2 * (max(self.first_loss, loss) + penalty)

    def end(self, status: Status, steps: int, weights: Any, state: Any) -> None:
        """End the run with these weights, or with the best ones if it kept any."""
        self.status, self.steps = status, steps
        kept = self._best is not None
        self.weights, self.state = (self._best, None) if kept else (weights, state)
        self._best = None


# ------------------------------------------------------------------------------------------------ loop


def loss_in_training(model: Trainable, batches: Batches) -> tuple[float, float]:
    """Return the mean loss of all rows, batch by batch, in steps of size 0, of the first column; what they count."""
    order = np.arange(batches.n) if batches.rows is None else batches.rows
    lengths = batches.lengths(order)
    losses = model.run(order, batches.size, np.zeros((len(lengths), 1)))[:, 0]
    count = float(batches.counts(order).sum())
    return float(losses @ lengths) / batches.size / count, count


def train(
    model: Trainable,
    runs: Sequence[Run],
    batches: Batches,
    rates: Sequence[Rates],
    evaluations: Evaluations,
    *,
    hooks: Any = None,
    progress: Any = None,
    resume: Course | None = None,
) -> None:
    """Train until every run has ended.

    Parameters
    ----------
    model : Trainable
        What trains.
    runs : sequence of Run
        At least one for each column. They are ended when this function returns.
    batches : Batches
        The rows.
    rates : sequence of callable
        For each column a function that returns the sizes of the `count` steps after `done` ones.
    evaluations : Evaluations
        When to evaluate, and on what.
    hooks : Hooks or None
        scikit-learn's callbacks.
    progress : Progress or None
        A progress bar.
    resume : Course or None
        Where the only run is to go on; `model` is in the state that belongs to it.
    """
    _Loop(model, list(runs), batches, list(rates), evaluations, hooks, progress, resume).run()


class _Loop:
    """The state of `train`; steps are counted from its beginning."""

    def __init__(
        self,
        model: Trainable,
        runs: list[Run],
        batches: Batches,
        rates: list[Rates],
        evaluations: Evaluations,
        hooks: Any,
        progress: Any,
        resume: Course | None = None,
    ) -> None:
        self._model, self._active, self._batches, self._rates = model, runs, batches, rates
        self._evaluations, self._hooks, self._progress = evaluations, hooks, progress
        self._before = model.n_steps - (resume.done if resume is not None else 0)
        self._done = 0
        self._resume = resume
        #: Steps before this epoch, `Batches.state` before it, and steps at the last evaluation.
        self._epoch_at, self._order, self._evaluated_at = 0, batches.state, 0
        #: Losses (batches, columns) since the last evaluation, times the part of a full batch that each is; what each
        #: counts.
        self._losses: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        #: Rows that the model was last given.
        self._given = np.empty(0, np.intp)
        #: Weights of the last evaluation, for runs that diverge after it.
        self._sound: list[Any] = []

    def run(self) -> None:
        self._start = time.perf_counter()
        try:
            self._sound = self._weights()
            if self._resume is not None:
                self._take_up(self._resume)
            for run in [run for run in self._active if not run.max_steps]:
                self._end(run, "max_iter")
            while self._active:
                self._epoch()
        except KeyboardInterrupt:
            self._done = self._model.n_steps - self._before
            finite = self._model.finite()
            for run in self._active:
                sound = bool(finite[run.column])
                if sound and run.resumable and run.course is None:
                    run.course = self._course(run, self._model.state(run.column))
                weights = self._model.weights(run.column) if sound else self._sound[run.column]
                run.end("interrupted", self._done, weights, None)

    def _take_up(self, course: Course) -> None:
        (run,) = self._active
        run.take_up(course)
        self._done, self._epoch_at, self._order = course.done, course.epoch_at, course.order
        self._evaluated_at = course.done - len(course.losses)
        self._start -= course.seconds
        if course.losses.size:
            weights = np.ones(len(course.losses)) if course.weights is None else course.weights
            self._losses.append((course.losses[:, np.newaxis], weights))
        if course.sound is not None:
            self._sound = [course.sound]
        if self._progress is not None:
            self._progress.advance(course.done, self._active)
        if course.converged or run.max_steps < course.done or (run.max_steps == course.done and course.evaluated):
            run.status = "converged" if course.converged else "max_iter"
            self._end(run, run.status)

    def _course(self, run: Run, state: Any) -> Course:
        """Return where a run stands; Ctrl-C may have come before the last losses were stored."""
        missing = self._done - self._evaluated_at - sum(len(losses) for losses, _ in self._losses)
        if missing > 0:
            self._take_losses(self._model.last_losses()[:missing])  # type: ignore[attr-defined]
        losses, weights = self._since_evaluation()
        return run.course_at(
            self._done, losses[run.column].copy(), weights, self._sound[run.column], state=state,
            epoch_at=self._epoch_at, order=self._order, seconds=time.perf_counter() - self._start,
        )  # fmt: skip

    def _epoch(self) -> None:
        if self._resume is not None:
            self._batches.state = self._order
        else:
            self._epoch_at, self._order = self._done, self._batches.state
        evaluated = self._resume is None or self._resume.evaluated
        self._resume = None
        order, size = self._batches.epoch(), self._batches.size
        if self._hooks is not None:
            self._hooks.begin_epoch()
        first = self._done - self._epoch_at
        scheduled = self._evaluations.within_epoch(self._epoch_at, self._batches.steps)
        for last in self._stops(scheduled):
            if last < first or (last == first and evaluated):
                continue
            if last > first:
                self._advance(order[first * size : last * size])
            end = min(last * size, len(order))
            self._evaluate(last in scheduled, order[end - size : end])
            first = last
            if not self._active:
                break
        if self._hooks is not None and self._hooks.end_epoch():
            for run in list(self._active):
                self._end(run, "stopped")

    def _stops(self, scheduled: set[int]) -> list[int]:
        """Return the steps of this epoch at which to evaluate, to end a run or to show progress."""
        steps = self._batches.steps
        stops = scheduled | {run.max_steps - self._epoch_at for run in self._active} | {steps}
        if self._progress is not None:
            stops |= set(range(self._progress.every, steps, self._progress.every))
        return sorted(stop for stop in stops if stop <= steps)

    def _advance(self, order: NDArray[np.intp]) -> None:
        count = -(-len(order) // self._batches.size)
        steps = np.stack([rate(self._before + self._done, count) for rate in self._rates], axis=1)
        self._given = order
        losses = self._model.run(order, self._batches.size, steps)
        self._take_losses(losses)
        self._done += count
        if self._progress is not None:
            self._progress.advance(count, self._active)
        sound: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(losses))
        healthy = sound & self._model.finite()
        for run in [run for run in self._active if not healthy[run.column]]:
            column = losses[:, run.column]
            at = count - 1 if sound[run.column] else int(np.isfinite(column).argmin())
            step = self._done - count + at + 1
            run.diverged_at = (step, float(column[at]))
            run.history.add(**self._row(run, step) | {"train_loss": float(column[at])})
            run.end("diverged", step, self._sound[run.column], None)
            self._active.remove(run)
        self._forget()

    def _take_losses(self, losses: NDArray[np.float64]) -> None:
        """Take in the losses (batches, columns) of the rows that the model was last given; it may have done a part."""
        batches, order = self._batches, self._given[: len(losses) * self._batches.size]
        counts = batches.counts(order)
        losses = losses * (batches.lengths(order) / batches.size)[:, np.newaxis]
        self._losses.append((losses, counts))
        early = [run for run in self._active if run.first_loss is None]
        if early:
            rows = batches.counting(order)
            with np.errstate(all="ignore"):
                means = losses / counts[:, np.newaxis]
            for run in early:
                run.note_first_losses(means[:, run.column], rows)

    def _since_evaluation(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return for each column what `_losses` has of it, and what the batches count."""
        losses = np.concatenate([np.empty((0, len(self._rates))), *(losses for losses, _ in self._losses)])
        # Each column contiguous: the same sum alone as among others.
        return np.ascontiguousarray(losses.T), np.concatenate([np.empty(0), *(counts for _, counts in self._losses)])

    def _evaluate(self, scheduled: bool, batch: NDArray[np.intp]) -> None:
        due = [run for run in self._active if scheduled or run.max_steps == self._done]
        if not due:
            return
        values, count = self._values(batch)
        for run in due:
            if run.resumable and not scheduled:  # a longer run would not look here
                run.course = self._course(run, self._model.state(run.column))
            row = self._row(run, self._done) | {name: float(columns[run.column]) for name, columns in values.items()}
            ends = run.record(row, self._model.weights, count)
            if self._progress is not None:
                self._progress.show(row)
            if ends or run.max_steps == self._done:
                self._end(run, run.status if ends else "max_iter")
        self._forget()
        if scheduled:
            self._losses.clear()
            self._evaluated_at = self._done
            self._sound = self._weights()

    def _values(self, batch: NDArray[np.intp]) -> tuple[dict[str, NDArray[np.float64]], float]:
        """Return losses and scores of all columns, and what the batches of the running loss count."""
        values, count = {}, math.inf  # a loss that is measured counts as it is
        plan = self._evaluations
        if plan.train is None:
            columns, counts = self._since_evaluation()
            count = float(np.add.reduce(counts))
            losses = [np.add.reduce(column) / count if count else math.nan for column in columns]
            values["train_loss"] = np.array(losses)
        else:
            rows = plan.train.take(batch) if plan.last_batch else plan.train
            values["train_loss"], values["train_score"] = self._model.evaluate(rows)
        if plan.validation is not None:
            values["validation_loss"], values["validation_score"] = self._model.evaluate(plan.validation)
        return values, count

    def _row(self, run: Run, step: int) -> dict[str, float]:
        """Return a row of a history, without values as yet."""
        steps, epochs, seconds = run.history.origin
        elapsed = time.perf_counter() - self._start
        row = {"step": steps + step, "epoch": epochs + step / self._batches.steps, "seconds": seconds + elapsed}
        return row | dict.fromkeys(COLUMNS[3:], math.nan)

    def _end(self, run: Run, status: Status) -> None:
        state = self._model.state(run.column)
        if run.resumable and run.course is None:
            run.course = self._course(run, state)
        run.end(status, self._done, self._model.weights(run.column), state)
        self._active.remove(run)

    def _weights(self) -> list[Any]:
        return [self._model.weights(column) for column in range(len(self._rates))]

    def _forget(self) -> None:
        """Drop the columns of which all runs have ended."""
        columns = sorted({run.column for run in self._active})
        if not columns or len(columns) == len(self._rates):
            return
        self._model.keep(columns)
        self._rates = [self._rates[column] for column in columns]
        self._losses = [(losses[:, columns], counts) for losses, counts in self._losses]
        self._sound = [self._sound[column] for column in columns]
        for run in self._active:
            run.column = columns.index(run.column)
