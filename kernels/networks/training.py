"""The training of a network of fully connected layers, which keeps its state between calls.

A batch of a small network takes microseconds. So many of them are done in one compiled call, which comes back to Python
a few dozen times a second, for Ctrl-C; `_loop` has that, and `runtime.team` how threads share the work in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..losses.table import NETWORK_LOSSES
from ..runtime import parallel
from ..runtime.jit import readonly
from ..runtime.memory import aligned
from ..runtime.team import MEMBERS, leave, new_board, reset
from ..training.batches import COMING, WORKING, checked_order, team_size, until_done
from ._batch_norm import MEAN, NORMS, SCALE, SHIFT, VARIANCE
from ._loop import train
from ._plan import (
    ALONE,
    CALL_SECONDS,
    LIMIT,
    MOST,
    OPERATION,
    PLACE,
    SHARE,
    STAGE,
    Array,
    Batches,
    Data,
    Model,
    Optimizer,
    Plan,
    Settings,
    Workspace,
    pack,
    units_of,
    views_of,
)
from .arguments import NORM_SHARE
from .row_losses import LOSS_ROWS, targets_of_rows
from .scores import Norm
from .steps import RULES, rule_of

__all__ = ["NetworkTraining"]


class NetworkTraining:
    """A network of fully connected layers in training.

    This is what `train_network` and the estimators stand on: it assumes that its arguments are settled, and keeps the
    state between calls.

    Parameters
    ----------
    loss : {"softmax_cross_entropy", "binary_cross_entropy", "squared_error"}
        The loss of a row is that of `linear_loss_gradient`; over several scores the latter two are summed.
    X : ndarray of shape (n, D), float32 or float64, C-contiguous
        Rows; not copied.
    y : ndarray of shape (n,), class indices of dtype intp, or (n, C) of the dtype of X
        Targets: for "softmax_cross_entropy" of either form, else (n, C).
    weights : sequence of array-like of shape (units, inputs)
        Weights of each layer to begin with; copied.
    biases : sequence of array-like of shape (units,)
        Intercepts to begin with; copied.
    activation : {"identity", "relu", "logistic", "tanh"}
        What the hidden layers do to their values.
    rule : {"sgd", "adam"}
        How steps are taken.
    l2 : float
        Adds ``l2 / 2 ‖W‖²`` to the loss that is trained.
    momentum : float
        For "sgd".
    nesterov : bool
        Whether to use Nesterov's form of momentum.
    beta_1, beta_2, epsilon : float
        For "adam".
    weight_decay : float
        For "adam": each step also takes ``step * weight_decay * W`` off W.
    dropout : float or sequence of float
        Share of the values of each hidden layer that is set to 0 in training.
    seed : int
        What is dropped depends on it, and on the number of the step.
    sample_weight : ndarray of shape (n,) of the dtype of X, optional
        Weights of the rows, used as they are: the loss of a batch is Σ w l / (rows of the batch).
    norms : sequence of Norm, optional
        If given, the values of the hidden layers are normalised over each batch before the activation: scales and
        running statistics to begin with, copied. The biases of these layers are the shifts.
    norm_share : float
        Share of a batch's statistics in the running ones.
    n_threads : int, optional
        Threads to use, of which at most 8 work; None means all that this process may use.

    Attributes
    ----------
    weights, biases : list of ndarray
        What the network is now: views that `run` writes to, and that may be written to between runs.
    norms : list of Norm
        Likewise; empty if nothing is normalised.
    n_steps : int
        Batches done so far.
    """

    def __init__(
        self,
        loss: str,
        X: Array,
        y: Array,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        *,
        activation: str = "relu",
        rule: str = "sgd",
        l2: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        dropout: float | Sequence[float] = 0.0,
        seed: int = 0,
        sample_weight: Array | None = None,
        norms: Sequence[Norm] | None = None,
        norm_share: float = NORM_SHARE,
        n_threads: int | None = None,
    ) -> None:
        units, dtype = units_of(weights), X.dtype
        hidden = len(units) - 2
        shares = [float(dropout)] * hidden if isinstance(dropout, (int, float)) else list(dropout)
        self._plan = plan = Plan(units, activation, shares, dtype, norms is not None, rule == "gradient")
        rule = rule_of(rule, momentum, nesterov)
        self._loss, self._rule = NETWORK_LOSSES.index(loss), RULES.index(rule)
        self._seed, self._n_threads = seed, n_threads
        self._betas = beta_1, beta_2
        self._data = Data(readonly(X), *targets_of_rows(y, units[-1], dtype, sample_weight))
        self._numbers = readonly(np.array([momentum, beta_1, beta_2, epsilon, norm_share], dtype))
        self._l2, self._weight_decay = self._per_column(l2), self._per_column(weight_decay)
        self._parameters, self.weights, self.biases = pack(plan, weights, biases)
        self._norms = aligned((NORMS, plan.norm_size if plan.batch_norm else 0), dtype)
        self.norms: list[Norm] = []
        if norms is not None:
            self._take_norms(norms)
        kept = {"sgd": 0, "gradient": 0}.get(rule, 1)
        self._trained = plan.size + 2 * self._norms.shape[1]
        self._moments = aligned((2, self._trained if kept else 0), dtype)
        self._totals = np.zeros(0)
        self._workspaces: list[Workspace] = []
        self._rows = 0
        self._board = new_board()
        self._last = np.zeros(0), np.ones(0, np.intp)
        self.n_steps = 0

    def _take_norms(self, norms: Sequence[Norm]) -> None:
        """Copy norms; the intercepts of the layers that are normalised become shifts."""
        for place, (begin, units, norm) in enumerate(
            zip(self._plan.norm_begins, self._plan.units[1:-1], norms, strict=True)
        ):
            views = self._norms[:, begin : begin + units]
            views[[SCALE, SHIFT, MEAN, VARIANCE]] = norm.scales, self.biases[place], norm.means, norm.variances
            self.biases[place][...] = 0
            self.biases[place] = views[SHIFT]
            self.norms.append(Norm(views[SCALE], views[MEAN], views[VARIANCE]))

    def _per_column(self, strength: float) -> Array:
        """Return a penalty's strength for each column of each stack: none for the intercepts."""
        table = np.zeros((len(self._plan.products), max(self._plan.pitches)), self._plan.dtype)
        for row, inputs in zip(table, self._plan.units, strict=False):
            row[:inputs] = strength
        return readonly(table)

    def gradient(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return the gradient in weights and intercepts of each layer that `run` left with the rule "gradient"."""
        weights, biases = views_of(self._plan, self._totals)
        biases[: len(self.norms)] = self._of_norms(SHIFT)
        return list(zip(weights, biases, strict=True))

    def scale_gradient(self) -> list[NDArray[np.float64]]:
        """Return the gradient in the scales of each normalised layer, likewise."""
        return self._of_norms(SCALE)

    def _of_norms(self, which: int) -> list[NDArray[np.float64]]:
        part = self._totals[self._plan.size + which * self._norms.shape[1] :]
        units = [len(norm.scales) for norm in self.norms]
        return [part[begin : begin + count] for begin, count in zip(self._plan.norm_begins, units, strict=False)]

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that `run` changes."""
        arrays = {"parameters": self._parameters, "moments": self._moments, "norms": self._norms}
        return {name: array.copy() for name, array in arrays.items()} | {"n_steps": self.n_steps}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `get_state` returned."""
        for name, array in (("parameters", self._parameters), ("moments", self._moments), ("norms", self._norms)):
            if state[name].shape != array.shape:
                raise ValueError(f"{name} from before have shape {state[name].shape}; this network needs {array.shape}")
        self._parameters[...] = state["parameters"]
        self._moments[...] = state["moments"]
        self._norms[...] = state["norms"]
        self.n_steps = state["n_steps"]

    def run(self, order: ArrayLike, batch_size: int, steps: ArrayLike) -> NDArray[np.float64]:
        """Train on ``X[order[:batch_size]]``, ``X[order[batch_size:2 * batch_size]]``, and so on.

        Parameters
        ----------
        order : array-like of shape (N,), intp
            Numbers of rows; the last batch may be shorter.
        batch_size : int
            Rows of a batch.
        steps : float or array-like of shape (number of batches,)
            Step sizes.

        Returns
        -------
        ndarray of shape (number of batches,), float64
            Mean weighted loss of each batch before its step, without penalty.

        Raises
        ------
        ValueError
            If `order` has a number that no row has.

        Notes
        -----
        Ctrl-C ends it within a fraction of a second: weights, intercepts and `n_steps` are then as after the last
        batch that was completed.
        """
        order = checked_order(order, len(self._data.X))
        if order.size == 0:
            return np.zeros(0)
        # One row more than a block would make a last, shorter batch by itself the same steps as behind the others.
        batch_size = min(batch_size, order.size if self.norms else max(order.size, self._plan.rows + 1))
        batches = -(-order.size // batch_size)
        losses = np.zeros(batches)
        self._last = losses, np.diff(np.append(np.arange(0, order.size, batch_size), order.size))
        rows = batch_size if self.norms else min(batch_size, self._plan.rows)
        self._prepare(rows)
        program, chunks = self._program, -(-batch_size // rows)
        seconds = batches * chunks * self._chunk_seconds
        most = 1 if (program[:, SHARE] == ALONE).all() else MEMBERS
        n_threads = team_size(self._n_threads, most, seconds=seconds)
        self._make_room(n_threads, chunks > 1 or RULES[self._rule] == "gradient")
        settings = Settings(self._loss, self._rule, batch_size, rows, self._seed, self.n_steps, n_threads)
        batch = Batches(readonly(order), readonly(self._sizes(steps, batches)), losses)
        model = Model(self._levels, self._parameters, self._norms)
        optimizer = Optimizer(self._numbers, self._l2, self._weight_decay, self._moments, self._totals)
        arguments = tuple(settings), tuple(self._data), tuple(batch), program, tuple(model), tuple(optimizer)
        limit = max(1, int(CALL_SECONDS / self._chunk_seconds))
        self._train(arguments, n_threads, limit, len(program) * chunks)
        return self.last_losses()

    def last_losses(self) -> NDArray[np.float64]:
        """Return the losses of the last call of `run`; if Ctrl-C ended it, 0 for batches that were not done."""
        losses, lengths = self._last
        return losses / lengths

    def _train(self, arguments: tuple[Any, ...], n_threads: int, limit: int, lines: int) -> None:
        """Call the kernel until all batches are done; `lines` of the program make a batch."""
        before = self.n_steps
        states = [
            np.array([0, 0, 1, COMING if thread else WORKING, n_threads, limit], np.int64)
            for thread in range(n_threads)
        ]

        def call(thread: int) -> bool:
            own: tuple[Any, ...] = tuple(self._workspaces[thread]), self._board, states[thread]
            everything: tuple[Any, ...] = (thread, *arguments, *own)
            return bool(train(*everything))

        def work(thread: int) -> Iterator[None]:
            state = states[thread]

            def go_on() -> bool:
                if state[STAGE] == WORKING:
                    state[LIMIT] = limit
                return call(thread)

            try:
                yield from until_done(go_on, state, STAGE, MOST, leads=thread == 0)
            finally:
                if thread == 0:
                    leave(self._board)

        reset(self._board)
        try:
            parallel.run(work, n_threads, n_threads)
        except BaseException:
            parallel.insist(lambda: self._finish_batch(call, states))
            raise
        finally:
            self.n_steps = before + int(states[0][PLACE]) // lines

    def _finish_batch(self, call: Callable[[int], bool], states: list[Array]) -> None:
        """Complete the batch that was interrupted, in this thread: some may have taken their part of the step.

        The leader takes in nobody meanwhile: what a helper that went home knows of a round is out of date.
        """
        states[0][LIMIT], states[0][MOST] = 0, 1
        while states[0][STAGE] != WORKING:
            for thread in range(len(states)):
                call(thread)

    def _sizes(self, steps: ArrayLike, batches: int) -> Array:
        """Return for each batch its step size, and the factors that correct Adam's means."""
        size = np.empty(batches)
        size[...] = steps
        corrections = (1 - beta ** (self.n_steps + np.arange(1.0, batches + 1)) for beta in self._betas)
        of_mean, of_square = (np.where(correction > 0, correction, 1) for correction in corrections)
        return np.column_stack([size, size / of_mean, 1 / np.sqrt(of_square)]).astype(self._plan.dtype)

    def _prepare(self, rows: int) -> None:
        """Lay out chunks of so many rows, if the last call had others."""
        if rows == self._rows:
            return
        self._program, self._levels = self._plan.program(rows), self._plan.levels(rows)
        self._chunk_seconds = sum(seconds + OPERATION for _, _, seconds in self._plan.seconds(rows))
        self._rows, self._workspaces = rows, []

    def _make_room(self, n_threads: int, totals: bool) -> None:
        plan, rows = self._plan, self._rows
        if not self._workspaces:
            groups = np.zeros(-(-rows // LOSS_ROWS))
            shared = plan.blocks(rows), plan.grads(rows), plan.normalized(rows), groups
            self._workspaces = [Workspace(*shared, plan.thread_buffer(rows))]
        while len(self._workspaces) < n_threads:
            self._workspaces.append(self._workspaces[0]._replace(thread_buffer=plan.thread_buffer(rows)))
        if totals:
            self._totals = np.zeros(self._trained)
