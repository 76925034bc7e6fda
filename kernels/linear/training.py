"""Training of linear models by mini-batch gradient descent, and their evaluation, for many models at once.

Models that see the same batches are trained as a stack: the rows are fetched once for all of them, and the work on a
block of rows becomes a product of matrices, which uses a CPU better than what one model has to do. Each model has its
own penalties, step sizes and momentum, and the same bits as if it were trained alone.

A batch takes microseconds. So many of them are done in one compiled call, which comes back to Python a few dozen times
a second, for Ctrl-C; `_descent` has the loop, and `runtime.team` how threads share the work in it.

Sums. A gradient is summed in the dtype of X over at most 2,048 rows of a part and 8 parts, beyond that in float64;
losses in float64 per block of 32 rows. So errors stay under 1e-6 of the sum of magnitudes for any batch. What is
summed in which order depends on the batch and on the shape of X alone: same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..losses.table import DELTA, OVER_CLASSES
from ..runtime import parallel
from ..runtime.jit import kernel, readonly
from ..runtime.memory import aligned, padded
from ..runtime.team import leave, new_board, reset
from ..simd.rows import copy, copy_row, frozen
from ..training.batches import COMING, WORKING, checked_order, team_size, until_done
from . import arguments
from ._descent import BATCH, MOST, SLOTS, STAGE, TRAINING, Settings, Shared, Workspace, cut
from ._rows import rows_of
from ._stacked import GROUP, stack_scores
from ._stacked_losses import NUMBER, SCORE_NUMBER, SCORES, STACKED_VALUES, workspace

__all__ = ["linear_evaluation", "train_linear"]

#: Rows of a block, fewer where these would take more bytes: two blocks and a model should fit the second-level cache.
_BLOCK_ROWS, _BLOCK_BYTES = 32, 1 << 18

#: Rows and bytes of a part, at least: what a thread does until it meets the others.
_PART_ROWS, _PART_BYTES = 32, 1 << 14

#: Rows of a part, and multiplications with the weights of a model, at most.
_MOST_PART_ROWS, _MOST_PRODUCTS = 2048, 1 << 25

#: Seconds on one core, roughly, for a multiply-add, the loss of a score, a byte fetched, an update of a weight, a part.
_PRODUCT, _TERM, _BYTE, _UPDATE, _PART = 2.5e-11, 2e-9, 1e-10, 2e-10, 3e-7

#: Seconds that a compiled call should take at most.
_CALL_SECONDS = 0.04

#: Rows of an evaluation that one thread does in one go.
_TASK_ROWS = 1024


def train_linear(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    order: ArrayLike,
    *,
    batch_size: int,
    steps: ArrayLike,
    l2: float = 0.0,
    l1: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[Any], Any, NDArray[np.float64]]:
    """Train a linear model by mini-batch gradient descent, on rows in a given order.

    The batches are ``X[order[:batch_size]]``, ``X[order[batch_size:2 * batch_size]]`` and so on; the last may
    be shorter. With g the gradient of a batch's mean loss plus ``l2 / 2 ‖W‖²``, a step is ``v ← momentum·v -
    step·g`` and ``W ← W + v`` (with `nesterov` ``W ← W + momentum·v - step·g``). Every weight then moves by
    ``step·l1`` towards zero, at most to it. The intercepts do the same steps without penalties.

    Parameters
    ----------
    loss : str
        A loss of `linear_loss_gradient` other than "poisson".
    X : array-like of shape (n, D)
        Rows. float16 and float32 are worked on as float32, all else as float64; all other arguments
        are cast to that.
    y : array-like of shape (n,), or (n, C) target probabilities for softmax cross-entropy
        Targets as the function named by `loss` takes them.
    W : array-like of shape (D,), or (C, D) for the losses over classes
        Weights to begin with.
    b : float, or array-like of shape (C,)
        Intercepts to begin with.
    order : array-like of shape (N,)
        Numbers of rows, in the order of training. A row may come several times, or never.
    batch_size : int
        Rows of a batch.
    steps : float, or array-like of shape (number of batches,)
        Step sizes, not negative.
    l2 : float, default=0.0
        Strength of the squared penalty.
    l1 : float, default=0.0
        Strength of the absolute penalty.
    momentum : float, default=0.0
        Between 0 and 1.
    nesterov : bool, default=False
        Whether to step as if the next momentum had been added already.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative, not all zero. They are scaled to a mean of 1 over all rows of X;
        the loss of a batch is Σ w l / (rows of the batch).
    n_threads : int, optional
        Threads to use, of which at most 8 work; None means all that this process may use.

    Returns
    -------
    W : ndarray of the shape of `W`
    b : float, or ndarray of shape (C,)
    losses : ndarray of shape (number of batches,), float64
        Mean loss of each batch before its step, without penalties.

    Raises
    ------
    TypeError
        If `loss` is no str, row numbers or labels are not of integers, or an argument not real numbers.
    ValueError
        If shapes do not fit, n is 0, or a value is not usable.

    Notes
    -----
    Cost: 2 N D C multiply-adds. Rows in random order come at about half the memory's bandwidth. Work space: up to
    6 gradients per thread, a block of 32 rows.

    A step that is too large makes the loss grow until it is infinite and the weights NaN; look at `losses`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.kernels import train_linear
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([1.0, 3.0, 5.0, 7.0])
    >>> W, b, losses = train_linear("squared_error", X, y, [0.0], 0.0, 100 * [2, 0, 3, 1], batch_size=2, steps=0.2)
    >>> W.round(3), round(b, 3), losses.shape
    (array([2.]), 1.0, (200,))
    """
    a = arguments.training(loss, X, y, W, b, order, batch_size, steps, l2, l1, momentum, nesterov, sample_weight)
    over_classes = a.linear.W.ndim == 2
    training = LinearTraining(
        loss, a.linear.X, a.linear.y,
        W=a.linear.W[None] if over_classes else a.linear.W[None, None],
        b=a.linear.b[None] if over_classes else np.array([[a.linear.b]]),
        l2=a.linear.l2, l1=a.l1, momentum=a.momentum, nesterov=a.nesterov, sample_weight=a.linear.weight,
        n_threads=n_threads,
    )  # fmt: skip
    losses = training.run(a.order, a.batch_size, a.steps)[:, 0]
    trained, intercepts = training.W[0].copy(), training.b[0].copy()
    return (trained, intercepts, losses) if over_classes else (trained[0], float(intercepts[0]), losses)


def linear_evaluation(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    delta: float = 1.35,
    n_threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean losses and scores of many linear models, in one pass over X.

    Parameters
    ----------
    loss : str
        A loss of `linear_loss_gradient`.
    X : array-like of shape (n, D)
        Rows. float16 and float32 are worked on as float32, all else as float64; all other arguments
        are cast to that.
    y : array-like of shape (n,), or (n, C) target probabilities for softmax cross-entropy
        Targets as the function named by `loss` takes them.
    W : array-like of shape (M, C, D)
        Weights of M models; C is 1 for the losses of one score.
    b : array-like of shape (M, C)
        Intercepts.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative, not all zero.
    delta : float, default=1.35
        Where the Huber loss becomes linear; used by that loss only.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    losses : ndarray of shape (M,), float64
        Mean losses, without penalties.
    scores : ndarray of shape (M,), float64
        For classifiers the share of right predictions: class 1 where a row's score is 0 or more (a target
        probability of 0.5 or more counts as class 1); of several classes the one with the largest score, the
        lowest index of equals. A row with a NaN among its scores is not right. For regression the mean
        squared residual.

    Raises
    ------
    TypeError
        If `loss` is no str, labels are not of integers, or an argument not real numbers.
    ValueError
        If shapes do not fit, n is 0, or a value is not usable.

    Notes
    -----
    Cost: n M C D multiply-adds; X is read once. A model's results have the same bits whichever others are
    there. Work space: a copy of the models; per thread 32 rows and their scores.

    Examples
    --------
    >>> from fastml.kernels import linear_evaluation
    >>> linear_evaluation("hinge", [[1.0], [-1.0]], [1, 1], [[[2.0]], [[0.0]]], [[0.0], [0.0]])
    (array([1.5, 1. ]), array([0.5, 1. ]))
    """
    a = arguments.evaluation(loss, X, y, W, b, sample_weight, delta)
    (n, _), dtype = a.X.shape, a.X.dtype
    parameters = _stack(a.W, a.b, dtype)
    models, classes, width = parameters.shape
    plan = _plan(width, classes, dtype)
    task_rows = max(plan.block_rows, _TASK_ROWS)
    tasks = -(-n // task_rows)
    sums = np.empty((tasks, 2, models))
    rows = rows_of(loss, a.X, a.y, a.weight)
    settled = NUMBER[loss], SCORE_NUMBER[loss], tuple(rows), a.delta, parameters
    evaluate = _EVALUATION[loss in OVER_CLASSES]

    def work(first: int, last: int) -> None:
        evaluate(*settled, task_rows, sums, first, last, *_block(loss, plan.block_rows, parameters)[:2])

    most = max(1, int(_CALL_SECONDS / plan.seconds(task_rows, models)))
    parallel.run_ranges(work, tasks, n_threads, most=most, seconds=plan.seconds(n, models) / 2)
    losses, scores = np.add.reduce(sums) / a.total
    return losses, scores


class LinearTraining:
    """M linear models in training on the same batches.

    This is what `train_linear` and the estimators stand on: it assumes that its arguments are settled, keeps the state
    between calls, and trains many models at once. Steps are those of `train_linear`.

    Parameters
    ----------
    loss : str
        A loss of `linear_loss_gradient`.
    X : ndarray of shape (n, D), float32 or float64, C-contiguous
        Rows; not copied.
    y : ndarray of shape (n,) of the dtype of X, (n,) class indices of dtype intp, or (n, C) target probabilities
        Targets as the loss takes them.
    W : array-like of shape (M, C, D)
        Weights to begin with; copied. C is 1 for losses of one score.
    b : array-like of shape (M, C)
        Intercepts to begin with; copied.
    l2, l1, momentum : float or array-like of shape (M,)
        Penalties and momentum.
    nesterov : bool or array-like of shape (M,)
        Whether to use Nesterov's form of momentum.
    fit_intercept : bool
        False leaves `b` as it is.
    sample_weight : ndarray of shape (n,) of the dtype of X, optional
        Weights of the rows, used as they are: the loss of a batch is Σ w l / (rows of the batch).
    average_from : int or array-like of shape (M,), optional
        Number of the step (1 is the first) from which on the running mean of weights and intercepts is kept.
    delta : float
        Where the Huber loss becomes linear.
    n_threads : int, optional
        Threads to use, of which at most 8 work; None means all that this process may use.

    Attributes
    ----------
    W, b : ndarray of shape (M, C, D), (M, C)
        What the models are now: views that `run` writes to, and that may be written to between runs.
    n_steps : int
        Batches done so far.

    Notes
    -----
    A model's bits do not depend on the others, and one that becomes infinite or NaN does not disturb them.
    """

    def __init__(
        self,
        loss: str,
        X: NDArray[Any],
        y: NDArray[Any],
        *,
        W: ArrayLike,
        b: ArrayLike,
        l2: ArrayLike = 0.0,
        l1: ArrayLike = 0.0,
        momentum: ArrayLike = 0.0,
        nesterov: ArrayLike = False,
        fit_intercept: bool = True,
        sample_weight: NDArray[Any] | None = None,
        average_from: ArrayLike | None = None,
        delta: float = DELTA,
        n_threads: int | None = None,
    ) -> None:
        W, dtype = np.asarray(W), X.dtype
        models, classes, columns = W.shape
        self._loss, self._n_threads = loss, n_threads
        self._rows = rows_of(loss, X, y, sample_weight)
        self._parameters = _stack(W, b, dtype)
        self._velocity = np.zeros_like(self._parameters)
        self._average = None if average_from is None else np.zeros_like(self._parameters)
        settings = np.empty((4, models), dtype)
        for row, value in zip(settings, (l2, l1, momentum, nesterov), strict=True):
            row[:] = value
        begin = np.empty(models, np.intp)
        begin[:] = 0 if average_from is None else average_from
        self._settings = Settings(readonly(settings), readonly(begin), dtype.type(delta))
        self._fit_intercept = fit_intercept
        self._plan = _plan(self._parameters.shape[2], classes, dtype)
        self._workspaces = [self._workspace(self._parameters, self._velocity)]
        self._board = new_board()
        self.W, self.b = self._parameters[..., :columns], self._parameters[..., columns]
        self.n_steps = 0

    @property
    def average_W(self) -> NDArray[Any] | None:
        """Running mean of `W`, (M, C, D); None without `average_from`."""
        return None if self._average is None else self._average[..., : self.W.shape[2]]

    @property
    def average_b(self) -> NDArray[Any] | None:
        """Running mean of `b`, (M, C); None without `average_from`."""
        return None if self._average is None else self._average[..., self.W.shape[2]]

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that `run` changes, for a training of the same models in any dtype."""
        used = slice(self.W.shape[2] + 1)  # how far rows are padded depends on the dtype
        average = None if self._average is None else self._average[..., used].copy()
        return {
            "parameters": self._parameters[..., used].copy(), "velocity": self._velocity[..., used].copy(),
            "average": average, "n_steps": self.n_steps,
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `get_state` returned; one without averages leaves those that there are."""
        used = slice(self.W.shape[2] + 1)
        self._parameters[..., used] = state["parameters"]
        self._velocity[..., used] = state["velocity"]
        if self._average is not None and state["average"] is not None:
            self._average[..., used] = state["average"]
        self.n_steps = state["n_steps"]

    def run(self, order: ArrayLike, batch_size: int, steps: ArrayLike) -> NDArray[np.float64]:
        """Train on ``X[order[:batch_size]]``, ``X[order[batch_size:2 * batch_size]]``, and so on.

        Parameters
        ----------
        order : array-like of shape (N,), intp
            Numbers of rows; the last batch may be shorter.
        batch_size : int
            Rows of a batch.
        steps : array-like of shape (number of batches,) or (number of batches, M)
            Step sizes.

        Returns
        -------
        ndarray of shape (number of batches, M), float64
            Mean weighted loss of each batch before its step, without penalties.

        Raises
        ------
        ValueError
            If `order` has a number that no row has.

        Notes
        -----
        Ctrl-C ends it within a fraction of a second: `W`, `b` and `n_steps` are then as after the last batch that
        was completed.
        """
        order, models = checked_order(order, len(self._rows.X)), len(self.W)
        if order.size == 0:
            return np.zeros((0, models))
        batch_size = min(batch_size, order.size)
        batches = -(-order.size // batch_size)
        sizes = np.empty((batches, models), self._parameters.dtype)
        sizes[...] = np.asarray(steps, np.float64).reshape(batches, -1)
        losses = np.zeros((batches, models))
        parts, part_rows = cut(batch_size, self._plan.least, self._plan.most)
        part_seconds = (
            self._plan.seconds(min(part_rows, batch_size), models) + self._plan.update_seconds(models) / parts
        )
        seconds = batches * part_seconds * -(-batch_size // part_rows)
        n_threads = team_size(self._n_threads, parts, seconds=seconds)
        while len(self._workspaces) < n_threads:
            self._workspaces.append(self._workspace(np.zeros_like(self._parameters), np.zeros_like(self._velocity)))
        sums = self._workspaces[0].sums
        met = n_threads if n_threads > 1 else 0
        limit = max(1, int(_CALL_SECONDS / part_seconds))
        constants = np.array((
            NUMBER[self._loss], batch_size, self._plan.least, self._plan.most, self._fit_intercept, self.n_steps, limit,
            n_threads,
        ))  # fmt: skip
        team = Shared(
            self._parameters, self._velocity, self._parameters[:0] if self._average is None else self._average, losses,
            aligned((2, met, *sums.shape[1:]), sums.dtype), np.zeros((2, met, models)), self._board,
        )  # fmt: skip
        arguments = (
            tuple(self._rows), readonly(order), readonly(sizes), tuple(self._settings), readonly(constants),
            tuple(team),
        )  # fmt: skip
        train, before = TRAINING[self._loss in OVER_CLASSES], self.n_steps

        def work(thread: int) -> Iterator[None]:
            state = np.array((0, 0, 0, 0, 1, COMING if thread else WORKING, n_threads))
            own = tuple(self._workspaces[thread])
            try:
                yield from until_done(
                    lambda: train(thread, *arguments, own, state), state, STAGE, MOST, leads=thread == 0
                )
            finally:
                if thread == 0:
                    leave(self._board)
                    self.n_steps = before + int(state[BATCH])

        reset(self._board)
        parallel.run(work, n_threads, n_threads)
        lengths = np.diff(np.append(np.arange(0, order.size, batch_size), order.size))
        return losses / lengths[:, np.newaxis]

    def _workspace(self, parameters: NDArray[Any], velocity: NDArray[Any]) -> Workspace:
        """Make what a thread has for itself: a model to work on, sums, a block of rows."""
        (models, classes, width), dtype = parameters.shape, parameters.dtype
        scores = models * classes
        sums = aligned((SLOTS, scores, width), dtype), np.zeros((SLOTS, models)), np.zeros((scores, width))
        return Workspace(parameters, velocity, *sums, *_block(self._loss, self._plan.block_rows, parameters))


class _Plan(NamedTuple):
    """How rows are cut into blocks and batches into parts: by the width of the rows and the classes alone."""

    block_rows: int
    least: int  # rows of a part
    most: int
    row_seconds: float  # of one core, to fetch a row; a score of it; the update of a model
    score_seconds: float
    model_seconds: float
    classes: int

    def seconds(self, rows: int, models: int) -> float:
        """Return roughly how long some rows take one core."""
        return rows * (self.row_seconds + models * self.classes * self.score_seconds) + _PART

    def update_seconds(self, models: int) -> float:
        """Return roughly how long a step takes once the gradient is there."""
        return models * self.model_seconds


def _plan(width: int, classes: int, dtype: np.dtype[Any]) -> _Plan:
    row_bytes = width * dtype.itemsize
    rows = max(GROUP, min(_BLOCK_ROWS, _BLOCK_BYTES // row_bytes // GROUP * GROUP))
    return _Plan(
        rows,
        max(_PART_ROWS, _PART_BYTES // row_bytes),
        max(rows, min(_MOST_PART_ROWS, _MOST_PRODUCTS // (width * max(1, classes)) // rows * rows)),
        row_bytes * _BYTE,
        2 * width * _PRODUCT * (dtype.itemsize // 4) + _TERM,
        classes * width * _UPDATE,
        classes,
    )


def _stack(W: NDArray[Any], b: ArrayLike, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Copy weights and intercepts into one array (M, C, columns), padded with zeros to whole vectors."""
    models, classes, columns = W.shape
    stack = aligned((models, classes, padded(columns + 1, dtype)), dtype)
    stack[..., :columns] = W
    stack[..., columns] = b
    return stack


def _block(loss: str, rows: int, parameters: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Make a block of rows, and their scores and the gradient in these for all models."""
    (models, classes, width), dtype = parameters.shape, parameters.dtype
    shape = (rows, models * classes) if loss in OVER_CLASSES else (models * classes, rows)
    return aligned((rows, width), dtype), aligned(shape, dtype), aligned(shape, dtype)


# ---------------------------------------------------------------------------------------- kernels


def _evaluation(over_classes: bool) -> Callable[..., None]:
    """Make the kernel of the losses over classes, or of those of one score: sums over some tasks of rows."""
    transposed, values, scores = not over_classes, STACKED_VALUES[over_classes], SCORES[over_classes]

    def evaluate(  # type: ignore[no-untyped-def]
        loss, score, data, delta, parameters, task_rows, sums, first, last, block, Z
    ):
        X, y, indices, P, weight = data
        models, classes, width = parameters.shape
        columns, rows = X.shape[1], block.shape[0]
        stack = parameters.reshape((models * classes, width))
        work, no_gradient, none_ahead = workspace(rows, classes, Z), np.zeros((rows, 0), Z.dtype), indices[:0]
        block_y, block_weight = np.zeros(rows, X.dtype), np.ones(rows, X.dtype)
        block[:, columns] = 1
        for task in range(first, last):
            sums[task] = 0
            for at in range(task * task_rows, min(X.shape[0], (task + 1) * task_rows), rows):
                n = min(rows, X.shape[0] - at)
                here = slice(at, at + n)
                for i in range(n):
                    copy_row(X, at + i, block, i)
                if y.size > 0:
                    copy(y[here], block_y[:n])
                if weight.size > 0:
                    copy(weight[here], block_weight[:n])
                block_weight[n:] = 0
                targets = (frozen(block_y), indices[here], P[here], frozen(block_weight))
                stack_scores(block, n, stack, transposed, Z, X, none_ahead)
                values(loss, Z, n, targets, delta, delta, work, no_gradient, sums[task, 0])
                scores(score, Z, n, targets, work, sums[task, 1])

    evaluate.__qualname__ = evaluate.__name__ = "evaluation_over_classes" if over_classes else "evaluation_of_one_score"
    return kernel(evaluate)


_EVALUATION = {over_classes: _evaluation(over_classes) for over_classes in STACKED_VALUES}
