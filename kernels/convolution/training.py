"""Training of a network of image layers on mini-batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..losses.table import NETWORK_LOSSES
from ..networks.row_losses import LOSS_ROWS, targets_of_rows
from ..networks.steps import RULES, rule_of
from ..runtime import parallel
from ..runtime.jit import readonly
from ..runtime.memory import aligned
from ..training.batches import checked_order
from ._grid_loops import STEP_ENTRIES, loss_gradient, take_step
from .buffers import Array, Images
from .network import Network, Plan, Weights

__all__ = ["ConvNetTraining"]

#: Parameters whose step is a part, and seconds of the step of a byte of them, roughly.
_STEP_PART, _STEP_SECONDS = 1 << 16, 1e-10


class ConvNetTraining:
    """A convolutional network in training.

    It assumes that its arguments are settled, and keeps the state between calls.

    Parameters
    ----------
    network : Network
        The layers; the last one makes the scores.
    loss : {"softmax_cross_entropy", "binary_cross_entropy"}
        The loss of a row, as of `NetworkTraining`.
    images : Images
        What is trained on; not copied.
    y : ndarray of shape (n,), class indices of dtype intp, or (n, C) of the dtype of the network
        Targets.
    weights : Weights
        To begin with; copied.
    rule : {"sgd", "adam"}
        How steps are taken.
    l2, momentum, nesterov, beta_1, beta_2, epsilon, weight_decay, seed
        As of `NetworkTraining`; a penalty is on the weights of products only.
    dropout : bool
        Whether layers that drop values do so.
    sample_weight : ndarray of shape (n,) of the dtype of the network, optional
        Weights of the rows, used as they are: the loss of a batch is Σ w l / (rows of the batch).
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Attributes
    ----------
    weights : Weights
        What the network is now.
    n_steps : int
        Batches done so far.
    """

    def __init__(
        self,
        network: Network,
        loss: str,
        images: Images,
        y: Array,
        weights: Weights,
        *,
        rule: str = "sgd",
        l2: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
        dropout: bool = True,
        sample_weight: Array | None = None,
        n_threads: int | None = None,
    ) -> None:
        dtype = network.dtype
        rule = rule_of(rule, momentum, nesterov)
        self.network, self.weights = network, weights.copy()
        self._loss, self._rule = NETWORK_LOSSES.index(loss), RULES.index(rule)
        self._n_threads, self._seed = n_threads, seed
        self._betas, self._dropout = (beta_1, beta_2), dropout
        self._images = images
        self._outputs = network.layers[-1].shape[0]
        self._targets = targets_of_rows(y, self._outputs, dtype, sample_weight)
        self._numbers = readonly(np.array([momentum, beta_1, beta_2, epsilon], dtype))
        self._penalties = [
            [readonly(np.full(STEP_ENTRIES, strength if penalized else 0, dtype)) for strength in (l2, weight_decay)]
            for penalized in (True, False)
        ]
        self._moments = aligned((2, 0 if rule == "sgd" else network.places.size), dtype)
        self._steps = self._step_parts()
        self._plan: Plan | None = None
        self._losses, self._began = np.zeros(0), 0
        self.n_steps = 0

    def _step_parts(self) -> list[tuple[int, int, bool]]:
        """Return which parameters take their step together, and whether they have a penalty."""
        places = self.network.places
        bounds = ((0, places.penalized, True), (places.penalized, places.size, False))
        return [
            (first, min(end, first + _STEP_PART), penalized)
            for begin, end, penalized in bounds
            for first in range(begin, end, _STEP_PART)
        ]

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that `run` changes."""
        weights = self.weights
        return {
            "parameters": weights.flat.copy(),
            "running": weights.running.copy(),
            "moments": self._moments.copy(),
            "n_steps": self.n_steps,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `get_state` returned."""
        self.weights.flat[...] = state["parameters"]
        self.weights.running[...] = state["running"]
        self._moments[...] = state["moments"]
        self.n_steps = int(state["n_steps"])

    def finite(self) -> bool:
        """Say whether all weights are finite."""
        return bool(np.isfinite(self.weights.flat).all() and np.isfinite(self.weights.running).all())

    def run(self, order: ArrayLike, batch_size: int, steps: ArrayLike) -> NDArray[np.float64]:
        """Train on the images `order`, batch by batch; see `Trainable.run`.

        Ctrl-C ends it within a fraction of a second: weights and `n_steps` are then as after the last batch that was
        completed.
        """
        order = checked_order(order, len(self._images.X))
        if order.size == 0:
            return np.zeros(0)
        batch_size = min(batch_size, order.size)
        if self._plan is None or self._plan.size < batch_size:
            self._plan = self._new_plan(batch_size)
        plan, batches = self._plan, -(-order.size // batch_size)
        sizes, losses = np.broadcast_to(np.asarray(steps, np.float64), (batches,)), np.zeros(batches)
        self._losses, self._began = losses, self.n_steps
        for batch in range(batches):
            rows = order[batch * batch_size : (batch + 1) * batch_size]
            losses[batch] = self._differentiate(plan, rows)
            self._take_step(plan, float(sizes[batch]))
        return losses

    def last_losses(self) -> NDArray[np.float64]:
        """Return the losses of the batches that the last call of `run` has completed, though Ctrl-C ended it."""
        return self._losses[: self.n_steps - self._began].copy()

    def loss_gradient(self, order: Array) -> tuple[float, list[dict[str, Array]]]:
        """Return the mean loss of some images, without penalty, and its gradient in the parameters of each layer."""
        plan = self._new_plan(len(order))
        loss = self._differentiate(plan, order)
        return loss, self.network.unpack_gradient(plan.gradient)

    def _new_plan(self, size: int) -> Plan:
        return Plan(
            self.network, self.weights, self._images, size, training=True, dropout=self._dropout, seed=self._seed
        )

    def _differentiate(self, plan: Plan, rows: Array) -> float:
        """Make the gradient of a batch's mean loss; return that."""
        n = len(rows)
        plan.forward(rows, self._n_threads, number=self.n_steps)
        groups = -(-n // LOSS_ROWS)
        sums = np.zeros(groups)
        kind = self.network.dtype.type
        scale = kind(1) / kind(n)
        loss_gradient(
            self._loss, readonly(plan.scores()), plan.scores_grad(), n, self._outputs, plan.batch.rows, *self._targets,
            scale, groups, sums,
        )  # fmt: skip
        plan.backward(self._n_threads)
        total = 0.0
        for part in sums.tolist():
            total += part
        return total / n

    def _take_step(self, plan: Plan, size: float) -> None:
        """Take a step; once begun it is completed, whatever comes."""
        corrections = (1 - beta ** (self.n_steps + 1.0) for beta in self._betas)
        of_mean, of_square = (correction if correction > 0 else 1.0 for correction in corrections)
        step = readonly(np.array([size, size / of_mean, of_square**-0.5]).astype(self.network.dtype))
        done = np.zeros(len(self._steps), np.uint8)
        moved = plan.moved_statistics()
        n_steps = self.n_steps + 1
        gradient = readonly(plan.gradient)

        def move(part: int) -> None:
            if done[part]:
                return
            first, last, penalized = self._steps[part]
            decay, shrink = self._penalties[not penalized]
            take_step(
                self._rule, self.weights.flat, gradient, self._moments, decay, shrink, step, self._numbers, first, last,
                done, part,
            )  # fmt: skip

        def complete() -> None:
            for part in range(len(self._steps)):
                move(part)
            for statistics, after in moved:
                statistics[...] = after
            self.n_steps = n_steps

        seconds = self.weights.flat.nbytes * _STEP_SECONDS
        try:
            parallel.run(move, len(self._steps), parallel.resolve(self._n_threads, seconds=seconds))
        finally:
            parallel.insist(complete)
