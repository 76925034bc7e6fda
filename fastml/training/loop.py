"""The training loop of iterative models: batches, evaluations, history, stopping, best weights, Ctrl-C, divergence.

A model gives the loop something that trains (`TrainedModel`): one set of weights, or several that take the same
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
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .batches import Batches, Rates, Rows
from .history import COLUMNS, Evaluations
from .run import Checkpoint, Run, Status

__all__ = ["TrainedModel", "mean_training_loss", "train"]


class TrainedModel(Protocol):
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


def mean_training_loss(model: TrainedModel, batches: Batches) -> tuple[float, float]:
    """Return the mean loss of all rows, batch by batch, in steps of size 0, of the first column; what they count."""
    order = np.arange(batches.n) if batches.rows is None else batches.rows
    lengths = batches.lengths(order)
    losses = model.run(order, batches.size, np.zeros((len(lengths), 1)))[:, 0]
    count = float(batches.counts(order).sum())
    return float(losses @ lengths) / batches.size / count, count


def train(
    model: TrainedModel,
    runs: Sequence[Run],
    batches: Batches,
    rates: Sequence[Rates],
    evaluations: Evaluations,
    *,
    hooks: Any = None,
    progress: Any = None,
    resume: Checkpoint | None = None,
) -> None:
    """Train until every run has ended.

    Parameters
    ----------
    model : TrainedModel
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
    resume : Checkpoint or None
        Where the only run is to go on; `model` is in the state that belongs to it.
    """
    _Loop(model, list(runs), batches, list(rates), evaluations, hooks, progress, resume).run()


class _Loop:
    """The state of `train`; steps are counted from its beginning."""

    def __init__(
        self,
        model: TrainedModel,
        runs: list[Run],
        batches: Batches,
        rates: list[Rates],
        evaluations: Evaluations,
        hooks: Any,
        progress: Any,
        resume: Checkpoint | None = None,
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
        self._last_finite: list[Any] = []

    def run(self) -> None:
        self._start = time.perf_counter()
        try:
            self._last_finite = self._weights()
            if self._resume is not None:
                self._resume_from(self._resume)
            for run in [run for run in self._active if not run.max_steps]:
                self._end(run, "max_iter")
            while self._active:
                self._epoch()
        except KeyboardInterrupt:
            self._done = self._model.n_steps - self._before
            finite = self._model.finite()
            for run in self._active:
                sound = bool(finite[run.column])
                if sound and run.wants_checkpoint and run.checkpoint is None:
                    run.checkpoint = self._checkpoint(run, self._model.state(run.column))
                weights = self._model.weights(run.column) if sound else self._last_finite[run.column]
                run.end("interrupted", self._done, weights, None)

    def _resume_from(self, checkpoint: Checkpoint) -> None:
        (run,) = self._active
        run.resume_from(checkpoint)
        self._done, self._epoch_at, self._order = checkpoint.done, checkpoint.epoch_at, checkpoint.order
        self._evaluated_at = checkpoint.done - len(checkpoint.losses)
        self._start -= checkpoint.seconds
        if checkpoint.losses.size:
            weights = np.ones(len(checkpoint.losses)) if checkpoint.weights is None else checkpoint.weights
            self._losses.append((checkpoint.losses[:, np.newaxis], weights))
        if checkpoint.sound is not None:
            self._last_finite = [checkpoint.sound]
        if self._progress is not None:
            self._progress.advance(checkpoint.done, self._active)
        is_over = run.max_steps < checkpoint.done or (run.max_steps == checkpoint.done and checkpoint.evaluated)
        if checkpoint.converged or is_over:
            run.status = "converged" if checkpoint.converged else "max_iter"
            self._end(run, run.status)

    def _checkpoint(self, run: Run, state: Any) -> Checkpoint:
        """Return where a run stands; Ctrl-C may have come before the last losses were stored."""
        missing = self._done - self._evaluated_at - sum(len(losses) for losses, _ in self._losses)
        if missing > 0:
            self._take_losses(self._model.last_losses()[:missing])  # type: ignore[attr-defined]
        losses, weights = self._since_evaluation()
        return run.checkpoint_at(
            self._done, losses[run.column].copy(), weights, self._last_finite[run.column], state=state,
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
            run.end("diverged", step, self._last_finite[run.column], None)
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
            if run.wants_checkpoint and not scheduled:  # a longer run would not look here
                run.checkpoint = self._checkpoint(run, self._model.state(run.column))
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
            self._last_finite = self._weights()

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
        if run.wants_checkpoint and run.checkpoint is None:
            run.checkpoint = self._checkpoint(run, state)
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
        self._last_finite = [self._last_finite[column] for column in columns]
        for run in self._active:
            run.column = columns.index(run.column)
