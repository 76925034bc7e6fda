"""The size of each step of the linear models that are trained by steps."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from ..kernels.losses.table import LOSSES
from ..training.batches import Batches, Rates, Rows
from ..training.step_sizes import scheduled_sizes
from ._sgd_columns import LinearTask

__all__ = ["step_sizes"]

#: Rows to look at, and steps of the power method, for the curvature of the mean loss.
_ROWS, _POWER_ITERATIONS = 2000, 15


class StepSettings(Protocol):
    """The parameters that say how large a step is."""

    learning_rate: Any
    eta0: float
    power_t: float
    alpha: float


def step_sizes(model: StepSettings, task: LinearTask, batches: Batches) -> Rates:
    """Return the function that gives the sizes of `count` steps of a linear model after `done` ones."""
    if not (isinstance(model.learning_rate, str) and model.learning_rate == "optimal"):
        return scheduled_sizes(model.learning_rate, model.eta0, model.power_t)
    alpha = model.alpha
    # scikit-learn begins with 1 / alpha^(1/4), L. Bottou's guess of a typical weight.
    first = min(alpha**-0.25, _stable(task, batches))
    return lambda done, count: 1 / (1 / first + alpha * np.arange(done, done + count))


def _stable(task: LinearTask, batches: Batches) -> float:
    """Return 1 / L, where L bounds the curvature of the loss that a step sees; to two digits.

    A batch of b rows sees the curvature of the mean loss, and 1/b of that of single rows, none if it is all rows: L =
    c ((1 - 1/b) λ + r / b), with λ the largest eigenvalue of the rows' second moments, r their mean square, c the
    curvature of the loss. Source: R. M. Gower et al., "SGD: General Analysis and Improved Rates" (2019), with
    the mean square of the rows where theirs is the largest.
    """
    eigenvalue, mean_square = _second_moments(task.rows, task.fit_intercept)
    single_row_share = 0 if batches.size == batches.n else 1 / batches.size
    bound = LOSSES[task.loss].step_curvature * ((1 - single_row_share) * eigenvalue + single_row_share * mean_square)
    return float(f"{1 / bound:.1e}") if bound > 0 else math.inf


def _second_moments(rows: Rows, with_intercept: bool) -> tuple[float, float]:
    """Return the largest eigenvalue and the trace of the weighted mean of x xᵀ, from evenly spread rows."""
    every = slice(None, None, -(-len(rows.X) // _ROWS))
    x = rows.X[every].astype(np.float64)
    x = np.column_stack([x, np.ones(len(x))]) if with_intercept else x
    weight = np.ones(len(x)) if rows.weight is None else rows.weight[every].astype(np.float64)
    total = weight.sum()
    if total == 0:
        weight, total = np.ones(len(x)), float(len(x))
    vector, eigenvalue = np.ones(x.shape[1]), 0.0
    for _ in range(_POWER_ITERATIONS):
        vector = x.T @ (weight * (x @ (vector / np.linalg.norm(vector)))) / total
        eigenvalue = float(np.linalg.norm(vector))
        if eigenvalue == 0:
            break
    return eigenvalue, float(weight @ np.square(x).sum(axis=1)) / total
